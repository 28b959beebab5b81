"""Reading PyTorch checkpoints without PyTorch and without running code from them; and writing.

A `.pth` file consists of raw arrays and a pickle that describes them. Since PyTorch 1.6 they are
members of a zip; before, they were stored one after another. `torch_pickle` reads the pickle.
`write_state_dict` writes files that `torch.load` can read.
"""

import functools
import io
import mmap
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from gconet_jax.weights.torch_pickle import DTYPES, Storage, TorchFileError, Unpickler
from gconet_jax.whole_file import whole_file

MAX_PICKLE_BYTES = 64 << 20  # enough for a state_dict with a million entries
LEGACY_MAGIC = 0x1950A86A20F9469CFC6C  # the first pickle of files from before PyTorch 1.6


def read_state_dict(path: str | Path) -> dict[str, np.ndarray]:
    """Read the arrays of a checkpoint.

    The `state_dict` may be the checkpoint itself or its entry 'state_dict', 'model' or 'net'.
    DataParallel's prefix 'module.' is removed.

    Returns:
        Read-only arrays by name. Arrays that share memory in the file share it here.

    Raises:
        TorchFileError: the file is no checkpoint, is broken, uses unsupported features, or asks to
            run code; the message says which.
    """
    path = Path(path)
    try:
        content = _read_zip(path) if zipfile.is_zipfile(path) else _read_legacy(path)
    except TorchFileError as error:
        raise TorchFileError(f'{path}: {error}') from error
    except Exception as error:  # broken or hostile files make zipfile and pickle raise anything
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
    """Write a `state_dict` in the format of torch.save, atomically.

    Args:
        path: the file to write.
        arrays: arrays by name, of the types in DTYPES.
    """
    with whole_file(Path(path)) as partial, zipfile.ZipFile(partial, 'w') as archive:
        archive.writestr('archive/data.pkl', _pickled(arrays))
        archive.writestr('archive/byteorder', 'little')
        for i, array in enumerate(arrays.values()):
            little = np.ascontiguousarray(array, array.dtype.newbyteorder('<'))
            archive.writestr(f'archive/data/{i}', little.tobytes())
        archive.writestr('archive/version', '3\n')


def _read_zip(path: Path) -> Any:
    with zipfile.ZipFile(path) as file:
        (record,) = (info for info in file.infolist() if info.filename.endswith('/data.pkl'))
        if record.file_size > MAX_PICKLE_BYTES:
            raise TorchFileError(f'its pickle has {record.file_size} bytes, which no weights need')
        # A small file must not be able to expand to much memory.
        if any(info.compress_type != zipfile.ZIP_STORED for info in file.infolist()):
            raise TorchFileError('it is compressed, which PyTorch never does')
        if sum(info.compress_size for info in file.infolist()) > path.stat().st_size:
            raise TorchFileError('its parts overlap, which those of PyTorch never do')
        folder = record.filename.removesuffix('data.pkl')

        @functools.cache
        def stored(key: str) -> bytes:
            return file.read(f'{folder}data/{key}')

        def read(storage: Storage) -> np.ndarray:
            data = stored(storage.key)
            if len(data) != storage.nbytes:
                raise TorchFileError(
                    f'its array {storage.key} has {len(data)} bytes, not {storage.nbytes}'
                )
            return np.frombuffer(data, storage.dtype)

        return Unpickler(io.BytesIO(file.read(record)), read).load()


def _read_legacy(path: Path) -> Any:
    """Read a file from before PyTorch 1.6.

    Its arrays follow the pickle that refers to them. So the pickle is read twice: first to learn
    the types and sizes of the arrays, then with the arrays.
    """
    with path.open('rb') as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as file:
        wanted: dict[str, Storage] = {}

        def plain() -> Any:
            return Unpickler(file, _refuse).load()

        def measure(storage: Storage) -> np.ndarray:
            wanted[storage.key] = storage
            return np.empty(0, storage.dtype)

        if plain() != LEGACY_MAGIC:
            raise TorchFileError('it has neither the format of PyTorch 1.6 nor the one before')
        plain()  # version of the format
        plain()  # sizes of C's types on the machine that wrote the file
        start = file.tell()
        Unpickler(file, measure, rebuild=lambda *_: None).load()
        arrays = {}
        for key in map(str, plain()):
            storage = wanted[key]
            (count,) = struct.unpack('<q', file.read(8))
            if count != storage.count or storage.nbytes > len(file) - file.tell():
                raise TorchFileError(f'its array {key} has not the {storage.count} numbers it says')
            arrays[key] = np.frombuffer(file.read(storage.nbytes), storage.dtype)
        file.seek(start)
        return Unpickler(file, lambda storage: arrays[storage.key]).load()


def _refuse(storage: Storage) -> np.ndarray:
    raise TorchFileError(f'it refers to the array {storage.key} where no array can be')


def _pickled(arrays: Mapping[str, np.ndarray]) -> bytes:
    """Return the pickle of an OrderedDict of tensors, written opcode by opcode (protocol 2)."""
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
        # b'\x89' is requires_grad=False; the empty OrderedDict holds the backward hooks.
        rebuilt = b'ctorch._utils\n_rebuild_tensor_v2\n(' + storage + where + b'\x89' + ordered_dict
        parts += [text(name), rebuilt + b'tR']
    return b''.join([*parts, b'u.'])
