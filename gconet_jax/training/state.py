"""What training changes: parameters, batch statistics, optimiser."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from gconet_jax.config import Config, TrainConfig
from gconet_jax.models.gconet_plus import GCoNetPlus

Tree = dict[str, Any]  # nested dicts of arrays, with the attribute names of the model as keys


class TrainState(NamedTuple):
    """All arrays of a run. Plain nested dicts: a call of the step costs little on the host."""

    step: jax.Array  # () int32, updates made
    params: Tree  # what the optimiser moves
    frozen: Tree  # parameters that it does not
    batch_stats: Tree  # running means and variances
    opt_state: optax.OptState


def make_optimizer(config: TrainConfig) -> optax.GradientTransformation:
    """Adam (GCoNet+, section 4.2). Its moments are one vector each, which saves host time.

    A 'cosine' rate ends at 0 after `config.steps`, which the caller has resolved.
    """
    rate: optax.ScalarOrSchedule = config.learning_rate
    if config.schedule == 'cosine':
        rate = optax.cosine_decay_schedule(config.learning_rate, config.steps)
    return optax.flatten(optax.adam(rate, b1=config.b1, b2=config.b2))


def split(model: GCoNetPlus, *, freeze_backbone: bool) -> tuple[nnx.GraphDef, Tree, Tree, Tree]:
    """Takes `model` apart: its structure, params, frozen params, batch statistics.

    `nnx.merge` puts the four together again.
    """
    backbone = nnx.PathContains('backbone')
    trainable = nnx.All(nnx.Param, nnx.Not(backbone)) if freeze_backbone else nnx.Param
    graph, *trees = nnx.split(model, trainable, nnx.Param, nnx.BatchStat)
    params, frozen, batch_stats = (nnx.to_pure_dict(tree) for tree in trees)
    return graph, params, frozen, batch_stats


def create(model: GCoNetPlus, config: Config) -> tuple[nnx.GraphDef, TrainState]:
    """The structure of `model` and the state at step 0. The arrays are `model`'s own."""
    graph, params, frozen, batch_stats = split(model, freeze_backbone=config.train.freeze_backbone)
    opt_state = make_optimizer(config.train).init(params)
    return graph, TrainState(jnp.zeros((), jnp.int32), params, frozen, batch_stats, opt_state)
