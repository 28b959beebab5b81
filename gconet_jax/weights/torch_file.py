"""Reads PyTorch checkpoints without PyTorch, and without running anything that is in them.

A `.pth` file is raw arrays and a pickle that says what they are: in a zip since PyTorch 1.6, one
after the other before that. A pickle is a program; the reader here knows the few calls that arrays
need and refuses every other. `write_state_dict` writes what `torch.load` reads.
"""

import collections
import io
import mmap
import pickle
import struct
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any, ClassVar, NamedTuple

import numpy as np

from gconet_jax.errors import InputError
from gconet_jax.whole_file import whole_file

MAX_PICKLE_BYTES = 64 << 20  # of a state_dict with a million entries
LEGACY_MAGIC = 0x1950A86A20F9469CFC6C  # the first pickle of a file of before PyTorch 1.6
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
    """The arrays of a checkpoint by name.

    A `state_dict` may stand alone or under 'state_dict', 'model' or 'net'; the prefix 'module.' of
    DataParallel is taken off.

    Raises:
        TorchFileError: as its message says.
    """
    path = Path(path)
    try:
        content = _read_zip(path) if zipfile.is_zipfile(path) else _read_legacy(path)
    except TorchFileError as error:
        raise TorchFileError(f'{path}: {error}') from error
    except Exception as error:  # whatever a broken or hostile file makes zip and pickle raise
        text = f'{type(error).__name__}: {str(error)[:200]}'
        raise TorchFileError(f'{path} is no checkpoint of PyTorch ({text})') from error
    for key in ('state_dict', 'model', 'net'):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    arrays = content if isinstance(content, Mapping) else {}
    arrays = {name: x for name, x in arrays.items() if isinstance(x, np.ndarray)}
    if not arrays:
        raise TorchFileError(f'{path} holds no arrays by name, as a state_dict does')
    return {str(name).removeprefix('module.'): x for name, x in arrays.items()}


