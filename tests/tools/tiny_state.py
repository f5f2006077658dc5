"""A tiny model's state dict with values that anyone can compute again: the content of
tests/data/convert/state_dict.pt, written by PyTorch (tools/make_convert_fixtures.py)."""

import math
import struct
import zlib

DECODER = {"dim": 16, "layers": 2, "heads": 4, "kv_heads": 2, "hidden": 24}
COMPRESSOR = {"dim": 8, "layers": 1, "heads": 2, "kv_heads": 2, "hidden": 12}
VOCAB, ROWS, BLOCK, CHUNK = 37, 40, 64, 8


def shapes():
    found = {}
    for prefix, s in (("", DECODER), ("f.", COMPRESSOR)):
        dim, hidden, head = s["dim"], s["hidden"], s["dim"] // s["heads"]
        found[prefix + "wte.weight"] = (ROWS, dim)
        found[prefix + "norm.weight"] = (dim,)
        for i in range(s["layers"]):
            layer = f"{prefix}layers.{i}."
            qkv = (s["heads"] + 2 * s["kv_heads"]) * head
            found |= {layer + "attention.wqkv.weight": (qkv, dim),
                      layer + "attention.wo.weight": (dim, dim),
                      layer + "attention.q_norm.weight": (head,),
                      layer + "attention.k_norm.weight": (head,),
                      layer + "feed_forward.fc_1.weight": (hidden, dim),
                      layer + "feed_forward.fc_2.weight": (hidden, dim),
                      layer + "feed_forward.proj.weight": (dim, hidden),
                      layer + "ffn_norm.weight": (dim,), layer + "attention_norm.weight": (dim,)}
    d, e, levels = DECODER["dim"], COMPRESSOR["dim"], CHUNK.bit_length()
    return found | {"f.pos_tokens.weight": (BLOCK, e), "f.adaptive_token.weight": (levels, e),
                    "f.proj_fx.weight": (d, CHUNK * e), "dummy_fx.weight": (levels, d),
                    "seperator.weight": (1, d), "output.weight": (ROWS, d)}


def values(name, shape):
    """Little-endian float32: norms around 1, tables in [-1, 1], matrices by their columns."""
    state, count = zlib.crc32(name.encode()), math.prod(shape)
    scale = 1.0
    if len(shape) == 2 and "wte" not in name and "token" not in name:
        scale = 2.0 / math.sqrt(shape[1])
    numbers = []
    for _ in range(count):
        state = (state * 1664525 + 1013904223) % (1 << 32)
        unit = state / (1 << 31) - 1
        numbers.append(1 + unit / 2 if len(shape) == 1 else unit * scale)
    return struct.pack(f"<{count}f", *numbers)


def state():
    return {name: (shape, values(name, shape)) for name, shape in shapes().items()}
