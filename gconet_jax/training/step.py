"""One update as a single jitted program: batch -> model -> losses -> gradients -> Adam."""

import functools
from collections.abc import Callable, Mapping
from typing import Any, cast

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.sharding import Mesh

from gconet_jax import losses
from gconet_jax.config import Config, TrainConfig
from gconet_jax.models.gconet_plus import normalize
from gconet_jax.models.layers import (
    BATCH_NORM_MOMENTUM,
    BatchMoments,
    with_remat,
    with_running_average,
)
from gconet_jax.training.mesh import batch_shardings, make_mesh, replicated
from gconet_jax.training.state import Skipped, TrainState, Tree, make_optimizer

Batch = dict[str, jax.Array]  # from input_pipeline.loader, or with float32 images and masks
Metrics = dict[str, jax.Array]
# The random stream that selects pairs with an example. It must differ from the streams of
# augment.py, which are numbered by image position in the batch and therefore smaller.
EXAMPLE_STREAM = 2**31 - 1
TrainStep = Callable[[TrainState, Batch], tuple[TrainState, Metrics]]


def make_train_step(
    graph: nnx.GraphDef,
    config: Config,
    mesh: Mesh | None = None,
    *,
    freeze_batch_norm: bool = False,
) -> TrainStep:
    """Return the jitted step, which consumes (donates) the state passed to it.

    The state is replicated on all devices of `mesh` (one device by default), and the batch is split
    over them. Pairs that do not fit on the mesh run one after another.
    With `freeze_batch_norm` the step normalises by the running statistics and does not update them.

    Its metrics are all () float32: `loss`, the sum over the pairs; each unweighted loss term and
    `k_fell_back`, means over the pairs; `grad_norm`.
    """
    optimizer = make_optimizer(config.train)
    mesh = mesh or make_mesh(1, (1,), devices=jax.devices()[:1])
    at_once = mesh.shape['pair']
    on_cpu = mesh.devices.flat[0].platform == 'cpu'

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        grads, metrics, moments = gradients(
            graph,
            config,
            state,
            batch,
            at_once=at_once,
            unroll=on_cpu,
            freeze_batch_norm=freeze_batch_norm,
        )
        with jax.numpy_dtype_promotion('standard'):  # Optax raises a float to an int32 power
            updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = cast(Tree, optax.apply_updates(state.params, updates))
        batch_stats = update_batch_stats(state.batch_stats, moments)
        grad_norm = optax.tree.norm(grads)
        skipped, usable = guard(state.skipped, state.step, metrics['loss'], grad_norm)

        def kept(new: Any, old: Any) -> Any:
            return jax.tree.map(lambda a, b: jnp.where(usable, a, b), new, old)

        new_state = TrainState(
            step=state.step + 1,
            params=kept(params, state.params),
            frozen=state.frozen,
            batch_stats=kept(batch_stats, state.batch_stats),
            ema=kept(averages(state, params, batch_stats, config.train.ema), state.ema),
            opt_state=kept(opt_state, state.opt_state),
            skipped=skipped,
        )
        return new_state, metrics | {'grad_norm': grad_norm}

    everywhere = replicated(mesh)
    return jax.jit(
        step,
        donate_argnums=0,
        in_shardings=(everywhere, batch_shardings(mesh)),
        out_shardings=everywhere,
    )


def gradients(
    graph: nnx.GraphDef,
    config: Config,
    state: TrainState,
    batch: Batch,
    *,
    at_once: int | None = None,
    unroll: bool = False,
    freeze_batch_norm: bool = False,
) -> tuple[Tree, Metrics, Tree]:
    """Return the gradients of the summed loss, the metrics and the batch-norm moments.

    Pairs are independent: each has its own batch statistics and its own k. The moments have a
    leading axis of pairs.

    Args:
      graph: structure of the model.
      config: config of the run.
      state: current state.
      batch: P pairs; the loss is summed over them.
      at_once: number of pairs in memory at the same time; all by default.
      unroll: unroll the loop over the turns, because XLA's CPU convolutions are about 30x slower
          inside a loop.
      freeze_batch_norm: normalise by the running statistics.
    """

    def batch_loss(params: Tree, pairs: Batch):
        one = functools.partial(pair_loss, graph, config, state, freeze_batch_norm)
        loss, (terms, moments) = jax.vmap(one, in_axes=(None, 0))(params, pairs)
        return loss.sum(), (terms, moments)

    grad_fn = jax.value_and_grad(batch_loss, has_aux=True)
    count = len(batch['label'])
    if config.train.example:
        batch = batch | {'by_example': _by_example(config.train, state.step, count)}
    if at_once in (None, count):
        (loss, (terms, moments)), grads = grad_fn(state.params, batch)
    else:

        def add(total: Tree, pairs: Batch):
            (loss, aux), grads = grad_fn(state.params, pairs)
            return jax.tree.map(jnp.add, total, (loss, grads)), aux

        zero = (jnp.zeros(()), jax.tree.map(jnp.zeros_like, state.params))
        turns = jax.tree.map(functools.partial(_in_turns, at_once=at_once), batch)
        (loss, grads), aux = jax.lax.scan(add, zero, turns, unroll=unroll)
        terms, moments = jax.tree.map(_in_order, aux)
    metrics = {name: value.mean() for name, value in terms.items()}
    return grads, metrics | {'loss': loss}, moments


