"""Rows of accelerator.py that run our network; each function measures one row."""

import dataclasses
import functools
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from benchmarks import affinity, measure
from gconet_jax.config import Config
from gconet_jax.inference.predictor import Predictor
from gconet_jax.models.gconet_plus import GCoNetPlus, abstract_model, normalize
from gconet_jax.models.layers import with_running_average
from gconet_jax.training import state as train_state
from gconet_jax.training.step import gradients, make_train_step
from gconet_jax.weights.folding import fold
from tests import golden_cases

Row = dict[str, Any]

# Keep P - T small: elsewhere the clamped BCE of the released code is a different loss.
SMALL = {'seed': 0, 'db_scale': 0.02, 'thresh_bias': 0.0, 'cls': [0, 1]}


def chip(n: int, megabytes: int, products: int) -> Row:
    """Measure the rates of the chip's matrix product and copy."""
    device = jax.local_devices()[0]
    kinds = {
        'bf16': (jnp.bfloat16, None),
        'default': (jnp.float32, 'default'),
        'highest': (jnp.float32, 'highest'),
    }
    rates = {
        f'{name}_tflops': measure.matrix_rate(n, dtype, precision=precision, products=products)
        / 1e12
        for name, (dtype, precision) in kinds.items()
    }
    copy = measure.copy_rate(megabytes) / 1e9
    return {'chip': device.device_kind, 'platform': device.platform, **rates, 'copy_gb_s': copy}


def operations(width: float) -> Row:
    """Count the convolutions' GFLOP per 256 x 256 image, for a training step and for inference."""
    config = settings('float32', width)
    graph, state = train_state.abstract(config)
    images = jax.ShapeDtypeStruct((1, 2, 2, 256, 256, 3), jnp.float32)
    batch = {
        'image': images,
        'mask': jax.ShapeDtypeStruct(images.shape[:-1], jnp.float32),
        'label': jax.ShapeDtypeStruct((1, 2), jnp.int32),
        'valid': jax.ShapeDtypeStruct((1, 2, 2), bool),
    }
    step = jax.make_jaxpr(functools.partial(gradients, graph, config))(state, batch)
    folded, weights = nnx.split(with_running_average(abstract_model(config.model)))

    def segment(weights: Any, images: jax.Array) -> jax.Array:
        return nnx.merge(folded, weights).segment(images, jnp.ones((1, 1), bool)).prob

    maps = jax.make_jaxpr(segment)(weights, jax.ShapeDtypeStruct((1, 1, 256, 256, 3), jnp.float32))
    return {
        'step_gflop': measure.convolution_flops(step.jaxpr) / 4e9,
        'inference_gflop': measure.convolution_flops(maps.jaxpr) / 1e9,
    }


def settings(precision: str, width: float) -> Config:
    """Return the released settings in `precision`, with `width` times the channels."""
    config = golden_cases.released_config({})
    model = dataclasses.replace(config.model, precision=precision, width=width)
    return dataclasses.replace(config, model=model)


@functools.cache
def network(precision: str, width: float) -> tuple[Config, GCoNetPlus]:
    """Return the released settings and network; at full width it has the golden cases' weights.

    Do not donate its arrays.
    """
    config = settings(precision, width)
    if width != 1:
        return config, GCoNetPlus(config.model, rngs=nnx.Rngs(0))
    return config, golden_cases.released_model(SMALL, config.model)


def train_step(pairs: int, images: int, size: int, precision: str, width: float) -> Row:
    """Time our training step, with the batch on the device."""
    config, model = network(precision, width)
    graph, state = train_state.create(model, config)
    batch = golden_cases.pair_batch(SMALL | {'n': images, 'h': size, 'w': size})
    batch = {name: jnp.repeat(jnp.asarray(x), pairs, axis=0) for name, x in batch.items()}
    start = time.perf_counter()
    compiled = make_train_step(graph, config).lower(state, batch).compile()
    compile_seconds = time.perf_counter() - start
    shardings = compiled.input_shardings[0]
    holder = [jax.device_put(jax.tree.map(jnp.copy, state), shardings[0])]
    batch = jax.device_put(batch, shardings[1])

    def step() -> tuple[float, float]:
        holder[0], metrics = compiled(holder[0], batch)
        jax.block_until_ready(holder[0])
        return float(metrics['loss']), float(metrics['grad_norm'])

    loss, norm = step()
    times = measure.repeated(step, 15, seconds=8)
    return (
        measure.spread(times)
        | {'images_per_s': 2000 * pairs * images / measure.spread(times)['ms']}
        | {'loss': loss, 'grad_norm': norm, 'compile_s': compile_seconds}
        | memory(compiled)
    )


