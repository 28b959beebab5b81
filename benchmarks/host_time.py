"""Measure the host time of a training step outside the device program.

    PYTHONPATH=. python benchmarks/host_time.py

This uses the step and state of the small config. JAX dispatches asynchronously, so the host time is
the time of a call that returns before the program has run, with the batch already on the device.
"""

import statistics
import time

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from benchmarks import measure
from configs.synthetic import get_config
from gconet_jax.config_dict import from_config_dict
from gconet_jax.models.gconet_plus import GCoNetPlus
from gconet_jax.training import state as train_state
from gconet_jax.training.step import make_train_step

RUNS = 20


def main() -> None:
    """Print the table and one line of JSON."""
    config = from_config_dict(get_config())
    graph, state = train_state.create(GCoNetPlus(config.model, rngs=nnx.Rngs(0)), config)
    step = make_train_step(graph, config)
    n, size = config.data.group_sizes[-1], config.data.image_size
    rng = np.random.default_rng(0)
    batch = {
        'image': jnp.asarray(rng.integers(0, 256, (1, 2, n, size, size, 3), np.uint8)),
        'mask': jnp.asarray(rng.integers(0, 256, (1, 2, n, size, size), np.uint8)),
        'label': jnp.zeros((1, 2), jnp.int32),
        'valid': jnp.ones((1, 2, n), bool),
    }
    for _ in range(2):
        state, _ = step(state, batch)
    jax.block_until_ready(state)

    host, whole = [], []
    for _ in range(RUNS):
        start = time.perf_counter()
        state, _ = step(state, batch)
        host.append(time.perf_counter() - start)
        jax.block_until_ready(state)
        whole.append(time.perf_counter() - start)
    arrays = len(jax.tree.leaves(state))
    result = {'arrays': arrays, 'host_ms': _summary(host), 'step_ms': _summary(whole)}
    print(f'{arrays} arrays; median of {RUNS} runs [least, most]')
    for name in ('host_ms', 'step_ms'):
        print('{:8} {:8.2f} [{:.2f}, {:.2f}]'.format(name, *result[name]))
    measure.finish(result, None)


def _summary(seconds: list[float]) -> tuple[float, float, float]:
    milliseconds = [1000 * s for s in seconds]
    return statistics.median(milliseconds), min(milliseconds), max(milliseconds)


if __name__ == '__main__':
    main()
