"""Errors of our network against the stored outputs of the released code, by precision.

It runs the cases of `tests/golden`; `tests/test_parity.py` checks float32 against bounds.
"""

import contextlib
import dataclasses
import functools
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from gconet_jax.config import Config
from gconet_jax.models.layers import with_running_average
from gconet_jax.training import state as train_state
from gconet_jax.training.step import gradients
from gconet_jax.weights import torch_gconet
from tests import golden_cases

PRECISIONS = ('highest', 'default', 'bfloat16')  # the float32 default on GPUs is TF32
LOSSES = {
    'total': 'loss',
    'bce': 'bce',
    'iou_sum': 'iou',
    'triplet': 'gst',
    'cls': 'acm',
    'cls_mask': 'racm',
    'contrast': 'gcm',
}
# Programs that run once do not need the search for the fastest kernels, which takes most of the
# compile time.
ONCE = {'xla_gpu_autotune_level': 0}


def evaluation(case: str, precision: str) -> dict[str, Any]:
    """Return the errors of x5, P, T and the map of an eval case."""
    meta, golden = golden_cases.load(_path(case))
    model = golden_cases.released_model(meta, _config(meta, precision).model)
    graph, weights = nnx.split(with_running_average(model))
    images, valid = golden_cases.images(meta, meta['n'])[None], jnp.ones((1, meta['n']), bool)

    @functools.partial(jax.jit, compiler_options=ONCE)
    def run(weights: Any, images: jax.Array) -> tuple[jax.Array, Any]:
        model = nnx.merge(graph, weights)
        return model.encode(images, valid)[-1], model.segment(images, valid)

    start = time.perf_counter()
    with _computing(precision):
        x5, maps = jax.block_until_ready(run(weights, images))
    seconds = time.perf_counter() - start
    x5 = np.asarray(x5, np.float32).transpose(0, 3, 1, 2)[:, ::16]
    pred = np.abs(np.asarray(jax.nn.sigmoid(maps.logits[0])) - golden['pred'][:, 0])
    quarter = np.s_[0, :, ::4, ::4]
    return {
        'compile_s': seconds,
        'x5_relative': _largest(x5, golden['x5']) / float(np.abs(golden['x5']).max()),
        'prob': _largest(maps.prob[quarter], golden['prob'][:, 0]),
        'thresh': _largest(maps.thresh[quarter], golden['thresh'][:, 0]),
        'map': float(pred.max()),
        'map_share_off': float((pred > 1e-2).mean()),
        'k_as_expected': bool(maps.fell_back) == meta['fallback'],
    }


def training(case: str, precision: str) -> dict[str, Any]:
    """Return the relative errors of the losses and the gradient norms of a train case."""
    meta, golden = golden_cases.load(_path(case))
    config = _config(meta, precision)
    graph, state = train_state.create(golden_cases.released_model(meta, config.model), config)
    start = time.perf_counter()
    with _computing(precision):
        grads, metrics, _ = _gradients(graph, config, state, golden_cases.pair_batch(meta))
    jax.block_until_ready(grads)
    seconds = time.perf_counter() - start
    expected = json.loads(str(golden['losses']))
    losses = {
        f'{LOSSES[name]}_relative': abs(float(metrics[LOSSES[name]]) / value - 1)
        for name, value in expected.items()
    }
    zeros = [jax.tree.map(jnp.zeros_like, part) for part in (state.frozen, state.batch_stats)]
    named = torch_gconet.variables(nnx.merge(graph, grads, *zeros))
    names = json.loads(str(golden['grad_names']))
    norms = np.array([np.linalg.norm(np.asarray(named[name][...]).ravel()) for name in names])
    norm = golden['grad_norms']
    large = norm > 1e-4 * norm.max()  # the others are only rounding
    errors = (np.abs(norms - norm) / np.maximum(norm, 1e-30))[large]
    return {
        'compile_s': seconds,
        **losses,
        'gradient_norms_90': float(np.quantile(errors, 0.9)),
        'gradient_norms_most': float(errors.max()),
        'k_as_expected': bool(metrics['k_fell_back']) == meta['fallback'],
    }


_gradients = jax.jit(gradients, static_argnums=(0, 1), compiler_options=ONCE)


def _path(case: str) -> Path:
    return golden_cases.GOLDEN / f'{case}.npz'


def _config(meta: dict, precision: str) -> Config:
    config = golden_cases.released_config(meta)
    kind = 'bfloat16' if precision == 'bfloat16' else 'float32'
    return dataclasses.replace(config, model=dataclasses.replace(config.model, precision=kind))


@contextlib.contextmanager
def _computing(precision: str) -> Iterator[None]:
    with jax.default_matmul_precision('highest' if precision == 'highest' else 'default'):
        yield


def _largest(actual: Any, expected: np.ndarray) -> float:
    return float(np.abs(np.asarray(actual) - expected).max())
