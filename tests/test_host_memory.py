"""Freed memory stays with the process."""

import platform
import subprocess
import sys

import pytest

from gconet_jax import host_memory

FAULTS = """
import resource, sys
from gconet_jax.host_memory import keep_freed_memory
if sys.argv[1] == 'kept':
    assert keep_freed_memory()
for _ in range(2):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    block = bytearray(2**26)
    del block
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(way: str) -> int:
    done = subprocess.run(
        [sys.executable, '-c', FAULTS, way], capture_output=True, text=True, check=True
    )
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != 'glibc', reason='malloc of another library')
def test_freed_memory_is_handed_out_once():
    pages = 2**26 // 4096
    assert faults('kept') < pages // 10
    assert faults('given back') > faults('kept')


def test_other_systems_are_left_alone(monkeypatch):
    monkeypatch.setattr(sys, 'platform', 'darwin')
    assert not host_memory.keep_freed_memory()
