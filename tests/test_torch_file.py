"""PyTorch checkpoints read without PyTorch: what is accepted, and what is rejected unexecuted."""

import collections
import io
import os
import pickle
import struct
import tracemalloc
import zipfile
from typing import ClassVar

import numpy as np
import pytest

from gconet_jax.weights import torch_file
from gconet_jax.weights.torch_file import TorchFileError, read_state_dict, write_state_dict

# Names that a pickle of `torch.save` refers to; PyTorch is not needed to write one.
REBUILD = 'torch._utils', '_rebuild_tensor_v2'


class Call:
    """An object that is pickled as a call of a global."""

    def __init__(self, module, name, *arguments):
        self.function, self.arguments = Global(module, name), arguments

    def __reduce__(self):
        return self.function, self.arguments


class Global:
    def __init__(self, module, name):
        self.module, self.name = module, name

    def __call__(self):  # makes pickle treat it as a function
        raise NotImplementedError


class Pickler(pickle._Pickler):
    """Write `Global` as a global of any name, and `Storage` as PyTorch's storage references."""

    def persistent_id(self, obj):
        if isinstance(obj, Storage):
            kind = Global('torch', obj.kind)
            return 'storage', kind, obj.key, 'cpu', obj.count
        return None

    def save_global_by_name(self, obj):
        self.write(b'c' + f'{obj.module}\n{obj.name}\n'.encode())
        self.memoize(obj)

    dispatch: ClassVar = {**pickle._Pickler.dispatch, Global: save_global_by_name}


Storage = collections.namedtuple('Storage', 'kind key count')


def tensor(key, shape, *, kind='FloatStorage', count=None, offset=0, stride=None):
    if stride is None:
        stride = tuple(int(np.prod(shape[i + 1 :])) for i in range(len(shape)))
    count = int(np.prod(shape)) if count is None else count
    return rebuilt(Storage(kind, key, count), offset, shape, stride)


def rebuilt(storage, offset, size, stride):
    return Call(*REBUILD, storage, offset, size, stride, False, collections.OrderedDict())


def write(path, content, arrays, *, compression=zipfile.ZIP_STORED):
    stream = io.BytesIO()
    Pickler(stream, 2).dump(content)
    with zipfile.ZipFile(path, 'w', compression) as file:
        file.writestr('archive/data.pkl', stream.getvalue())
        for key, array in arrays.items():
            file.writestr(f'archive/data/{key}', np.ascontiguousarray(array).tobytes())
    return path


A = np.arange(12, dtype=np.float32).reshape(3, 4)
HALF = np.arange(6, dtype=np.float16)


def good():
    return {'w': tensor('0', (3, 4)), 'b': tensor('1', (6,), kind='HalfStorage')}


@pytest.mark.parametrize('wrap', [lambda d: d, lambda d: {'state_dict': d, 'epoch': 3}])
@pytest.mark.parametrize('prefix', ['', 'module.'])
def test_reads_what_torch_saves(tmp_path, wrap, prefix):
    content = wrap({prefix + name: value for name, value in good().items()})
    path = write(tmp_path / 'a.pth', content, {'0': A, '1': HALF})
    weights = read_state_dict(path)
    assert set(weights) == {'w', 'b'}
    np.testing.assert_array_equal(weights['w'], A)
    np.testing.assert_array_equal(weights['b'], HALF)
    assert weights['b'].dtype == np.float16


def test_views_with_offsets_and_strides(tmp_path):
    turned = tensor('0', (2, 3), count=12, offset=1, stride=(1, 4))
    path = write(tmp_path / 'a.pth', {'t': turned}, {'0': A})
    np.testing.assert_array_equal(read_state_dict(path)['t'], A[:, 1:3].T)


def test_arrays_of_one_memory_share_it(tmp_path):
    zeros = np.zeros(1 << 20, np.uint8)
    entries = {f'w{i}': tensor('0', (1 << 20,), kind='ByteStorage') for i in range(30)}
    path = write(tmp_path / 'a.pth', entries, {'0': zeros})
    tracemalloc.start()
    assert len(read_state_dict(path)) == 30
    assert tracemalloc.get_traced_memory()[1] < 4 << 20
    tracemalloc.stop()


