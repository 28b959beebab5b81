"""Reads PyTorch checkpoints without PyTorch, and without running anything that is in them.

A `.pth` file is a zip of raw arrays and of a pickle that says what they are. A pickle is a program;
the reader here knows the few calls that arrays need and refuses every other.
"""

import collections
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from gconet_jax.errors import InputError

MAX_PICKLE_BYTES = 64 << 20  # of a state_dict with a million entries
DTYPES = {
    'FloatStorage': np.float32,
    'DoubleStorage': np.float64,
    'HalfStorage': np.float16,
    'LongStorage': np.int64,
    'IntStorage': np.int32,
    'ByteStorage': np.uint8,
    'BoolStorage': np.bool_,
}


class TorchFileError(InputError):
    """A file that is no checkpoint, is broken, or wants to run code; the message says which."""


def read_state_dict(path: str | Path) -> dict[str, np.ndarray]:
    """The arrays of a checkpoint of PyTorch 1.6 or later, by name.

    A `state_dict` may stand alone or under 'state_dict', 'model' or 'net'; the prefix 'module.' of
    DataParallel is taken off.

    Raises:
        TorchFileError: as its message says.
    """
    path = Path(path)
    try:
        with zipfile.ZipFile(path) as file:
            content = _Unpickler(file).load()
    except TorchFileError as error:
        raise TorchFileError(f'{path}: {error}') from error
    except Exception as error:  # whatever a broken or hostile file makes zip and pickle raise
        raise TorchFileError(
            f'{path} is no checkpoint of PyTorch 1.6 or later ({type(error).__name__}: '
            f'{str(error)[:200]}); older ones can be saved again by torch.save'
        ) from error
    for key in ('state_dict', 'model', 'net'):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    arrays = content if isinstance(content, Mapping) else {}
    arrays = {name: x for name, x in arrays.items() if isinstance(x, np.ndarray)}
    if not arrays:
        raise TorchFileError(f'{path} holds no arrays by name, as a state_dict does')
    return {str(name).removeprefix('module.'): x for name, x in arrays.items()}


class _StorageType(NamedTuple):
    dtype: type


class _Unpickler(pickle.Unpickler):
    """Knows arrays, dictionaries and nothing else."""

    def __init__(self, file: zipfile.ZipFile):
        (record,) = (info for info in file.infolist() if info.filename.endswith('/data.pkl'))
        if record.file_size > MAX_PICKLE_BYTES:
            raise TorchFileError(f'its pickle has {record.file_size} bytes, which no weights need')
        self._zip, self._folder = file, record.filename.removesuffix('data.pkl')
        super().__init__(file.open(record))

    def find_class(self, module: str, name: str) -> Any:
        """What a pickle may call."""
        if (module, name) == ('collections', 'OrderedDict'):
            return collections.OrderedDict
        if (module, name) == ('torch._utils', '_rebuild_tensor_v2'):
            return _rebuild_tensor
        if (module, name) == ('torch._utils', '_rebuild_parameter'):
            return _rebuild_parameter
        if module == 'torch' and name in DTYPES:
            return _StorageType(DTYPES[name])
        raise TorchFileError(f'it wants to use {module}.{name}, which weights do not need: refused')

    def persistent_load(self, pid: Any) -> np.ndarray:
        """The flat array that the pickle names."""
        kind, storage, key, _, count = pid
        if kind != 'storage' or not isinstance(storage, _StorageType):
            raise TorchFileError(f'it refers to {kind!r}, which is no array')
        record = self._zip.getinfo(f'{self._folder}data/{key}')
        # PyTorch does not compress, so that a small file cannot claim much memory.
        if record.compress_type != zipfile.ZIP_STORED:
            raise TorchFileError(f'its array {key} is compressed, which PyTorch never does')
        expected = count * np.dtype(storage.dtype).itemsize
        if record.file_size != expected:
            raise TorchFileError(f'its array {key} has {record.file_size} bytes, not {expected}')
        return np.frombuffer(self._zip.read(record), storage.dtype)


def _rebuild_tensor(
    storage: np.ndarray, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any
) -> np.ndarray:
    """A view of `storage`; sizes and strides count elements."""
    if len(size) != len(stride) or min((*size, *stride, offset), default=0) < 0:
        raise TorchFileError('it has an array of impossible shape')
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if 0 not in size and last >= storage.size:
        raise TorchFileError('it has an array that reaches beyond its memory')
    # Strides of 0 repeat an element, by which a small file could claim much memory.
    if int(np.prod(size, dtype=object)) > storage.size:
        raise TorchFileError('it has an array with more elements than its memory')
    strides = [step * storage.itemsize for step in stride]
    return np.lib.stride_tricks.as_strided(storage[offset:], size, strides).copy()


def _rebuild_parameter(data: np.ndarray, *_: Any) -> np.ndarray:
    return data
