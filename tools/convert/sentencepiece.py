"""Turns SentencePiece .model files into tokenizer.json: BPE with byte fallback, as Llama 2 has it.

A .model is a protocol buffer; its few fields are read here by their numbers
(sentencepiece_model.proto). What would tokenise differently is refused, not approximated.
"""

import struct
from typing import NamedTuple

from convert.errors import ConversionError

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)
BPE = 2
MODEL_TYPES = {1: "unigram", 2: "BPE", 3: "word", 4: "char"}
METASPACE = "\u2581"
MODEL_BYTES_MAX = 256 << 20
PIECE_CHARACTERS_MAX = 1000  # every way to cut a piece is tried


class Piece(NamedTuple):
    text: str
    score: float
    kind: int


class Model(NamedTuple):
    pieces: list
    model_type: int
    byte_fallback: bool
    whitespace_suffix: bool
    charsmap: bytes
    dummy_prefix: bool
    remove_extra_whitespaces: bool
    escape_whitespaces: bool


def _varint(data, at):
    value = shift = 0
    while True:
        if at >= len(data) or shift > 63:
            raise ConversionError("is cut short or damaged")
        value |= (data[at] & 0x7F) << shift
        shift += 7
        at += 1
        if data[at - 1] < 0x80:
            return value, at


def fields(data):
    """(number, value) of a message: whole numbers, or the bytes of anything longer."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        number, wire = key >> 3, key & 7
        if wire == 0:
            value, at = _varint(data, at)
        else:
            if wire == 2:
                size, at = _varint(data, at)
            elif wire in (1, 5):
                size = 8 if wire == 1 else 4
            else:
                raise ConversionError(f"is no SentencePiece model (wire type {wire})")
            value, at = data[at:at + size], at + size
            if at > len(data):
                raise ConversionError("is cut short or damaged")
        yield number, value


def _typed(value, kind, what):
    if not isinstance(value, kind):
        raise ConversionError(f"is no SentencePiece model ({what} has another type)")
    return value


def _piece(data):
    text, score, kind = "", 0.0, NORMAL
    for number, value in fields(data):
        if number == 1:
            try:
                text = _typed(value, bytes, "a piece").decode()
            except UnicodeDecodeError:
                raise ConversionError("holds a piece that is no UTF-8") from None
        elif number == 2:
            if len(_typed(value, bytes, "a score")) != 4:
                raise ConversionError("is no SentencePiece model (a score has another type)")
            score, = struct.unpack("<f", value)
        elif number == 3:
            kind = _typed(value, int, "a piece's kind")
    return Piece(text, score, kind)


def _message(data, number):
    """The fields of the last message of that number, as {number: value}."""
    found = {}
    for n, value in fields(data):
        if n == number:
            found = dict(fields(_typed(value, bytes, f"field {number}")))
    return found


def parse(data):
    pieces = [_piece(_typed(value, bytes, "a piece")) for n, value in fields(data) if n == 1]
    if not pieces:
        raise ConversionError("holds no pieces: this is no SentencePiece model")
    trainer, normalizer = _message(data, 2), _message(data, 3)
    return Model(pieces, model_type=trainer.get(3, 1), byte_fallback=bool(trainer.get(35, 0)),
                 whitespace_suffix=bool(trainer.get(24, 0)), charsmap=normalizer.get(2, b""),
                 dummy_prefix=bool(normalizer.get(3, 1)),
                 remove_extra_whitespaces=bool(normalizer.get(4, 1)),
                 escape_whitespaces=bool(normalizer.get(5, 1)))


def read(path):
    if path.stat().st_size > MODEL_BYTES_MAX:
        raise ConversionError(f"{path}: is larger than {MODEL_BYTES_MAX} bytes")
    try:
        model = parse(path.read_bytes())
        check(model)
    except ConversionError as error:
        raise ConversionError(f"{path}: {error}") from None
    return model


def check(model):
    """Refuses what tokenizer.json, as catserve reads it, could not do in the same way."""
    if model.model_type != BPE:
        kind = MODEL_TYPES.get(model.model_type, model.model_type)
        raise ConversionError(f"is a {kind} model, only BPE models can be converted")
    if not model.byte_fallback:
        raise ConversionError("has no byte fallback, so some text would have no tokens")
    if model.charsmap:
        raise ConversionError("normalises Unicode (precompiled_charsmap), which is not supported; "
                              "models trained with normalization_rule_name=identity are")
    if model.remove_extra_whitespaces:
        raise ConversionError("removes extra spaces (remove_extra_whitespaces), not supported")
    if not model.escape_whitespaces or model.whitespace_suffix:
        raise ConversionError("treats spaces in another way than U+2581 before a word")
    texts = [piece.text for piece in model.pieces]
    if len(set(texts)) != len(texts):
        raise ConversionError("holds a piece twice")
    for piece in model.pieces:
        if len(piece.text) > PIECE_CHARACTERS_MAX:
            raise ConversionError(f"holds a piece of {len(piece.text)} characters, more than "
                                  f"{PIECE_CHARACTERS_MAX}")
        if piece.kind == UNUSED or not NORMAL <= piece.kind <= BYTE:
            raise ConversionError(f"piece {piece.text!r} is of kind {piece.kind}, not supported")


def merges(pieces):
    """Every way to make a piece of two others; the pieces of the highest scores first, as the
    library joins them. Of one piece, shorter left parts come first."""
    normal = {piece.text: piece.score for piece in pieces if piece.kind == NORMAL}
    pairs = []
    for text, score in normal.items():
        for cut in range(1, len(text)):
            if text[:cut] in normal and text[cut:] in normal:
                pairs.append((score, text[:cut], text[cut:]))
    pairs.sort(key=lambda pair: -pair[0])  # stable
    return [[left, right] for _, left, right in pairs]


def to_tokenizer_json(model):
    spaces = {"type": "Replace", "pattern": {"String": " "}, "content": METASPACE}
    decoders = [{"type": "Replace", "pattern": {"String": METASPACE}, "content": " "},
                {"type": "ByteFallback"}, {"type": "Fuse"}]
    normalizers = [spaces]
    if model.dummy_prefix:
        normalizers.insert(0, {"type": "Prepend", "prepend": METASPACE})
        decoders.append({"type": "Strip", "content": " ", "start": 1, "stop": 0})
    added = [{"id": i, "content": piece.text, "single_word": False, "lstrip": False,
              "rstrip": False, "normalized": False, "special": piece.kind != USER_DEFINED}
             for i, piece in enumerate(model.pieces)
             if piece.kind in (UNKNOWN, CONTROL, USER_DEFINED)]
    unknown = [piece.text for piece in model.pieces if piece.kind == UNKNOWN]
    return {"version": "1.0", "truncation": None, "padding": None, "added_tokens": added,
            "normalizer": {"type": "Sequence", "normalizers": normalizers},
            "pre_tokenizer": None, "post_processor": None,
            "decoder": {"type": "Sequence", "decoders": decoders},
            "model": {"type": "BPE", "dropout": None, "unk_token": unknown[0] if unknown else None,
                      "continuing_subword_prefix": None, "end_of_word_suffix": None,
                      "fuse_unk": True, "byte_fallback": True, "ignore_merges": False,
                      "vocab": {piece.text: i for i, piece in enumerate(model.pieces)},
                      "merges": merges(model.pieces)}}