def write_state_dict(path: str | Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes a `state_dict` as torch.save does; the file is there whole or not at all.

    Args:
        path: of the file.
        arrays: of the types in DTYPES, by name.
    """
    with whole_file(Path(path)) as partial, zipfile.ZipFile(partial, 'w') as archive:
        archive.writestr('archive/data.pkl', _pickled(arrays))
        archive.writestr('archive/byteorder', 'little')
        for i, array in enumerate(arrays.values()):
            little = np.ascontiguousarray(array, array.dtype.newbyteorder('<'))
            archive.writestr(f'archive/data/{i}', little.tobytes())
        archive.writestr('archive/version', '3\n')


class _Storage(NamedTuple):
    """What a pickle refers to: a flat array of `count` elements that is stored outside of it."""

    key: str
    dtype: type
    count: int

    @property
    def nbytes(self) -> int:
        return self.count * np.dtype(self.dtype).itemsize


class _StorageType(NamedTuple):
    dtype: type


def _read_zip(path: Path) -> Any:
    with zipfile.ZipFile(path) as file:
        (record,) = (info for info in file.infolist() if info.filename.endswith('/data.pkl'))
        if record.file_size > MAX_PICKLE_BYTES:
            raise TorchFileError(f'its pickle has {record.file_size} bytes, which no weights need')
        folder = record.filename.removesuffix('data.pkl')

        def read(storage: _Storage) -> np.ndarray:
            stored = file.getinfo(f'{folder}data/{storage.key}')
            # PyTorch does not compress, so that a small file cannot claim much memory.
            if stored.compress_type != zipfile.ZIP_STORED:
                raise TorchFileError(
                    f'its array {storage.key} is compressed, which PyTorch never does'
                )
            if stored.file_size != storage.nbytes:
                raise TorchFileError(
                    f'its array {storage.key} has {stored.file_size} bytes, not {storage.nbytes}'
                )
            return np.frombuffer(file.read(stored), storage.dtype)

        return _Unpickler(io.BytesIO(file.read(record)), read).load()


def _read_legacy(path: Path) -> Any:
    """The pickle is read twice: for what it refers to, which comes after it, and with that."""
    with path.open('rb') as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as file:
        wanted: dict[str, _Storage] = {}

        def plain() -> Any:
            return _Unpickler(file, _refuse).load()

        def measure(storage: _Storage) -> np.ndarray:
            wanted[storage.key] = storage
            return np.empty(0, storage.dtype)

        if plain() != LEGACY_MAGIC:
            raise TorchFileError('it has neither the format of PyTorch 1.6 nor the one before')
        plain()  # the version of the format
        plain()  # the sizes of C's types where it was written
        start = file.tell()
        _Unpickler(file, measure, rebuild=lambda *_: None).load()
        arrays = {}
        for key in plain():
            storage = wanted[key]
            (count,) = struct.unpack('<q', file.read(8))
            if count != storage.count or storage.nbytes > len(file) - file.tell():
                raise TorchFileError(f'its array {key} has not the {storage.count} numbers it says')
            arrays[key] = np.frombuffer(file.read(storage.nbytes), storage.dtype)
        file.seek(start)
        return _Unpickler(file, lambda storage: arrays[storage.key]).load()


def _refuse(storage: _Storage) -> np.ndarray:
    raise TorchFileError(f'it refers to the array {storage.key} where no array can be')


def _rebuild_tensor(
    storage: np.ndarray, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any
) -> np.ndarray:
    """A copy of a part of `storage`; sizes and strides count elements."""
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


# Python's own unpickler: the one in C makes a table as large as a file asks for.
class _Unpickler(pickle._Unpickler):  # pyright: ignore[reportAttributeAccessIssue]
    """Knows arrays, dictionaries and nothing else."""

    def __init__(
        self,
        file: IO[bytes] | mmap.mmap,
        read: Callable[[_Storage], np.ndarray],
        rebuild: Callable[..., Any] = _rebuild_tensor,
    ):
        super().__init__(file)
        self._read_storage, self._rebuild = read, rebuild

    # Attributes are for nothing that weights need, and could be put on what `find_class` returns.
    dispatch: ClassVar[dict[int, Any]] = {
        **pickle._Unpickler.dispatch,  # pyright: ignore[reportAttributeAccessIssue]
        pickle.BUILD[0]: lambda self: self.stack.pop(),
    }

    def find_class(self, module: str, name: str) -> Any:
        """What a pickle may call."""
        if (module, name) == ('collections', 'OrderedDict'):
            return collections.OrderedDict
        if module == 'torch._utils' and name in ('_rebuild_tensor_v2', '_rebuild_tensor'):
            return self._rebuild
        if (module, name) == ('torch._utils', '_rebuild_parameter'):
            return _rebuild_parameter
        if module == 'torch' and name in DTYPES:
            return _StorageType(DTYPES[name])
        raise TorchFileError(f'it wants to use {module}.{name}, which weights do not need: refused')

    def persistent_load(self, pid: Any) -> np.ndarray:
        """The flat array that the pickle names."""
        kind, storage_type, key, _, count, *view = pid
        if kind != 'storage' or not isinstance(storage_type, _StorageType):
            raise TorchFileError(f'it refers to {kind!r}, which is no array')
        if any(view) or not isinstance(count, int) or count < 0:
            raise TorchFileError(f'its array {key} is described in a way that is not known')
        return self._read_storage(_Storage(key, storage_type.dtype, count))


def _pickled(arrays: Mapping[str, np.ndarray]) -> bytes:
    """The pickle of an OrderedDict of tensors, opcode by opcode (protocol 2)."""
    ordered_dict = b'ccollections\nOrderedDict\n)R'
    kinds = {np.dtype(dtype): kind for kind, dtype in DTYPES.items()}

    def integers(values: tuple[int, ...]) -> bytes:
        return b'(' + b''.join(b'J' + struct.pack('<i', value) for value in values) + b't'

    def text(value: str) -> bytes:
        data = value.encode()
        return b'X' + struct.pack('<I', len(data)) + data

    parts = [b'\x80\x02', ordered_dict, b'(']
    for i, (name, array) in enumerate(arrays.items()):
        kind = f'ctorch\n{kinds[array.dtype]}\n'.encode()
        count = b'J' + struct.pack('<i', array.size)
        storage = b'(' + text('storage') + kind + text(str(i)) + text('cpu') + count + b'tQ'
        strides = tuple(
            int(np.prod(array.shape[axis + 1 :], dtype=int)) for axis in range(array.ndim)
        )
        where = b'J' + struct.pack('<i', 0) + integers(array.shape) + integers(strides)
        # Then requires_grad, False, and hooks, none.
        rebuilt = b'ctorch._utils\n_rebuild_tensor_v2\n(' + storage + where + b'\x89' + ordered_dict
        parts += [text(name), rebuilt + b'tR']
    return b''.join([*parts, b'u.'])
