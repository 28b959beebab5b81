"""Two processes of two devices each, over loopback: the numbers of one process."""

import json
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

from gconet_jax.training import checkpoint

ROOT = Path(__file__).parent.parent
SHAPES = [(2, 2), (1, 4)]
TIMEOUT = 400  # seconds


def free_port() -> int:
    with socket.socket() as server:
        server.bind(('localhost', 0))
        return server.getsockname()[1]


def run_two(commands: list[list[str]], **env: str) -> list[str]:
    """Runs two processes side by side; their outputs.

    Gloo gives up if one process compiles for 30 s longer than the other; the second time the
    programs are in the cache.
    """
    statuses, outputs = _run_two(commands, **env)
    if any('Gloo context initialization failed' in output for output in outputs):
        statuses, outputs = _run_two(commands, **env)
    assert statuses == [0, 0], outputs[0][-2000:] + outputs[1][-2000:]
    return outputs


def _run_two(commands: list[list[str]], **env: str) -> tuple[list[int], list[str]]:
    keep = {k: v for k, v in os.environ.items() if k != 'XLA_FLAGS'}
    cache = jax.config.jax_compilation_cache_dir
    env = {**keep, 'JAX_PLATFORMS': 'cpu', 'JAX_COMPILATION_CACHE_DIR': cache, **env}
    running = [
        subprocess.Popen(
            [sys.executable, *command],
            cwd=ROOT,
            env=env | {'PYTHONPATH': str(ROOT)},
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
    return [process.returncode for process in running], outputs


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


def test_run_of_two_processes_goes_on_in_one(root, tmp_path):
    """Four devices in two processes make the first steps, one device the last."""
    whole = test_training.train(test_training.config(root, steps=3), tmp_path / 'whole')
    (tmp_path / 'two').mkdir()
    command = test_training.command(tmp_path / 'two', root, '--config.train.steps=2')
    port = free_port()
    several = [f'--coordinator=localhost:{port}', '--processes=2']
    mesh = '--config.run.mesh=(2,1)'
    run = [['train.py', *command[1:], *several, f'--process={i}', mesh] for i in range(2)]
    outputs = run_two(run, XLA_FLAGS='--xla_force_host_platform_device_count=1')
    assert 'in all' in outputs[0]
    assert 'in all' not in outputs[1]  # the first alone speaks
    workdir = tmp_path / 'two' / 'run'
    lines = [json.loads(line) for line in (workdir / 'metrics.jsonl').read_text().splitlines()]
    assert [line['step'] for line in lines] == [1, 2]
    assert checkpoint.load_model(workdir)[2] == 2
    went_on = test_training.train(test_training.config(root, steps=3), workdir)
    assert int(went_on.step) == 3
    for name in ('params', 'batch_stats'):
        a, b = (
            np.concatenate([np.ravel(x) for x in jax.tree.leaves(getattr(s, name))])
            for s in (whole, went_on)
        )
        np.testing.assert_allclose(a, b, atol=2e-3)
