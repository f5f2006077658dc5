"""Reading and writing: safetensors files and resumable training checkpoints.

The safetensors format is small enough to write out here (8 bytes of header
length, a JSON header, raw data), which spares the tools a dependency.
"""
import json
import os
import pathlib
import struct
import sys

import numpy as np
import torch

sys.path.append(str(pathlib.Path(__file__).resolve().parents[1]))
from convert import torch_zip  # pylint: disable=wrong-import-position

DTYPES = {'F32': (torch.float32, 4), 'BF16': (torch.bfloat16, 2)}


def load_safetensors(path):
    """Every tensor of the file, widened to float32."""
    with open(path, 'rb') as f:
        data = f.read()
    n, = struct.unpack('<Q', data[:8])
    out = {}
    for name, t in json.loads(data[8:8 + n]).items():
        if name == '__metadata__':
            continue
        begin, end = (8 + n + o for o in t['data_offsets'])
        if t['dtype'] == 'F32':
            flat = np.frombuffer(data[begin:end], np.float32).copy()
        else:  # BF16 is the upper half of a float32
            half = np.frombuffer(data[begin:end], np.uint16).astype(np.uint32)
            flat = (half << 16).view(np.float32)
        out[name] = torch.from_numpy(flat).view(t['shape'])
    return out


def save_safetensors(path, tensors, dtype='BF16'):
    """Writes float32 tensors, rounded to dtype here and nowhere earlier."""
    kind, _ = DTYPES[dtype]
    header, blobs, offset = {}, [], 0
    for name, t in tensors.items():
        t = t.detach().to(kind).contiguous()
        raw = t.view(torch.int16).numpy() if kind is torch.bfloat16 else t.numpy()
        blob = raw.tobytes()
        header[name] = dict(dtype=dtype, shape=list(t.shape),
                            data_offsets=[offset, offset + len(blob)])
        blobs.append(blob)
        offset += len(blob)
    text = json.dumps(header).encode()
    text += b' ' * (-len(text) % 8)
    with open(path + '.tmp', 'wb') as f:
        f.write(struct.pack('<Q', len(text)) + text + b''.join(blobs))
    os.replace(path + '.tmp', path)


def save(path, **state):
    """A checkpoint appears whole or not at all, so a kill never costs more than one."""
    try:
        torch.save(state, path + '.tmp')
        os.replace(path + '.tmp', path)
    except (OSError, RuntimeError) as error:  # the second is PyTorch's word for a full disk
        if os.path.exists(path + '.tmp'):
            os.remove(path + '.tmp')
        raise SystemExit(f'{path} cannot be written ({error}); what was there before is as it was')


def load(path, device='cpu'):
    """What `save` was given. Runs nothing that a foreign file may hold: PyTorch 1.13 would, and its
    weights_only knows no numbers, so what the pickle names is looked at first."""
    try:
        torch_zip.TorchZip(pathlib.Path(path)).read()
        return torch.load(path, map_location=device)
    except OSError as error:
        raise SystemExit(f'{path} cannot be read: {error.strerror}')
    except Exception as error:  # a damaged file can fail in any way
        reason = str(error).partition('\n')[0]
        raise SystemExit(f'{path} is no checkpoint ({reason}): remove it to begin anew') from None
