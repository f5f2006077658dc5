"""Makes the small tokenizer.json files of tests/data/tokenizers and what they turn texts into.

    pip install tokenizers==0.23.3
    python3 tools/make_tokenizer_fixtures.py [--random N] [OUT_DIR]

Each folder gets a tokenizer.json and a cases.json: a list of variants, each with the fields of the
file that it replaces (of the model only the options it names) and with cases {text,
parse_special, ids, decoded} that the library "tokenizers" computed. --random adds N random texts to
each variant, for a longer comparison than the one that is kept.
"""

import argparse
import json
import pathlib
import random

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

CORPUS = """
The context of a language model is what it can still see of the text that came before.
A compressed context keeps a short summary of each chunk, so that it costs less memory to keep.
Every request may choose how much memory it wants; the server may choose for it when it is busy.
It's what we've said: they'll say we're wrong, I'd say you can't know. \
He'd gone, she's here, I'm not.
def compress(chunk, size=32):\n    return [summary(c) for c in split(chunk, size)]\n\n
for (int i = 0; i < 1024; ++i) { total += values[i] * 3.14159; }\n\n\treturn total / 1000000;
Größere Abschnitte sparen Speicher, kleinere merken sich mehr. Übung macht den Meister.
Le contexte compressé garde un résumé court; ça coûte moins de mémoire à l'été comme à Noël.
Сжатый контекст хранит краткое изложение каждой части текста, и памяти нужно меньше.
圧縮された文脈は、それぞれの部分の短い要約を保持します。記憶は少なくて済みます。
压缩的上下文保存每一部分的简短摘要，因此需要的内存更少。
مرحبا بالعالم، كيف حالك اليوم؟ שלום עולם, מה שלומך היום? नमस्ते दुनिया, आप कैसे हैं?
"""

TEXTS = [
    "",
    " ",
    "   ",
    "a",
    "Hello, world!",
    " Hello",
    "Hello  world   again ",
    "it's we'll I'D THEY'VE can't 'tis",
    "1 22 333 4444 1234567890 ½ ² Ⅻ ٣٤",
    "line one\nline two\r\n\r\n  indented\n\n\n\tx \n y",
    "for (int i = 0; i < 10; ++i) { sum += a[i]; } // done!!!",
    "HTTPServer camelCase SNAKE_CASE kebab-case Ünïcödé",
    "Größere Abschnitte, l'été, Noël, e\u0301 (combining)",
    "Сжатый контекст 圧縮された文脈は 压缩的上下文 مرحبا नमस्ते",
    "emoji 🚀🦙😶‍🌫️ ✅ flags 🇩🇪",
    "white\u00a0space\u2003of\u3000all\u180ekinds\u2028and\u0085lines\u200b",
    "▁already▁ ▁▁ written",
    "<0x41> <0x0A> is text",
    "\x00\x01\x7f control",
    "ſ long s: it'ſ, 'ſ",
    "<|endoftext|>",
    "a<|endoftext|>b <|endoftext|> c<|endoftext|><|endoftext|>",
    " <|begin|>text <tool>x<tool_call>y<tool_calls",
    "<s>a</s>b <s> c</s>",
    "<s> x",
    "a <s>",
    "<s",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "                                                     x",
]

LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|"
          r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
QWEN = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
O200K = "|".join([
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"\p{N}{1,3}", r" ?[^\s\p{L}\p{N}]+[\r\n/]*", r"\s*[\r\n]+", r"\s+(?!\S)", r"\s+"])


def byte_level(prefix=False, regex=True):
    return {"type": "ByteLevel", "add_prefix_space": prefix, "trim_offsets": True,
            "use_regex": regex}


def split(pattern, behavior="Isolated", invert=False):
    step = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": behavior, "invert": invert}
    return {"type": "Sequence", "pretokenizers": [step, byte_level(regex=False)]}


def digits(individual):
    step = {"type": "Digits", "individual_digits": individual}
    return {"type": "Sequence", "pretokenizers": [step, byte_level(prefix=True)]}


def metaspace(scheme, cut):
    return {"normalizer": None,
            "pre_tokenizer": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme,
                              "split": cut}}


def template(token, number):
    return {"type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": token, "type_id": 0}},
                       {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}},
                     {"Sequence": {"id": "B", "type_id": 0}}],
            "special_tokens": {token: {"id": token, "ids": [number], "tokens": [token]}}}


