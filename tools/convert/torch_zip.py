"""Reads the state_dict.pt files of PyTorch 1.6 and later, without PyTorch.

Such a file is a zip archive: data.pkl describes the tensors, data/0, data/1, .. hold their bytes. A
pickle can run code, so only what describes plain tensors is understood: the names in ALLOWED stand
for functions of this module, and anything else is refused by name before it is looked up.
"""

import collections
import contextlib
import pickle
import zipfile
from typing import NamedTuple

from convert.errors import ConversionError, unreadable

PIECE_BYTES = 1 << 22
PICKLE_BYTES_MAX = 64 << 20
BYTE_ORDER = b"little"

STORAGES = {"FloatStorage": ("F32", 4), "BFloat16Storage": ("BF16", 2), "HalfStorage": ("F16", 2),
            "DoubleStorage": ("F64", 8), "LongStorage": ("I64", 8), "IntStorage": ("I32", 4),
            "BoolStorage": ("BOOL", 1), "ByteStorage": ("U8", 1)}


class Storage(NamedTuple):
    dtype: str
    itemsize: int
    key: str
    elements: int


class StoredTensor(NamedTuple):
    storage: Storage
    offset: int  # elements into the storage
    shape: tuple

    @property
    def dtype(self):
        return self.storage.dtype

    @property
    def elements(self):
        count = 1
        for extent in self.shape:
            count *= extent
        return count


def _is_size(value):
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 40


def _rebuild_tensor(storage, offset, shape, stride, *_unused):
    if not isinstance(storage, Storage) or not all(map(_is_size, (offset, *shape, *stride))):
        raise ConversionError("a tensor is described by something else than sizes")
    tensor = StoredTensor(storage, offset, tuple(shape))
    dense = 1
    for extent, step in zip(reversed(shape), reversed(stride), strict=True):
        if extent > 1 and step != dense:
            raise ConversionError(f"a tensor of shape {list(shape)} is a view with gaps: save the "
                                  "state dict with every tensor made .contiguous()")
        dense *= extent
    if offset + tensor.elements > storage.elements:
        raise ConversionError(f"a tensor of shape {list(shape)} reaches past its storage")
    return tensor


def _rebuild_parameter(data, _requires_grad, _hooks):
    return data


class _Dict(collections.OrderedDict):
    """Takes what state dicts carry beside their items (_metadata) and forgets it."""

    def __setstate__(self, _state):
        pass


ALLOWED = {("collections", "OrderedDict"): _Dict,
           ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
           ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
           **{("torch", name): (name, *kind) for name, kind in STORAGES.items()}}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module, name):
        found = ALLOWED.get((module, name))
        if found is None:
            raise ConversionError(f"holds {module}.{name}, which is no plain tensor: save "
                                  "model.state_dict() alone")
        return found

    def persistent_load(self, pid):
        good = (isinstance(pid, tuple) and len(pid) == 5 and pid[0] == "storage"
                and isinstance(pid[1], tuple) and isinstance(pid[2], str) and _is_size(pid[4]))
        if not good:
            raise ConversionError("refers to something else than a storage of numbers")
        _, (_, dtype, itemsize), key, _, elements = pid
        return Storage(dtype, itemsize, key, elements)


@contextlib.contextmanager
def _damage_named(path, what):
    """Whatever a damaged archive makes its readers raise, as an error that a person can read."""
    try:
        yield
    except ConversionError as error:
        raise ConversionError(f"{path}: {error}") from None
    except Exception as error:
        raise ConversionError(f"{path}: {what} is damaged: {error}") from None


class TorchZip:
    """An open state_dict.pt. Raises ConversionError naming the file."""

    def __init__(self, path):
        self.path = path
        if path.exists() and not path.is_file():
            raise ConversionError(f"{path}: is no regular file")
        try:
            self._zip = zipfile.ZipFile(path)
        except OSError as error:
            raise unreadable(path, error) from None
        except (zipfile.BadZipFile, NotImplementedError, UnicodeDecodeError) as error:
            raise ConversionError(f"{path}: {error} (expected what torch.save writes since "
                                  "PyTorch 1.6; save older files again)") from None
        pickles = [n for n in self._zip.namelist() if n.rsplit("/", 1)[-1] == "data.pkl"]
        if len(pickles) != 1:
            raise ConversionError(f"{path}: holds {len(pickles)} files named data.pkl, expected 1")
        self._folder = pickles[0][:-len("data.pkl")]
        order = self._folder + "byteorder"
        with _damage_named(path, order):
            if order in self._zip.namelist() and not self._holds(order, BYTE_ORDER):
                raise ConversionError("is not little-endian")

    def _holds(self, name, content):
        """Whether a file of the archive is this; a longer one is not read."""
        return (self._zip.getinfo(name).file_size == len(content)
                and self._zip.read(name) == content)

    def read(self):
        """What was saved, tensors as StoredTensor; their bytes stay in the file."""
        member = self._zip.getinfo(self._folder + "data.pkl")
        if member.file_size > PICKLE_BYTES_MAX:
            raise ConversionError(f"{self.path}: its description has {member.file_size} bytes")
        with _damage_named(self.path, "its description"), self._zip.open(member) as stream:
            return _Unpickler(stream).load()

    def data(self, tensor):
        """The tensor's bytes, piece by piece; pieces hold whole elements."""
        storage = tensor.storage
        name = f"{self._folder}data/{storage.key}"
        left = tensor.elements * storage.itemsize
        with _damage_named(self.path, name), self._open(storage, name) as stream:
            stream.seek(tensor.offset * storage.itemsize)
            while left > 0:
                piece = stream.read(min(PIECE_BYTES, left))
                if not piece:
                    raise ConversionError(f"{name} is cut short")
                left -= len(piece)
                yield piece

    def _open(self, storage, name):
        if name not in self._zip.namelist():
            raise ConversionError(f"{name} is missing")
        member = self._zip.getinfo(name)
        if member.file_size != storage.elements * storage.itemsize:
            raise ConversionError(f"{name} has {member.file_size} bytes, expected "
                                  f"{storage.elements} numbers of {storage.itemsize}")
        return self._zip.open(member)
