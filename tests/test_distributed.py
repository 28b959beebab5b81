"""Two processes of two devices each, over loopback: the numbers of one process."""

import os
import pickle
import socket
import subprocess
import sys
from pathlib import Path

import float64_step
import jax
import numpy as np
import pytest
import test_mesh
import test_training

from gconet_jax.training import restore

ROOT = Path(__file__).parent.parent
SHAPES = [(2, 2), (1, 4)]
TIMEOUT = 400  # seconds


def free_port() -> int:
    with socket.socket() as server:
        server.bind(('localhost', 0))
        return server.getsockname()[1]


def run_two(commands: list[list[str]]) -> list[str]:
    """Runs two processes side by side; their outputs.

    XLA runs collectives that do not depend on each other in any order, unless it is told not to,
    and two processes on a CPU with few threads then wait for different ones.
    """
    keep = {k: v for k, v in os.environ.items() if k != 'XLA_FLAGS'}
    cache = jax.config.jax_compilation_cache_dir
    settings = {
        'JAX_PLATFORMS': 'cpu',
        'JAX_COMPILATION_CACHE_DIR': cache,
        'NPROC': '16',  # XLA's threads
        'XLA_FLAGS': '--xla_cpu_enable_concurrency_optimized_scheduler=false',
        'PYTHONPATH': str(ROOT),
    }
    running = [
        subprocess.Popen(
            [sys.executable, *command],
            cwd=ROOT,
            env=keep | settings,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for command in commands
    ]
    try:
        outputs = [process.communicate(timeout=TIMEOUT)[0] for process in running]
    finally:
        for process in running:
            process.kill()
    assert [process.returncode for process in running] == [0, 0], outputs
    return outputs


@pytest.mark.slow
def test_step_of_two_processes_is_that_of_one(tmp_path):
    port, out = str(free_port()), tmp_path / 'steps'
    shapes = [f'{a},{b}' for a, b in SHAPES]
    run_two([['tests/distributed_step.py', port, str(i), str(out), *shapes] for i in range(2)])
    steps = pickle.loads(out.read_bytes())
    assert set(steps) == set(SHAPES)
    for step in steps.values():
        float64_step.assert_same(float64_step.Step(**step), test_mesh.step((1, 1)))


@pytest.fixture(scope='module')
def root(tmp_path_factory):
    return test_training.make_sets(tmp_path_factory.mktemp('data'))


@pytest.mark.slow
def test_run_of_two_processes_goes_on_in_one(root, tmp_path):
    """Four devices in two processes make the first steps, one device the last."""
    test_training.train(test_training.config(root, steps=3), tmp_path / 'whole')
    (tmp_path / 'two').mkdir()
    command = test_training.command(tmp_path / 'two', root, '--config.train.steps=2')
    port = free_port()
    several = [f'--coordinator=localhost:{port}', '--processes=2']
    mesh = '--config.run.mesh=(2,1)'
    run = [['train.py', *command[1:], *several, f'--process={i}', mesh] for i in range(2)]
    outputs = run_two(run)
    assert 'in all' in outputs[0]
    assert 'in all' not in outputs[1]  # the first alone speaks
    workdir = tmp_path / 'two' / 'run'
    assert [line['step'] for line in test_training.lines(workdir)] == [1, 2]
    assert restore.load_model(workdir)[2] == 2
    test_training.train(test_training.config(root, steps=3), workdir)
    losses = [test_training.lines(folder) for folder in (workdir, tmp_path / 'whole')]
    ours, theirs = ([line['loss'] for line in several] for several in losses)
    assert len(ours) == len(set(ours)) == 3
    # The same to rounding, which the steps of a random network with k = 300 amplify.
    np.testing.assert_allclose(ours[0], theirs[0], rtol=1e-5)
    np.testing.assert_allclose(ours, theirs, rtol=5e-3)