REPLACE = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
DECODE = [{"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
          {"type": "ByteFallback"}, {"type": "Fuse"}]
STRIP = {"type": "Strip", "content": " ", "start": 1, "stop": 0}


def added(number, content, special, normalized=False):
    return {"id": number, "content": content, "single_word": False, "lstrip": False,
            "rstrip": False, "normalized": normalized, "special": special}


def make_byte_level():
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=900, show_progress=False,
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator([CORPUS], trainer)
    document = json.loads(tokenizer.to_str())
    size = len(document["model"]["vocab"])
    document["added_tokens"] = [added(size, "<|endoftext|>", True),
                                added(size + 1, "<|begin|>", True),
                                added(size + 2, "<tool>", False, normalized=True),
                                added(size + 3, "<tool_call>", False)]
    variants = {
        "gpt2": {},
        "prefix_space": {"pre_tokenizer": byte_level(prefix=True)},
        "llama3": {"pre_tokenizer": split(LLAMA3), "model": {"ignore_merges": True},
                   "post_processor": template("<|begin|>", size + 1)},
        "qwen": {"pre_tokenizer": split(QWEN, "Removed", True)},
        "o200k": {"pre_tokenizer": split(O200K)},
        "single_digits": {"pre_tokenizer": digits(True)},
        "whole_numbers": {"pre_tokenizer": digits(False)},
        "no_split": {"pre_tokenizer": byte_level(regex=False)},
    }
    return document, variants


def make_byte_fallback():
    byte_tokens = [f"<0x{byte:02X}>" for byte in range(256)]
    names = ["<unk>", "<s>", "</s>"]
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.BpeTrainer(vocab_size=700, show_progress=False,
                                  special_tokens=names + byte_tokens)
    european = CORPUS.partition("圧")[0]  # so that other scripts fall back to bytes
    tokenizer.train_from_iterator([european], trainer)
    document = json.loads(tokenizer.to_str())
    document["added_tokens"] = [added(i, name, True) for i, name in enumerate(names)]
    document["normalizer"] = {"type": "Sequence",
                              "normalizers": [{"type": "Prepend", "prepend": "▁"}, REPLACE]}
    document["pre_tokenizer"] = None
    document["decoder"] = {"type": "Sequence", "decoders": DECODE + [STRIP]}
    document["post_processor"] = template("<s>", 1)
    normalized = [added(i, name, True, normalized=True) for i, name in enumerate(names)]
    variants = {
        "llama2": {},
        "llama2_normalized": {"added_tokens": normalized},
        "replace_only": {"normalizer": REPLACE,
                         "decoder": {"type": "Sequence", "decoders": DECODE}},
        "metaspace_always": metaspace("always", True),
        "metaspace_first": metaspace("first", True),
        "metaspace_first_whole": metaspace("first", False),
        "metaspace_never": metaspace("never", True),
        "merges_ignored": metaspace("always", True) | {"model": {"ignore_merges": True}},
    }
    return document, variants


def changed(document, fields):
    model = document["model"] | fields.get("model", {})
    return document | fields | {"model": model}


def random_text(rng):
    pieces = [" ", "  ", "\n", "\r\n", "\t", "'", "'s", "'Ll", "▁", "<s>", "</s>", "<|endoftext|>",
              "<tool>", "<tool_call>", "é", "ß", "ſ", "ñ", "Ж", "漢", "字", "🚀", "\u200d", "\u0301",
              "\u180e", "\u00a0", "\u2029", "1", "23", "½", "٣", "Ⅻ", "the", "Server", "ING", "...",
              "!?", "//", "_", "ǅ", "ʰ", "ª"] + CORPUS.split()
    text = ""
    for _ in range(rng.randrange(1, 12)):
        if rng.random() < 0.15:
            text += chr(rng.choice([rng.randrange(0x250), rng.randrange(0xD800),
                                    rng.randrange(0x1F000, 0x1FA00)]))
        else:
            text += rng.choice(pieces) + rng.choice(["", " ", ""])
    return text


def cases_of(document, texts):
    # Without parse_special no added token is recognised: as if the file had none.
    readers = {True: Tokenizer.from_str(json.dumps(document)),
               False: Tokenizer.from_str(json.dumps(document | {"added_tokens": []}))}
    # Normalized special tokens lose their mark in the library's decoder: decode without.
    plain = [token | {"normalized": False} for token in document["added_tokens"]]
    decoder = Tokenizer.from_str(json.dumps(document | {"added_tokens": plain}))
    cases = []
    for text in texts:
        for parse_special, reader in readers.items():
            ids = reader.encode(text, add_special_tokens=False).ids
            if not parse_special and ids == cases[-1]["ids"]:
                continue
            cases.append({"text": text, "parse_special": parse_special, "ids": ids,
                          "decoded": decoder.decode(ids)})
    return cases


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out_dir", nargs="?", default="tests/data/tokenizers", type=pathlib.Path)
    parser.add_argument("--random", default=0, type=int, metavar="N")
    arguments = parser.parse_args()
    rng = random.Random(20250511)
    texts = TEXTS + [random_text(rng) for _ in range(arguments.random)]
    for name, make in (("bytelevel", make_byte_level), ("bytefallback", make_byte_fallback)):
        document, variants = make()
        variants = [{"name": variant, "fields": fields,
                     "cases": cases_of(changed(document, fields), texts)}
                    for variant, fields in variants.items()]
        folder = arguments.out_dir / name
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(document, ensure_ascii=False, indent=0)
        (folder / "tokenizer.json").write_text(text + "\n")
        (folder / "cases.json").write_text(json.dumps(variants, ensure_ascii=True) + "\n")


if __name__ == "__main__":
    main()
