"""Writes safetensors files: 8 bytes of header length, a JSON header, raw little-endian data."""

import json
import os
import struct
from typing import Callable, Iterable, NamedTuple

BYTES = {"F32": 4, "BF16": 2, "F16": 2}


class Tensor(NamedTuple):
    dtype: str  # of BYTES
    shape: tuple
    data: Callable[[], Iterable[bytes]]  # its bytes in order, piece by piece; called once

    @property
    def nbytes(self):
        size = BYTES[self.dtype]
        for extent in self.shape:
            size *= extent
        return size


def write(path, tensors):
    """Writes {name: Tensor}; the file appears whole or not at all. One piece is held at a time."""
    header, offset = {}, 0
    for name, tensor in tensors.items():
        end = offset + tensor.nbytes
        header[name] = {"dtype": tensor.dtype, "shape": list(tensor.shape),
                        "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    partial = f"{path}.part"
    try:
        with open(partial, "wb") as out:
            out.write(struct.pack("<Q", len(text)) + text)
            for name, tensor in tensors.items():
                written = sum(out.write(piece) for piece in tensor.data())
                if written != tensor.nbytes:
                    raise ValueError(f"{name}: {written} bytes, expected {tensor.nbytes}")
        os.replace(partial, path)
    finally:
        if os.path.exists(partial):
            os.remove(partial)
