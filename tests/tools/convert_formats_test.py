#!/usr/bin/env python3
"""tools/convert: formats of numbers, and SentencePiece models as tokenizer.json."""

import array
import pathlib
import struct
import sys
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
DATA = ROOT / "tests/data/convert"
sys.path.insert(0, str(ROOT / "tools"))

from convert import floats, sentencepiece  # noqa: E402
from convert.errors import ConversionError  # noqa: E402


class FloatsTest(unittest.TestCase):
    def test_formats_convert_exactly(self):
        numbers = [0.0, -0.0, 1.0, 1.00390625, 1.01171875, -3.3895314e38, 1e-40, 65504.0]
        wide = struct.pack("<8f", *numbers)
        half = floats.convert(wide, "F32", "BF16")
        self.assertEqual(list(array.array("H", half)),
                         [0, 0x8000, 0x3F80, 0x3F80, 0x3F82, 0xFF7F, 1, 0x4780])
        self.assertEqual(floats.convert(half[4:8], "BF16", "F32"), struct.pack("<2f", 1, 1))
        self.assertEqual(floats.convert(struct.pack("<2e", 1.5, -2), "F16", "F32"),
                         struct.pack("<2f", 1.5, -2))
        for bad in (float("inf"), float("-inf"), float("nan")):
            with self.assertRaises(ConversionError):
                floats.bf16_from_f32(struct.pack("<3f", 1, bad, 1))


def varint(number):
    out = b""
    while number > 0x7F:
        out, number = out + bytes([number & 0x7F | 0x80]), number >> 7
    return out + bytes([number])


def field(number, value):
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    if isinstance(value, float):
        return varint(number << 3 | 5) + struct.pack("<f", value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def sentencepiece_model(pieces, trainer=None, normalizer=None):
    data = b"".join(field(1, field(1, text.encode()) + field(2, score) + field(3, kind))
                    for text, score, kind in pieces)
    for number, message in ((2, {3: 2, 35: 1} | (trainer or {})),
                            (3, {4: 0} | (normalizer or {}))):
        data += field(number, b"".join(field(n, v) for n, v in message.items()))
    return data


PIECES = [("<unk>", 0.0, 2), ("<s>", 0.0, 3), ("</s>", 0.0, 3),
          *((f"<0x{i:02X}>", 0.0, 6) for i in range(256)),
          ("ab", -0.0, 1), ("abc", -1.0, 1), ("bc", -2.0, 1), ("<tool>", 0.0, 4),
          ("a", -3.0, 1), ("b", -4.0, 1), ("c", -5.0, 1), ("\u2581", -6.0, 1)]


class SentencePieceTest(unittest.TestCase):
    def converted(self, *model):
        parsed = sentencepiece.parse(sentencepiece_model(*model))
        sentencepiece.check(parsed)
        return sentencepiece.to_tokenizer_json(parsed)

    def test_merges_follow_the_scores_of_what_they_make(self):
        document = self.converted(PIECES)
        self.assertEqual(document["model"]["merges"],
                         [["a", "b"], ["a", "bc"], ["ab", "c"], ["b", "c"]])
        self.assertEqual(document["model"]["vocab"]["abc"], 260)
        self.assertEqual([(t["content"], t["special"]) for t in document["added_tokens"]],
                         [("<unk>", True), ("<s>", True), ("</s>", True), ("<tool>", False)])

    def test_a_space_in_front_is_put_there_only_where_the_model_says_so(self):
        self.assertEqual(len(self.converted(PIECES)["normalizer"]["normalizers"]), 2)
        bare = self.converted(PIECES, None, {3: 0})
        self.assertEqual([n["type"] for n in bare["normalizer"]["normalizers"]], ["Replace"])
        self.assertNotIn("Strip", [d["type"] for d in bare["decoder"]["decoders"]])

    def test_what_would_tokenise_differently_is_refused(self):
        cases = [("unigram", {3: 1}, {}), ("word", {3: 3}, {}), ("no byte fallback", {35: 0}, {}),
                 ("normalises Unicode", {}, {2: b"\1"}), ("removes extra spaces", {}, {4: 1}),
                 ("spaces in another way", {}, {5: 0}), ("spaces in another way", {24: 1}, {})]
        for message, trainer, normalizer in cases:
            with self.assertRaisesRegex(ConversionError, message):
                self.converted(PIECES, trainer, normalizer)
        with self.assertRaisesRegex(ConversionError, "twice"):
            self.converted([*PIECES, ("a", 0.0, 1)])
        with self.assertRaisesRegex(ConversionError, "a piece of 10000000 characters"):
            self.converted([*PIECES, ("x" * 10_000_000, 0.0, 1)])
        with self.assertRaisesRegex(ConversionError, "kind 5"):
            self.converted([*PIECES, ("x", 0.0, 5)])

    def test_any_bytes_are_a_model_or_an_error(self):
        whole = (DATA / "tokenizer.model").read_bytes()
        for cut in range(0, len(whole), 37):
            try:
                sentencepiece.check(sentencepiece.parse(whole[:cut]))
            except ConversionError:
                continue
        for at in range(0, len(whole), 23):
            try:
                sentencepiece.parse(whole[:at] + bytes([whole[at] ^ 0x55]) + whole[at + 1:])
            except ConversionError:
                continue


if __name__ == "__main__":
    unittest.main()
