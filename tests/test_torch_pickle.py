"""Malicious pickles of checkpoints are rejected, and nothing in them is executed."""

import struct
import subprocess
import sys
import tracemalloc
import zipfile

import numpy as np
import pytest
from test_torch_file import A, Call, Storage, rebuilt, tensor, write, write_legacy

from gconet_jax.weights import torch_pickle
from gconet_jax.weights.torch_file import TorchFileError, read_state_dict


def test_code_is_refused_and_not_run(tmp_path):
    mark = tmp_path / 'ran'
    for call in (
        Call('os', 'system', f'touch {mark}'),
        Call('posix', 'system', f'touch {mark}'),
        Call('builtins', 'eval', f'open({str(mark)!r}, "w")'),
        Call('builtins', 'getattr', 'a', 'b'),
        Call('torch', 'load', str(mark)),
        Call('collections', 'Counter'),
    ):
        path = write(tmp_path / 'a.pth', {'w': call}, {})
        with pytest.raises(TorchFileError, match=r'a\.pth: it wants to use .* refused'):
            read_state_dict(path)
    assert not mark.exists()


def int64():
    """Return a one-number integer array, whose sums wrap."""
    return tensor('n', (), kind='LongStorage')


@pytest.mark.parametrize(
    ('entry', 'message'),
    [
        (lambda: tensor('0', (1 << 20, 1 << 20), count=12, stride=(0, 0)), 'more elements'),
        (lambda: tensor('0', (3, 5), count=12), 'beyond its memory'),
        (lambda: tensor('0', (3, 4), offset=1), 'beyond its memory'),
        (lambda: tensor('0', (3, 4), offset=-1), 'impossible shape'),
        (lambda: tensor('0', (-3, 4), count=12, stride=(4, 1)), 'impossible shape'),
        (lambda: tensor('0', (1 << 40,)), 'has 48 bytes, not'),
        (lambda: rebuilt(tensor('0', (3, 4)), 0, (3,), (4,)), 'no flat memory'),
        (
            lambda: rebuilt(tensor('0', (3,), count=12, stride=(0,)), 2, (1,), (1,)),
            'no flat memory',
        ),
        (
            lambda: rebuilt(Storage('FloatStorage', '0', 12), int64(), (1,), (1,)),
            'impossible shape',
        ),
        (
            lambda: rebuilt(Storage('FloatStorage', '0', 12), 0, (5,), (int64(),)),
            'impossible shape',
        ),
        (lambda: tensor('../../../etc/passwd', (3, 4)), 'KeyError'),
    ],
)
def test_impossible_arrays_are_refused(tmp_path, entry, message):
    path = write(tmp_path / 'a.pth', {'w': entry()}, {'0': A, 'n': np.array(1 << 62)})
    with pytest.raises(TorchFileError, match=message):
        read_state_dict(path)


def test_tables_as_large_as_a_pickle_asks_for_are_not_made(tmp_path):
    path = tmp_path / 'a.pth'
    with zipfile.ZipFile(path, 'w') as file:  # the second-last opcode memoises entry 2^32 - 1
        file.writestr('archive/data.pkl', b'\x80\x02Nr\xff\xff\xff\xff.')
    tracemalloc.start()
    with pytest.raises(TorchFileError, match='holds no arrays'):
        read_state_dict(path)
    with zipfile.ZipFile(path, 'w') as file:  # announces a bytearray of 2^28 bytes without content
        file.writestr('archive/data.pkl', b'\x80\x05\x96' + struct.pack('<Q', 1 << 28) + b'.')
    with pytest.raises(TorchFileError, match='never does: refused'):
        read_state_dict(path)
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


# Deeply nested tuples, hashed as a key, an element or the name of an array.
DEEP = b')' + b'\x85' * 300_000


@pytest.mark.parametrize(
    'attack',
    [
        b'}' + DEEP + b'Ns.',
        b'}(' + DEEP + b'Nu.',
        b'(' + DEEP + b'Nd.',
        b'\x8f(' + DEEP + b'\x90.',
        b'(' + DEEP + b'\x91.',
        b'ccollections\nOrderedDict\n]' + DEEP + b'N\x86a\x85R.',
        b'(X\x07\x00\x00\x00storagectorch\nByteStorage\n' + DEEP + b'NK\x01tQ.',
    ],
)
def test_nothing_deep_is_hashed(tmp_path, attack):
    with zipfile.ZipFile(tmp_path / 'a.pth', 'w') as file:
        file.writestr('archive/data.pkl', b'\x80\x04' + attack)
    assert 'TorchFileError' in last_words(tmp_path / 'a.pth')


def test_nothing_deep_is_hashed_in_old_files(tmp_path):
    path = write_legacy(tmp_path / 'a.pth', {}, {})
    path.write_bytes(path.read_bytes().removesuffix(b']q\x00.') + b'](' + DEEP + b'e.')
    assert 'TorchFileError' in last_words(path)


def last_words(path):
    """Return the last line of a process that reads the file, which may overflow the C stack."""
    code = 'import sys; from gconet_jax.weights.torch_file import *; read_state_dict(sys.argv[1])'
    ended = subprocess.run([sys.executable, '-c', code, path], capture_output=True, text=True)
    return ended.stderr.strip().rpartition('\n')[2]


def test_what_python_2_wrote(tmp_path):
    pairs = [['w', tensor('0', (3, 4))]]
    path = write(tmp_path / 'a.pth', Call('collections', 'OrderedDict', pairs), {'0': A})
    np.testing.assert_array_equal(read_state_dict(path)['w'], A)


def test_attributes_are_set_on_nothing(tmp_path):
    # BUILD with (None, {'__doc__': 'x'}), which sets slots, on the function that makes arrays.
    name = b'X\x07\x00\x00\x00__doc__'
    attack = b'\x80\x02ctorch._utils\n_rebuild_parameter\nN}' + name + b'X\x01\x00\x00\x00xs\x86b.'
    with zipfile.ZipFile(tmp_path / 'a.pth', 'w') as file:
        file.writestr('archive/data.pkl', attack)
    with pytest.raises(TorchFileError, match='holds no arrays'):
        read_state_dict(tmp_path / 'a.pth')
    assert torch_pickle._rebuild_parameter.__doc__ is None
