"""What training changes: parameters, batch statistics, optimiser."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from gconet_jax.config import Config, TrainConfig
from gconet_jax.models.gconet_plus import GCoNetPlus

Tree = dict[str, Any]  # nested dicts of arrays, with the attribute names of the model as keys


class Skipped(NamedTuple):
    """Updates that were left out because something was not finite; () int32 each."""

    loss: jax.Array  # because of the loss
    gradient: jax.Array  # because of the gradient under a finite loss
    in_a_row: jax.Array  # up to now, of either kind
    last: jax.Array  # the step of the last one, counted from 0; -1: none


class TrainState(NamedTuple):
    """All arrays of a run. Plain nested dicts: a call of the step costs little on the host."""

    step: jax.Array  # () int32, updates made
    params: Tree  # what the optimiser moves
    frozen: Tree  # parameters that it does not
    batch_stats: Tree  # running means and variances
    opt_state: optax.OptState
    skipped: Skipped


def make_optimizer(config: TrainConfig) -> optax.GradientTransformation:
    """Adam (GCoNet+, section 4.2). Its moments are one vector each, which saves host time.

    `config.steps` is the length of the run, already resolved.
    """
    adam = optax.flatten(optax.scale_by_adam(config.b1, config.b2))
    parts = [adam, optax.scale_by_learning_rate(make_schedule(config))]
    if config.weight_decay:
        parts.insert(1, optax.add_decayed_weights(config.weight_decay, mask=_is_kernel))
    if config.clip_norm:
        parts.insert(0, optax.clip_by_global_norm(config.clip_norm))
    return optax.chain(*parts)


def make_schedule(config: TrainConfig) -> optax.Schedule:
    """The learning rate at each step."""
    rate, steps, warmup = config.learning_rate, config.steps, config.warmup_steps
    match config.schedule:
        case 'constant':
            schedule = optax.constant_schedule(rate)
        case 'cosine':
            schedule = optax.cosine_decay_schedule(rate, max(steps - warmup, 1))
        case 'step':
            drops = {round(part * steps) - warmup: 0.1 for part in config.step_at}
            schedule = optax.piecewise_constant_schedule(rate, drops)
        case other:
            raise ValueError(other)
    if not warmup:
        return schedule
    return optax.join_schedules([optax.linear_schedule(0.0, rate, warmup), schedule], [warmup])


def _is_kernel(params: Tree) -> Tree:
    return jax.tree.map(lambda leaf: leaf.ndim > 1, params)


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
    zero = jnp.zeros((), jnp.int32)
    skipped = Skipped(zero, jnp.copy(zero), jnp.copy(zero), zero - 1)
    return graph, TrainState(jnp.copy(zero), params, frozen, batch_stats, opt_state, skipped)