def memory(compiled: Any = None) -> dict[str, float]:
    """Return the GiB of the process's peak so far, and of one program with its arguments."""
    peak = (jax.local_devices()[0].memory_stats() or {}).get('peak_bytes_in_use')
    found = {} if peak is None else {'peak_gib': peak / 2**30}
    if compiled is not None and (sizes := compiled.memory_analysis()) is not None:
        program = sizes.temp_size_in_bytes + sizes.argument_size_in_bytes
        program += sizes.output_size_in_bytes - sizes.alias_size_in_bytes
        found['program_gib'] = program / 2**30
    return found


@functools.cache
def predictor(precision: str, width: float, size: int) -> Predictor:
    """Return a predictor of the network, whose programs compile at first use."""
    return Predictor(network(precision, width)[1], image_size=size)


def pictures(images: int, size: int) -> np.ndarray:
    """Return random images, uint8 (images, size, size, 3)."""
    return np.random.default_rng(0).integers(0, 256, (images, size, size, 3), np.uint8)


def predict(images: int, size: int, precision: str, width: float) -> Row:
    """Time `Predictor.predict` for one group: uint8 on the host to maps on the host."""
    model, group = predictor(precision, width, size), pictures(images, size)
    start = time.perf_counter()
    model.predict(group)
    first = time.perf_counter() - start
    times = measure.repeated(lambda: model.predict(group), 10, seconds=4, warm=1)
    return measure.spread(times, images) | {'compile_s': first} | memory()


def predict_at_once(images: int, size: int, precision: str, width: float) -> Row:
    """Time the whole network as one program over the group, host to host."""
    graph, weights = nnx.split(fold(network(precision, width)[1]))
    group = pictures(images, size)

    @jax.jit
    def segment(weights: Any, images: jax.Array) -> jax.Array:
        valid = jnp.ones((1, len(images)), bool)
        return nnx.merge(graph, weights).segment(normalize(images)[None], valid).prob[0]

    start = time.perf_counter()
    compiled = segment.lower(weights, group).compile()
    seconds = time.perf_counter() - start
    weights = jax.device_put(weights)
    times = measure.repeated(lambda: np.asarray(compiled(weights, group)), 10, seconds=4)
    return measure.spread(times, images) | {'compile_s': seconds} | memory(compiled)


def similarity(images: int, dtype: str, form: str) -> Row:
    """Time one form of a group's similarity, forward and with gradients.

    `difference` is the largest difference from the einsum at the highest precision, relative to the
    largest affinity.
    """
    inputs = [jnp.asarray(x, dtype) for x in affinity.features(images)]
    row: Row = {}
    for name, function in zip(('', 'gradients_'), affinity.functions(form), strict=True):
        start = time.perf_counter()
        compiled = function.lower(*inputs).compile()
        seconds = time.perf_counter() - start
        run = functools.partial(lambda f: jax.block_until_ready(f(*inputs)), compiled)
        found = measure.spread(measure.repeated(run, 15, seconds=2))
        found |= {'compile_s': seconds} | memory(compiled)
        row |= {f'{name}{key}': value for key, value in found.items()}
    forward = affinity.functions(form)[0](*inputs)
    with jax.default_matmul_precision('highest'):
        exact = affinity.functions('einsum')[0](*(x.astype(jnp.float32) for x in inputs))
    return row | {'difference': float(jnp.abs(forward - exact).max() / jnp.abs(exact).max())}
