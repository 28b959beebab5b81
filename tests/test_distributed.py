"""Two processes over loopback: same numbers as one, common start, common end."""

import contextlib
import functools
import os
import pickle
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import float64_step
import jax
import numpy as np
import pytest
import test_mesh
import test_training
from conftest import known_flags

from gconet_jax.training import restore

ROOT = Path(__file__).parent.parent
SHAPES = [(2, 2), (1, 4)]
TIMEOUT = 1800  # seconds; a busy machine may need most of them


def free_port() -> int:
    with socket.socket() as server:
        server.bind(('localhost', 0))
        return server.getsockname()[1]


@functools.cache
def xla_flags() -> str:
    """Return the flags of the tests, plus one for several processes on a CPU.

    By default XLA runs independent collectives in any order. On a CPU with few threads, two
    processes may then wait for different ones.
    """
    in_order = known_flags(('--xla_cpu_enable_concurrency_optimized_scheduler=false',))
    return ' '.join([os.environ['XLA_FLAGS'], *in_order])


def run_together(commands: list[list[str]], cache: Path | str) -> tuple[list[int], list[str]]:
    """Run processes side by side; return the exit status and the output of each."""
    settings = {
        'JAX_PLATFORMS': 'cpu',
        'JAX_NUM_CPU_DEVICES': '1',
        'JAX_COMPILATION_CACHE_DIR': str(cache),
        'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0',
        'NPROC': '16',  # XLA's threads
        'XLA_FLAGS': xla_flags(),
        'PYTHONPATH': str(ROOT),
    }
    with contextlib.ExitStack() as stack:
        running = []
        for command in commands:
            output = stack.enter_context(tempfile.TemporaryFile('w+'))
            process = subprocess.Popen(
                [sys.executable, *command],
                cwd=ROOT,
                env=os.environ | settings,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
            stack.callback(process.wait)
            stack.callback(process.kill)
            running.append((process, output))
        end = time.monotonic() + TIMEOUT
        statuses = [process.wait(max(end - time.monotonic(), 1)) for process, _ in running]
        outputs = []
        for _, output in running:
            output.seek(0)
            outputs.append(output.read())
        return statuses, outputs


@pytest.mark.slow
def test_step_of_two_processes_is_that_of_one(tmp_path):
    port, out = str(free_port()), tmp_path / 'steps'
    shapes = [f'{a},{b}' for a, b in SHAPES]
    commands = [['tests/distributed_step.py', port, str(i), str(out), *shapes] for i in range(2)]
    statuses, outputs = run_together(commands, jax.config.jax_compilation_cache_dir)
    assert statuses == [0, 0], outputs
    steps = pickle.loads(out.read_bytes())
    assert set(steps) == set(SHAPES)
    for step in steps.values():
        float64_step.assert_same(float64_step.Step(**step), test_mesh.step((1, 1)))


@pytest.fixture(scope='module')
def root(tmp_path_factory):
    return test_training.make_sets(tmp_path_factory.mktemp('data'))


def train_together(
    root: Path, folder: Path, cache: Path, *flags: str, late: tuple[str, str] = ('', '')
) -> tuple[list[int], list[str]]:
    """Train in `folder / 'run'` with two processes of one device each; see `run_together`.

    Args:
      root: folder of the data.
      folder: folder of the config and the run.
      cache: compilation cache of both processes.
      flags: flags of train.py.
      late: what is late in each process, in the format of `late_process.py`.
    """
    folder.mkdir(exist_ok=True)
    several = [f'--coordinator=localhost:{free_port()}', '--processes=2']
    command = test_training.command(folder, root, '--config.run.mesh=(2,1)', *flags, *several)[1:]
    programs = [['tests/late_process.py', each] if each else ['train.py'] for each in late]
    return run_together(
        [[*program, *command, f'--process={i}'] for i, program in enumerate(programs)], cache
    )


@pytest.fixture(scope='module')
def started(root, tmp_path_factory):
    """Run two steps in two processes from an empty cache; return folder, cache and outputs."""
    folder, cache = tmp_path_factory.mktemp('two'), tmp_path_factory.mktemp('cache')
    statuses, outputs = train_together(root, folder, cache, '--config.train.steps=2')
    assert statuses == [0, 0], outputs
    return folder, cache, outputs


@pytest.mark.slow
def test_run_of_two_processes_goes_on_in_one(root, started, tmp_path):
    """Two processes run the first steps, one process the last."""
    folder, _, outputs = started
    test_training.train(test_training.config(root, steps=3), tmp_path / 'whole')
    assert 'in all' in outputs[0]
    assert 'in all' not in outputs[1]  # only the first process prints
    workdir = tmp_path / 'run'
    shutil.copytree(folder / 'run', workdir)
    assert [line['step'] for line in test_training.lines(workdir)] == [1, 2]
    assert restore.load_model(workdir)[2] == 2
    test_training.train(test_training.config(root, steps=3), workdir)
    losses = [test_training.lines(folder) for folder in (workdir, tmp_path / 'whole')]
    ours, theirs = ([line['loss'] for line in several] for several in losses)
    assert len(ours) == len(set(ours)) == 3
    # Equal except for rounding, which the steps of a random network with k = 300 amplify.
    np.testing.assert_allclose(ours[0], theirs[0], rtol=1e-5)
    np.testing.assert_allclose(ours, theirs, rtol=5e-3)


@pytest.mark.slow
def test_processes_start_together_from_a_cache_that_one_of_them_uses(root, started, tmp_path):
    """JAX caches only the programs of process 0, so the other process compiles again."""
    _, cache, _ = started
    assert list(cache.glob('jit_step*'))
    statuses, outputs = train_together(root, tmp_path / 'warm', cache, '--config.train.steps=2')
    assert statuses == [0, 0], outputs


@pytest.mark.slow
def test_processes_wait_for_a_late_one(root, started, tmp_path):
    """Each delay exceeds the 30 s after which a collective on CPUs times out."""
    folder, cache, _ = started
    shutil.copytree(folder, tmp_path / 'late')
    flags = ('--config.train.steps=3', '--config.run.picture_every=1')
    late = ('picture=40', 'restore=40,compile=60')
    statuses, outputs = train_together(root, tmp_path / 'late', cache, *flags, late=late)
    assert statuses == [0, 0], outputs
    assert [output.count('is late') for output in outputs] == [1, 2]
    assert [line['step'] for line in test_training.lines(tmp_path / 'late' / 'run')] == [1, 2, 3]


@pytest.mark.slow
def test_a_process_that_hangs_is_not_waited_for_without_end():
    code = f"""
import sys, time
from gconet_jax.training import distributed
process = int(sys.argv[1])
distributed.BARRIER_TIMEOUT_S = 10
distributed.initialize('localhost:{free_port()}', 2, process)
with distributed.fail_together():
    distributed.wait_for_processes('both')
    if process:
        time.sleep(60)
    distributed.wait_for_processes('lunch')
"""
    commands = [['-c', code, str(process)] for process in range(2)]
    start = time.monotonic()
    statuses, outputs = run_together(commands, jax.config.jax_compilation_cache_dir)
    assert time.monotonic() - start < 50
    assert statuses[0] == 1
    assert 'error: not all processes got ready for lunch: ' in outputs[0]
    assert 'Read the output of the other processes' in outputs[0]
    assert statuses[1] != 0  # the coordinator is gone


@pytest.mark.slow
@pytest.mark.parametrize('failed', [0, 1])
def test_a_process_that_fails_ends_the_other(root, started, tmp_path, failed):
    """JAX notices within 100 s that a process ended."""
    _, cache, _ = started
    late = ('', 'compile=fail') if failed else ('compile=fail', '')
    start = time.monotonic()
    statuses, outputs = train_together(root, tmp_path / 'failed', cache, late=late)
    assert time.monotonic() - start < 240
    assert statuses[failed] == 1
    assert 'out of luck' in outputs[failed]
    assert statuses[1 - failed] != 0
    assert 'out of luck' not in outputs[1 - failed]