def pair_loss(
    graph: nnx.GraphDef,
    config: Config,
    state: TrainState,
    freeze_batch_norm: bool,
    params: Tree,
    pair: Batch,
) -> tuple[jax.Array, tuple[Metrics, Tree]]:
    """Return the loss of one pair under `params`, and (terms and k_fell_back, moments)."""
    model = nnx.merge(graph, params, state.frozen, state.batch_stats)
    model = with_remat(with_running_average(model, freeze_batch_norm), config.run.remat)
    images, masks = pair['image'], pair['mask']
    if images.dtype == jnp.uint8:
        images, masks = normalize(images), masks.astype(jnp.float32) / 255
    marked = None
    if 'by_example' in pair:
        first = jnp.arange(masks.shape[1]) == 0
        marked = masks * (first & pair['by_example'])[None, :, None, None].astype(masks.dtype)
    output, moments = nnx.capture(model, BatchMoments)(images, pair['valid'], marked)
    loss, terms = losses.total_loss(output, masks, pair['label'], pair['valid'], config.loss)
    fell_back = output.maps.fell_back.astype(jnp.float32)
    return loss, (terms | {'k_fell_back': fell_back}, nnx.to_pure_dict(moments))


def _by_example(config: TrainConfig, step: jax.Array, pairs: int) -> jax.Array:
    """Return which pairs take their consensus from a marked image: (pairs,) bool."""
    key = jax.random.fold_in(jax.random.key(config.seed), step)
    key = jax.random.fold_in(key, EXAMPLE_STREAM)
    return jax.random.bernoulli(key, config.example, (pairs,))


def abstract_batch(pairs: int, images: int, image_size: int) -> dict[str, jax.ShapeDtypeStruct]:
    """Return the shapes of a loader batch: `pairs` pairs of groups of `images` images."""
    groups = (pairs, 2)
    pixels = (*groups, images, image_size, image_size)
    return {
        'image': jax.ShapeDtypeStruct((*pixels, 3), jnp.uint8),
        'mask': jax.ShapeDtypeStruct(pixels, jnp.uint8),
        'label': jax.ShapeDtypeStruct(groups, jnp.int32),
        'valid': jax.ShapeDtypeStruct((*groups, images), bool),
    }


def kept_bytes(
    graph: nnx.GraphDef, config: Config, state: TrainState, batch: Mapping[str, Any]
) -> int:
    """Return the bytes that the forward pass over one pair keeps for the backward pass.

    This follows `run.remat` and includes parameters and images. The arguments may be shapes only;
    nothing is computed.
    """
    pair = {name: jax.ShapeDtypeStruct(x.shape[1:], x.dtype) for name, x in batch.items()}

    def backward(state: TrainState, pair: Batch) -> Any:
        one = functools.partial(pair_loss, graph, config, state, False)
        return jax.vjp(lambda params: one(params, pair)[0], state.params)[1]

    kept = jax.eval_shape(backward, state, pair)
    return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(kept))


def _in_turns(x: jax.Array, at_once: int) -> jax.Array:
    """Reshape (pairs, ...) to (turns, at_once, ...); each device runs its own pairs in turn."""
    return x.reshape(at_once, -1, *x.shape[1:]).swapaxes(0, 1)


def _in_order(x: jax.Array) -> jax.Array:
    """Reshape (turns, at_once, ...) to (pairs, ...), the inverse of `_in_turns`."""
    return x.swapaxes(0, 1).reshape(-1, *x.shape[2:])


def guard(
    skipped: Skipped, step: jax.Array, loss: jax.Array, grad_norm: jax.Array
) -> tuple[Skipped, jax.Array]:
    """Return the counts after a step, and whether the step may update the state: () bool."""
    bad_loss = ~jnp.isfinite(loss)
    bad = bad_loss | ~jnp.isfinite(grad_norm)
    counts = Skipped(
        loss=skipped.loss + bad_loss.astype(jnp.int32),
        gradient=skipped.gradient + (bad & ~bad_loss).astype(jnp.int32),
        in_a_row=jnp.where(bad, skipped.in_a_row + 1, 0),
        last=jnp.where(bad, step, skipped.last),
    )
    return counts, ~bad


def averages(state: TrainState, params: Tree, batch_stats: Tree, decay: float) -> Tree:
    """Return the moving averages after one more step.

    The decay rises to `decay` as (1 + t) / (10 + t), as in TensorFlow's ExponentialMovingAverage,
    so that the random start is soon forgotten.
    """
    if not state.ema:
        return {}
    step = state.step.astype(jnp.float32)
    rate = 1 - jnp.minimum(decay, (1 + step) / (10 + step))
    new = {'params': params, 'batch_stats': batch_stats}
    return jax.tree.map(lambda old, now: old + rate.astype(old.dtype) * (now - old), state.ema, new)


def update_batch_stats(batch_stats: Tree, moments: Tree) -> Tree:
    """Return the running statistics after a batch; each pass of each pair updates them once.

    The order is that of the released code: the raw and the masked pass of the first pair, then
    those of the second.
    """
    if set(batch_stats) == {'mean', 'var'}:
        if 'moments' not in moments:  # this layer was not called
            return batch_stats
        mean, var = batch_stats['mean'], batch_stats['var']
        passes = moments['moments']
        for pair in range(passes[0][0].shape[0]):
            for pass_mean, pass_var in passes:
                mean = _move(mean, pass_mean[pair])
                var = _move(var, pass_var[pair])
        return {'mean': mean, 'var': var}
    return {
        name: update_batch_stats(child, moments.get(name, {}))
        for name, child in batch_stats.items()
    }


def _move(running: jax.Array, current: jax.Array) -> jax.Array:
    return BATCH_NORM_MOMENTUM * running + (1 - BATCH_NORM_MOMENTUM) * current
