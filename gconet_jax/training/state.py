"""The training state: parameters, batch statistics and optimiser state."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from gconet_jax.config import Config, ConfigError, TrainConfig
from gconet_jax.models.gconet_plus import GCoNetPlus, abstract_model

Tree = dict[str, Any]  # nested dicts of arrays, keyed by the attribute names of the model


class Skipped(NamedTuple):
    """Counts of the updates skipped because a value was not finite; each is () int32."""

    loss: jax.Array  # skipped because of the loss
    gradient: jax.Array  # skipped because of the gradient, with a finite loss
    in_a_row: jax.Array  # current run of skipped updates, of either kind
    last: jax.Array  # step of the last skipped update, counted from 0; -1: none


class TrainState(NamedTuple):
    """All arrays of a run, as plain nested dicts, which cost little host time per step."""

    step: jax.Array  # () int32, number of steps, including skipped ones
    params: Tree  # parameters that the optimiser updates
    frozen: Tree  # parameters that it does not update
    batch_stats: Tree  # running means and variances
    ema: Tree  # moving averages {'params', 'batch_stats'}, or {} if the run keeps none
    opt_state: optax.OptState
    skipped: Skipped


def make_optimizer(config: TrainConfig) -> optax.GradientTransformation:
    """Return Adam (GCoNet+, section 4.2). Each moment is one flat vector, which saves host time.

    `config.steps` must be the actual length of the run.
    """
    adam = optax.flatten(optax.scale_by_adam(config.b1, config.b2))
    parts: list[optax.GradientTransformation] = [adam]
    if config.clip_norm:
        parts.insert(0, optax.clip_by_global_norm(config.clip_norm))
    if config.weight_decay:
        parts.append(optax.add_decayed_weights(config.weight_decay, mask=_is_kernel))
    if config.backbone_rate != 1:
        parts.append(optax.masked(optax.scale(config.backbone_rate), _is_backbone))
    return optax.chain(*parts, optax.scale_by_learning_rate(make_schedule(config)))


def make_schedule(config: TrainConfig) -> optax.Schedule:
    """Return the learning rate as a function of the step."""
    rate, steps, warmup = config.learning_rate, config.steps, config.warmup_steps
    match config.schedule:
        case 'constant':
            schedule = optax.constant_schedule(rate)
        case 'cosine':
            schedule = optax.cosine_decay_schedule(rate, max(steps - warmup, 1))
        case _:  # 'step'
            drops = {round(part * steps) - warmup: 0.1 for part in config.step_at}
            schedule = optax.piecewise_constant_schedule(rate, drops)
    if not warmup:
        return schedule
    return optax.join_schedules([optax.linear_schedule(0.0, rate, warmup), schedule], [warmup])


def _is_kernel(params: Tree) -> Tree:
    return jax.tree.map(lambda leaf: leaf.ndim > 1, params)


def _is_backbone(params: Tree) -> Tree:
    return {
        name: jax.tree.map(lambda _, inside=name == 'backbone': inside, child)
        for name, child in params.items()
    }


def create(model: GCoNetPlus, config: Config) -> tuple[nnx.GraphDef, TrainState]:
    """Return the structure of `model` and the state at step 0, which shares the arrays of `model`.

    Raises:
      ConfigError: `train.frozen` names a part that the model does not have.
    """
    graph, params, frozen, batch_stats = _split(model, config.train.frozen)
    averages = {'params': params, 'batch_stats': batch_stats} if config.train.ema else {}
    zero = jnp.zeros((), jnp.int32)
    return graph, TrainState(
        step=zero,
        params=params,
        frozen=frozen,
        batch_stats=batch_stats,
        ema=jax.tree.map(jnp.copy, averages),
        opt_state=make_optimizer(config.train).init(params),
        skipped=Skipped(jnp.copy(zero), jnp.copy(zero), jnp.copy(zero), zero - 1),
    )


def _split(model: GCoNetPlus, frozen_parts: Sequence[str]) -> tuple[nnx.GraphDef, Tree, Tree, Tree]:
    """Split `model` into structure, params, frozen params and batch statistics, for `nnx.merge`."""
    found = set()

    def is_frozen(path: tuple[Any, ...], _: Any) -> bool:
        name = '/'.join(map(str, path))
        parts = [part for part in frozen_parts if f'{name}/'.startswith(f'{part}/')]
        found.update(parts)
        return bool(parts)

    trained = nnx.All(nnx.Param, nnx.Not(is_frozen))
    graph, *trees = nnx.split(model, trained, nnx.Param, nnx.BatchStat)
    unknown = sorted(set(frozen_parts) - found)
    if unknown:
        raise ConfigError(f'config.train.frozen: the model has no {", ".join(unknown)}')
    params, frozen, batch_stats = (nnx.to_pure_dict(tree) for tree in trees)
    return graph, params, frozen, batch_stats


def averaged(state: TrainState) -> TrainState:
    """Return the state with moving averages in place of parameters and running statistics."""
    return state._replace(params=state.ema['params'], batch_stats=state.ema['batch_stats'])


def abstract(config: Config) -> tuple[nnx.GraphDef, TrainState]:
    """Return the structure of a model and the shapes of its state, without creating arrays."""
    graph = _split(abstract_model(config.model), config.train.frozen)[0]

    def state() -> TrainState:
        return create(GCoNetPlus(config.model, rngs=nnx.Rngs(0)), config)[1]

    return graph, jax.eval_shape(state)


def overview(state: TrainState) -> str:
    """Describe the number of parameters in each part of the model, and how many are trained."""

    def counts(tree: Tree) -> dict[str, int]:
        return {name: sum(x.size for x in jax.tree.leaves(part)) for name, part in tree.items()}

    trained, frozen = counts(state.params), counts(state.frozen)
    rows = [
        (name, trained.get(name, 0) + frozen.get(name, 0), trained.get(name, 0))
        for name in sorted(trained.keys() | frozen.keys())
    ]
    rows.append(('in all', sum(row[1] for row in rows), sum(row[2] for row in rows)))
    lines = [f'{"":<12} {"parameters":>12} {"trained":>12}']
    return '\n'.join(lines + [f'{name:<12} {all_:>12,} {some:>12,}' for name, all_, some in rows])


def saved_parts(state: TrainState) -> dict[str, Tree]:
    """Return the parts that a checkpoint stores: the model, and what only training needs.

    The model part does not separate frozen parameters, because freezing belongs to the run.
    """
    params = _join(state.params, state.frozen)
    parts = {
        'model': {'params': params, 'batch_stats': state.batch_stats},
        'optimizer': {
            'step': state.step,
            'opt_state': state.opt_state,
            'skipped': state.skipped,
        },
    }
    return parts | ({'ema': state.ema} if state.ema else {})


def with_parts(state: TrainState, parts: dict[str, Any]) -> TrainState:
    """Return `state` with the values of the loaded parts, the inverse of `saved_parts`."""
    params = parts['model']['params']
    return state._replace(
        params=_like(state.params, params),
        frozen=_like(state.frozen, params),
        batch_stats=parts['model']['batch_stats'],
        ema=parts.get('ema', {}),
        **parts.get('optimizer', {}),
    )


def _join(left: Tree, right: Tree) -> Tree:
    """Merge two nested dicts that have no leaf in common."""
    joined = dict(left)
    for name, child in right.items():
        joined[name] = _join(left[name], child) if name in left else child
    return joined


def _like(form: Tree, values: Tree) -> Tree:
    """Return the entries of `values` that `form` has."""
    return {
        name: _like(child, values[name]) if isinstance(child, dict) else values[name]
        for name, child in form.items()
    }
