"""Safe reading of the pickles in PyTorch checkpoints.

A pickle is a program that may call any function. This reader supports only the few calls that
arrays need, and refuses all others.
"""

import collections
import mmap
import pickle
from collections.abc import Callable, Iterable
from typing import IO, Any, ClassVar, NamedTuple

import numpy as np

from gconet_jax.errors import InputError

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
    """The file is no checkpoint, is broken, or asks to run code; the message says which."""


class Storage(NamedTuple):
    """A pickle's reference to a flat array of `count` elements that is stored outside it."""

    key: str
    dtype: type
    count: int

    @property
    def nbytes(self) -> int:
        return self.count * np.dtype(self.dtype).itemsize


class _StorageType(NamedTuple):
    dtype: type


def _rebuild_tensor(
    storage: np.ndarray, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any
) -> np.ndarray:
    """Return a read-only view of `storage`; offset, sizes and strides count elements."""
    # Views made by this function are refused as storage, because their strides differ. So are numpy
    # integers below, because they overflow.
    if not isinstance(storage, np.ndarray) or storage.ndim != 1 or not storage.flags.contiguous:
        raise TorchFileError('it has an array of what is no flat memory')
    impossible = any(type(n) is not int or n < 0 for n in (*size, *stride, offset))
    if impossible or len(size) != len(stride):
        raise TorchFileError('it has an array of impossible shape')
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if 0 not in size and last >= storage.size:
        raise TorchFileError('it has an array that reaches beyond its memory')
    # Strides of 0 repeat elements, so that a small file could ask for much memory.
    if int(np.prod(size, dtype=object)) > storage.size:
        raise TorchFileError('it has an array with more elements than its memory')
    strides = [step * storage.itemsize for step in stride]
    return np.lib.stride_tricks.as_strided(storage[offset:], size, strides, writeable=False)


def _rebuild_parameter(data: np.ndarray, *_: Any) -> np.ndarray:
    return data


def _ordered_dict(pairs: Iterable[Any] = ()) -> dict[Any, Any]:
    """Create an OrderedDict; Python 2 passes its items, while Python 3 sets them afterwards."""
    made: dict[Any, Any] = collections.OrderedDict()
    _put(made, pairs)
    return made


def _put(target: Any, pairs: Iterable[Any]) -> None:
    for key, value in pairs:
        # Hashing deeply nested tuples overflows the C stack, which kills the process.
        if type(key) not in (str, int):
            raise TorchFileError(f'it has a {type(key).__name__} where a name is needed')
        target[key] = value


def _set_item(unpickler: Any) -> None:
    value, key = unpickler.stack.pop(), unpickler.stack.pop()
    _put(unpickler.stack[-1], [(key, value)])


def _set_items(unpickler: Any) -> None:
    items = unpickler.pop_mark()
    _put(unpickler.stack[-1], zip(items[::2], items[1::2], strict=True))


def _refuse_opcode(unpickler: Any) -> None:
    raise TorchFileError('its pickle does what that of weights never does: refused')


# Opcodes that allocate as much memory as the file asks for, or hash any object in it.
_REFUSED = (
    *(pickle.BYTEARRAY8, pickle.NEXT_BUFFER, pickle.READONLY_BUFFER),
    *(pickle.DICT, pickle.EMPTY_SET, pickle.ADDITEMS, pickle.FROZENSET),
)


# The pure-Python unpickler: the C one allocates a table as large as the file asks for.
class Unpickler(pickle._Unpickler):  # pyright: ignore[reportAttributeAccessIssue]
    """Unpickler that supports only arrays, dictionaries and plain values."""

    def __init__(
        self,
        file: IO[bytes] | mmap.mmap,
        read: Callable[[Storage], np.ndarray],
        rebuild: Callable[..., Any] = _rebuild_tensor,
    ):
        super().__init__(file)
        self._read_storage, self._rebuild = read, rebuild

    dispatch: ClassVar[dict[int, Any]] = {
        **pickle._Unpickler.dispatch,  # pyright: ignore[reportAttributeAccessIssue]
        # Discard attributes: weights need none, and a file could set them on what `find_class`
        # returns.
        pickle.BUILD[0]: lambda self: self.stack.pop(),
        pickle.SETITEM[0]: _set_item,
        pickle.SETITEMS[0]: _set_items,
        **dict.fromkeys((code[0] for code in _REFUSED), _refuse_opcode),
    }

    def find_class(self, module: str, name: str) -> Any:
        """Return a function or type that a pickle may use.

        Raises:
            TorchFileError: it is not one that weights need.
        """
        if (module, name) == ('collections', 'OrderedDict'):
            return _ordered_dict
        if module == 'torch._utils' and name in ('_rebuild_tensor_v2', '_rebuild_tensor'):
            return self._rebuild
        if (module, name) == ('torch._utils', '_rebuild_parameter'):
            return _rebuild_parameter
        if module == 'torch' and name in DTYPES:
            return _StorageType(DTYPES[name])
        raise TorchFileError(f'it wants to use {module}.{name}, which weights do not need: refused')

    def persistent_load(self, pid: Any) -> np.ndarray:
        """Return the flat array that the pickle refers to.

        Raises:
            TorchFileError: the reference is not to an array.
        """
        kind, storage_type, key, _, count, *view = pid
        if kind != 'storage' or not isinstance(storage_type, _StorageType):
            raise TorchFileError(f'it refers to {kind!r}, which is no array')
        if any(view) or type(key) is not str or type(count) is not int or count < 0:
            raise TorchFileError('it describes an array in a way that is not known')
        return self._read_storage(Storage(key, storage_type.dtype, count))
