#!/usr/bin/env python3
"""Turns a state_dict.pt of the authors' training code into a model directory that catserve serves.

    tools/convert_checkpoint.py state_dict.pt models/mine --tokenizer gpt2/
    tools/convert_checkpoint.py tokenizer.model models/mine     a SentencePiece model alone

--tokenizer names a folder with tokenizer.json, vocab.json and merges.txt, or tokenizer.model; or
one such file. Needs nothing but Python 3.11: neither PyTorch nor a numeric library.
"""

import argparse
import contextlib
import json
import pathlib
import shutil
import signal
import sys
import tempfile

from convert import authors, floats, safetensors_file, sentencepiece, torch_zip
from convert.errors import ConversionError, unreadable

WRAPPERS = ("state_dict", "model_state_dict", "model")  # keys that a file may keep it under
INFERRED = ("heads", "compressor_heads", "block_size", "vocab_size", "chunk_sizes")


def parse(arguments):
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("source", type=pathlib.Path, help="state_dict.pt, or tokenizer.model")
    parser.add_argument("out", type=pathlib.Path, help="the model directory, made if needed")
    parser.add_argument("--tokenizer", type=pathlib.Path, help="folder or file, see above")
    parser.add_argument("--config", type=pathlib.Path,
                        help="JSON with any of the flags below, names with _")
    parser.add_argument("--heads", type=int, help="of the decoder, if it has no q/k norm")
    parser.add_argument("--compressor-heads", type=int, help="of the compressor, likewise")
    parser.add_argument("--block-size", type=int, help="most tokens; needed for a dense model")
    parser.add_argument("--vocab-size", type=int, help="default: the tokenizer's, else all rows")
    parser.add_argument("--chunk-sizes", help="sizes to offer, as 4,8,16 (default: 4 and up)")
    parser.add_argument("--norm-eps", type=float, help="default 1e-5")
    parser.add_argument("--rope-base", type=float, help="default 10000")
    parser.add_argument("--dtype", choices=("bf16", "f32"), default="bf16",
                        help="of matrices and tables; norms stay f32 (default: bf16)")
    return parser.parse_args(arguments)


