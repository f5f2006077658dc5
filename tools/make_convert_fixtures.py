#!/usr/bin/env python3
"""Makes tests/data/convert: what tools/convert_checkpoint.py reads, written by the libraries whose
formats these are, so that its readers are not tested against our own idea of them.

    tools/make_convert_fixtures.py state_dict     needs torch and numpy
    tools/make_convert_fixtures.py tokenizer      needs sentencepiece

state_dict.pt holds the values of tests/tools/tiny_state.py as a model wrapped for parallel training
saves them; tokenizer.model is a small BPE model with byte fallback, and tokenizer_cases.json what
the library makes of some texts.
"""

import ast
import collections
import json
import os
import pathlib
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]
OUT = ROOT / "tests/data/convert"


def literal(path, name):
    """The value that a module gives a name, without running the module."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and node.targets[0].id == name:
            return ast.literal_eval(node.value)
    raise KeyError(name)


def make_state_dict():
    import numpy
    import torch
    sys.path.insert(0, str(ROOT / "tests/tools"))
    import tiny_state
    state = collections.OrderedDict()
    for name, (shape, data) in tiny_state.state().items():
        array = numpy.frombuffer(data, numpy.float32).copy().reshape(shape)
        state["module." + name] = torch.from_numpy(array)
    state._metadata = collections.OrderedDict(version=1)  # as Module.state_dict() leaves it
    torch.save(state, OUT / "state_dict.pt")


def make_tokenizer():
    import sentencepiece
    texts_of = ROOT / "tools/make_tokenizer_fixtures.py"
    corpus, texts = literal(texts_of, "CORPUS"), literal(texts_of, "TEXTS")
    os.chdir(OUT)  # the file records the prefix it was given
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(line for line in corpus.splitlines() for _ in range(4)),
        model_prefix="tokenizer", model_type="bpe", vocab_size=620, byte_fallback=True,
        normalization_rule_name="identity", remove_extra_whitespaces=False,
        character_coverage=0.995, hard_vocab_limit=False)
    (OUT / "tokenizer.vocab").unlink()
    processor = sentencepiece.SentencePieceProcessor(model_file=str(OUT / "tokenizer.model"))
    cases = [{"text": text, "ids": ids, "decoded": processor.decode(ids)}
             for text, ids in zip(texts, map(processor.encode, texts))]
    text = "[\n" + ",\n".join(json.dumps(case, ensure_ascii=False) for case in cases) + "\n]"
    (OUT / "tokenizer_cases.json").write_text(text + "\n", encoding="utf-8")


def main():
    OUT.mkdir(parents=True, exist_ok=True)
    {"state_dict": make_state_dict, "tokenizer": make_tokenizer}[sys.argv[1]]()


if __name__ == "__main__":
    main()