def test_bombs_are_refused(tmp_path, monkeypatch):
    zeros = np.zeros(1 << 20, np.float32)
    path = write(
        tmp_path / 'a.pth',
        {'w': tensor('0', (1 << 20,))},
        {'0': zeros},
        compression=zipfile.ZIP_DEFLATED,
    )
    assert path.stat().st_size < 10_000
    with pytest.raises(TorchFileError, match='compressed'):
        read_state_dict(path)
    monkeypatch.setattr(torch_file, 'MAX_PICKLE_BYTES', 10)
    with pytest.raises(TorchFileError, match='which no weights need'):
        read_state_dict(path)


@pytest.mark.parametrize('content', [b'', b'not a zip', pickle.dumps({'a': 1}), os.urandom(2000)])
def test_other_files_are_named(tmp_path, content):
    path = tmp_path / 'a.pth'
    path.write_bytes(content)
    with pytest.raises(TorchFileError, match=r'a\.pth(:| is no checkpoint)'):
        read_state_dict(path)


def write_legacy(path, content, arrays, *, counts=None):
    """Write a file in the format of PyTorch before 1.6."""
    stream = io.BytesIO()
    for each in (torch_file.LEGACY_MAGIC, 1001, {'little_endian': True}, content, list(arrays)):
        Pickler(stream, 2).dump(each)
    for key, array in arrays.items():
        stream.write(struct.pack('<q', (counts or {}).get(key, array.size)) + array.tobytes())
    path.write_bytes(stream.getvalue())
    return path


def test_reads_what_old_torch_saved(tmp_path):
    content = {'state_dict': {'module.w': good()['w'], 'module.b': good()['b']}, 'epoch': 3}
    weights = read_state_dict(write_legacy(tmp_path / 'a.pth', content, {'0': A, '1': HALF}))
    np.testing.assert_array_equal(weights['w'], A)
    np.testing.assert_array_equal(weights['b'], HALF)
    assert weights['b'].dtype == np.float16


def test_hostile_old_files_are_refused(tmp_path):
    mark, path = tmp_path / 'ran', tmp_path / 'a.pth'
    write_legacy(path, {'w': Call('os', 'system', f'touch {mark}')}, {})
    with pytest.raises(TorchFileError, match=r'it wants to use os\.system'):
        read_state_dict(path)
    assert not mark.exists()
    huge = {'w': tensor('0', (1 << 40,))}
    with pytest.raises(TorchFileError, match='has not the 1099511627776 numbers'):
        read_state_dict(write_legacy(path, huge, {'0': A}, counts={'0': 1 << 40}))
    with pytest.raises(TorchFileError, match='has not the 12 numbers'):
        read_state_dict(write_legacy(path, good(), {'0': A, '1': HALF}, counts={'0': 13}))
    path.write_bytes(write_legacy(path, good(), {'0': A, '1': HALF}).read_bytes()[:-5])
    with pytest.raises(TorchFileError, match='has not the 6 numbers'):
        read_state_dict(path)


def test_written_files_are_read(tmp_path):
    arrays = {'w': A, 'h': HALF, 'scalar': np.array(3), 'empty': np.zeros((0, 2), np.float32)}
    write_state_dict(tmp_path / 'a.pth', arrays)
    read = read_state_dict(tmp_path / 'a.pth')
    assert list(read) == list(arrays)
    for name, value in arrays.items():
        np.testing.assert_array_equal(read[name], value)
        assert read[name].dtype == value.dtype
    assert [path.name for path in tmp_path.iterdir()] == ['a.pth']


def test_torch_reads_what_is_written(tmp_path):
    torch = pytest.importorskip('torch')
    arrays = {'w': A, 'h': HALF, 'scalar': np.array(3)}
    write_state_dict(tmp_path / 'a.pth', arrays)
    read = torch.load(tmp_path / 'a.pth', weights_only=True)
    for name, value in arrays.items():
        np.testing.assert_array_equal(read[name].numpy(), value)


@pytest.mark.parametrize('legacy', [False, True])
def test_no_arrays(tmp_path, legacy):
    writer = write_legacy if legacy else write
    with pytest.raises(TorchFileError, match='holds no arrays by name'):
        read_state_dict(writer(tmp_path / 'a.pth', {'epoch': 3}, {}))


@pytest.mark.parametrize('zipped', [True, False])
def test_a_file_of_torch_itself(tmp_path, zipped):
    torch = pytest.importorskip('torch')
    weights = {'w': torch.randn(3, 4).T, 'n': torch.tensor(5), 'h': torch.ones(2).half()}
    torch.save(weights, tmp_path / 'a.pth', _use_new_zipfile_serialization=zipped)
    read = read_state_dict(tmp_path / 'a.pth')
    for name, value in weights.items():
        np.testing.assert_array_equal(read[name], value.numpy())
