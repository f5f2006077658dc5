"""Float formats of raw little-endian bytes, without a numeric library.

Rounding a billion numbers one by one would take hours here; a Python integer of some million bits
is added to and shifted at the speed of memory, so a whole piece is one integer of 32-bit lanes.
"""

import functools
import struct

from convert.errors import ConversionError


@functools.lru_cache(maxsize=16)
def _lanes(count, value):
    """`value` in each of `count` lanes of 32 bits."""
    return int.from_bytes(value.to_bytes(4, "little") * count, "little")


def bf16_from_f32(piece):
    """Rounds to nearest, ties to even. Refuses infinities and what is no number."""
    count = len(piece) // 4
    bits = int.from_bytes(piece, "little")
    exponents = (bits >> 23) & _lanes(count, 0xFF)
    if (exponents + _lanes(count, 1)) & _lanes(count, 0x100):
        raise ConversionError("holds a value that is no finite number")
    # The largest finite number does not carry out of its lane: 0xff7fffff + 0x8000 < 2^32.
    bits += _lanes(count, 0x7FFF) + ((bits >> 16) & _lanes(count, 1))
    rounded = bits.to_bytes(4 * count, "little")
    halves = bytearray(2 * count)
    halves[0::2] = rounded[2::4]
    halves[1::2] = rounded[3::4]
    return bytes(halves)


def f32_from_bf16(piece):
    wide = bytearray(2 * len(piece))
    wide[2::4] = piece[0::2]
    wide[3::4] = piece[1::2]
    return bytes(wide)


def f32_from_f16(piece):
    count = len(piece) // 2
    return struct.pack(f"<{count}f", *struct.unpack(f"<{count}e", piece))


TO_F32 = {"F32": bytes, "BF16": f32_from_bf16, "F16": f32_from_f16}


def convert(piece, source, target):
    """Bytes of format `source` (F32, BF16, F16) as `target` (F32, BF16)."""
    if source == target:
        return piece
    wide = TO_F32[source](piece)
    return wide if target == "F32" else bf16_from_f32(wide)