def add_config_file(options):
    """What a flag does not say, the JSON file may; then the defaults."""
    if options.config:
        try:
            given = json.loads(options.config.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise unreadable(options.config, error) from None
        known = {*INFERRED, "norm_eps", "rope_base"}
        if not isinstance(given, dict) or not known.issuperset(given):
            raise ConversionError(f"{options.config}: must be an object with some of "
                                  + ", ".join(sorted(known)))
        for name, value in given.items():
            if getattr(options, name) is None:
                setattr(options, name, value)
    options.norm_eps = 1e-5 if options.norm_eps is None else options.norm_eps
    options.rope_base = 10000 if options.rope_base is None else options.rope_base
    if isinstance(options.chunk_sizes, str):
        try:
            options.chunk_sizes = [int(size) for size in options.chunk_sizes.split(",")]
        except ValueError:
            raise ConversionError("--chunk-sizes must be numbers with commas between") from None
    check_options(options)


def check_options(options):
    """Refuses what no server would load; what does not fit the checkpoint is found there."""
    def whole(value):
        return type(value) is int and value >= 1  # a bool is no number

    def fail(name, allowed):
        value = getattr(options, name)
        raise ConversionError(f"--{name.replace('_', '-')} {value!r}: must be {allowed}")

    for name in ("heads", "compressor_heads", "block_size", "vocab_size"):
        if getattr(options, name) is not None and not whole(getattr(options, name)):
            fail(name, "a whole number, 1 or more")
    for name, most in (("norm_eps", 1), ("rope_base", 1e12)):
        value = getattr(options, name)
        if type(value) not in (int, float) or not 0 < value <= most:
            fail(name, f"a number above 0, at most {most:g}")
    sizes = options.chunk_sizes
    if sizes is None:
        return
    if not isinstance(sizes, list) or not sizes or not all(map(whole, sizes)) \
            or sizes != sorted(set(sizes)):
        fail("chunk_sizes", "a rising list of whole numbers, as 4,8,16")


def tokenizer_files(path):
    """The files to copy and, if there is only a SentencePiece model, that."""
    if not path.exists():
        raise ConversionError(f"{path}: cannot be read: there is no such file or folder")
    if path.is_file():
        if path.suffix == ".model":
            return [], path
        if path.name == "tokenizer.json":
            return [path], None
        raise ConversionError(f"{path}: is no tokenizer: name tokenizer.json, a folder or a .model")
    extra = [path / "tokenizer_config.json"] if (path / "tokenizer_config.json").is_file() else []
    if (path / "tokenizer.json").is_file():
        return [path / "tokenizer.json", *extra], None
    pair = [path / "vocab.json", path / "merges.txt"]
    if all(file.is_file() for file in pair):
        return [*pair, *extra], None
    if (path / "tokenizer.model").is_file():
        return extra, path / "tokenizer.model"
    raise ConversionError(f"{path}: holds neither tokenizer.json, nor vocab.json and merges.txt, "
                          "nor tokenizer.model")


def write_tokenizer(path, out):
    """Copies or converts; returns the number of ids."""
    try:
        return lay_tokenizer(path, out)
    except (AttributeError, KeyError, RecursionError, TypeError, ValueError) as error:
        raise ConversionError(f"{path}: is no tokenizer: {error!r}") from None


def lay_tokenizer(path, out):
    """Fills `out`; returns the number of ids."""
    files, model = tokenizer_files(path)
    for file in files:
        shutil.copyfile(file, out / file.name)
    if model is not None:
        document = sentencepiece.to_tokenizer_json(sentencepiece.read(model))
        text = json.dumps(document, ensure_ascii=False, indent=1)
        (out / "tokenizer.json").write_text(text + "\n", encoding="utf-8")
    if (out / "tokenizer.json").is_file():
        document = json.loads((out / "tokenizer.json").read_text(encoding="utf-8"))
        ids = [*document["model"]["vocab"].values(),
               *(token["id"] for token in document["added_tokens"])]
    else:
        ids = json.loads((out / "vocab.json").read_text(encoding="utf-8")).values()
    if not all(isinstance(i, int) and i >= 0 for i in ids):
        raise ValueError("an id is no whole number")
    return max(ids) + 1


def read_state(archive):
    state = archive.read()
    for name in WRAPPERS:
        if isinstance(state, dict) and isinstance(state.get(name), dict):
            state = state[name]
    if not isinstance(state, dict) or not all(
            isinstance(k, str) and isinstance(v, torch_zip.StoredTensor) for k, v in state.items()):
        raise ConversionError("holds more than named tensors: save model.state_dict() alone")
    return authors.plain_names(state)


def converted(archive, name, tensor, dtype):
    """The tensor for safetensors_file.write. Norms, which have one dimension, stay F32."""
    if tensor.dtype not in floats.TO_F32:
        raise ConversionError(f"{name} is of type {tensor.dtype}, expected F32, BF16 or F16")
    target = "F32" if len(tensor.shape) == 1 else dtype.upper()

    def data():
        for piece in archive.data(tensor):
            try:
                yield floats.convert(piece, tensor.dtype, target)
            except ConversionError as error:
                raise ConversionError(f"{name} {error}") from None

    return safetensors_file.Tensor(target, tensor.shape, data)


@contextlib.contextmanager
def all_or_nothing(out):
    """A folder to fill: its files come to `out` at the end, and nothing does after an error."""
    if out.exists() and not out.is_dir():
        raise ConversionError(f"{out}: is a file; name a folder for the model")
    there = next(folder for folder in (out, *out.absolute().parents) if folder.is_dir())
    with tempfile.TemporaryDirectory(prefix=".convert-", dir=there) as work:
        yield pathlib.Path(work)
        out.mkdir(parents=True, exist_ok=True)
        for file in pathlib.Path(work).iterdir():
            file.replace(out / file.name)


def convert(options):
    """Returns the line that says what was made."""
    add_config_file(options)
    with all_or_nothing(options.out) as work:
        if options.source.suffix == ".model":
            return f"{options.out}: {write_tokenizer(options.source, work)} tokens"
        return convert_model(options, work)


def convert_model(options, work):
    archive = torch_zip.TorchZip(options.source)
    if options.tokenizer:
        ids = write_tokenizer(options.tokenizer, work)
        options.vocab_size = options.vocab_size or ids
    try:
        tensors = read_state(archive)
        config = authors.infer(tensors, options)
        authors.check(tensors, config)
        safetensors_file.write(work / "model.safetensors", {
            name: converted(archive, name, tensor, options.dtype)
            for name, tensor in tensors.items()})
    except ConversionError as error:
        text = str(error)
        at = "" if text.startswith(str(options.source)) else f"{options.source}: "
        raise ConversionError(at + text) from None
    (work / "config.json").write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")
    count = sum(tensor.elements for tensor in tensors.values())
    return f"{options.out}: {config['model_type']}, {count / 1e6:.1f}M parameters, {options.dtype}"


def main():
    # As Ctrl-C, so that a large half of a model is not left behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    options = parse(sys.argv[1:])
    try:
        print(convert(options))
    except ConversionError as error:
        sys.exit(f"convert_checkpoint: {error}")
    except OSError as error:  # a full disk names no file
        sys.exit(f"convert_checkpoint: {error.filename or options.out}: {error.strerror}")
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)


if __name__ == "__main__":
    main()
