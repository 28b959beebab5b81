"""A training step in float64, which distinguishes wrong mathematics from rounding.

A random network with k = 300 amplifies float32 rounding to one percent of the gradient.
"""

from typing import NamedTuple

import jax
import numpy as np
from flax import nnx

from gconet_jax.config import Config
from gconet_jax.models.gconet_plus import GCoNetPlus
from gconet_jax.training import mesh as mesh_lib
from gconet_jax.training import state as train_state
from gconet_jax.training.distributed import wait_for_processes
from gconet_jax.training.step import make_train_step


class Step(NamedTuple):
    """The first step from a fixed random network; each tree is one vector."""

    metrics: dict[str, float]
    gradient: np.ndarray
    update: np.ndarray
    batch_stats: np.ndarray


def run(config: Config, batch: dict[str, np.ndarray], mesh: jax.sharding.Mesh) -> Step:
    """Run the step on `batch`, which is in the loader's format."""
    given = dict(batch)
    given['image'] = np.asarray(batch['image']) / 127.5 - 1
    given['mask'] = np.asarray(batch['mask']) / 255.0
    with jax.enable_x64(True), jax.numpy_dtype_promotion('standard'):
        graph, state = train_state.create(GCoNetPlus(config.model, rngs=nnx.Rngs(0)), config)
        state = widened(state)
        before = _ravel(state.params)
        state = mesh_lib.put_replicated(state, mesh)
        step = make_train_step(graph, config, mesh)
        placed = mesh_lib.put_batch(given, mesh)
        compiled = step.lower(state, placed).compile()
        wait_for_processes('the step')
        new, metrics = compiled(state, placed)
        return Step(
            {name: float(value) for name, value in metrics.items()},
            np.asarray(new.opt_state[0].mu) / (1 - config.train.b1),  # Adam's first moment
            _ravel(new.params) - before,
            _ravel(new.batch_stats),
        )


def widened(tree):
    """Convert the float32 arrays of `tree` to float64; requires `jax.enable_x64`."""
    return jax.tree.map(lambda x: x.astype(np.float64) if x.dtype == np.float32 else x, tree)


def assert_same(ours: Step, theirs: Step) -> None:
    """Compare to 1e-9 of each vector; the update to 1e-4, because Adam divides noise by noise."""
    assert ours.gradient.dtype == np.float64
    for name, value in theirs.metrics.items():
        np.testing.assert_allclose(ours.metrics[name], value, rtol=1e-9, err_msg=name)
    for part, bound in (('gradient', 1e-9), ('update', 1e-4), ('batch_stats', 1e-9)):
        a, b = getattr(ours, part), getattr(theirs, part)
        assert np.linalg.norm(a - b) < bound * np.linalg.norm(b), part


def _ravel(tree) -> np.ndarray:
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])
