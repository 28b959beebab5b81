"""Rows of accelerator.py that run the released network in PyTorch; each function measures one.

PyTorch is imported inside the functions, so that the other rows run without it.
"""

# pyright: reportMissingImports=false

import functools
import time
from collections.abc import Callable
from typing import Any

import jax

from benchmarks import affinity, measure
from benchmarks.accelerator_ours import SMALL, Row, pictures
from tests import golden_cases


def device() -> str:
    """Return PyTorch's device, and keep JAX in this process off the accelerator."""
    import torch

    jax.config.update('jax_platforms', 'cpu')
    return 'cuda' if torch.cuda.is_available() else 'cpu'


def versions() -> Row:
    """Start PyTorch and return its version and device."""
    import torch

    found = device()
    torch.ones(1, device=found)
    return {'torch': torch.__version__, 'device': found, 'cuda': torch.version.cuda}


@functools.cache
def weights() -> Any:
    """Return the golden cases' weights by their released names."""
    return golden_cases.state_dict(SMALL)


def setting(precision: str, compiled: bool) -> Any:
    """Return the setting for this process's device."""
    from benchmarks.torch_setting import Setting

    return Setting(device(), precision, compiled)


def train_step(pairs: int, images: int, size: int, precision: str, compiled: bool) -> Row:
    """Time the released training step, with the batch on the device."""
    chosen = setting(precision, compiled)
    from benchmarks.torch_step import make_step

    meta = SMALL | {'n': images, 'h': size, 'w': size}
    config = golden_cases.released_config(meta)
    batch = golden_cases.pair_batch(meta)

    def prepare() -> Callable[[], tuple[float, float]]:
        return make_step(weights(), batch, config, chosen, pairs)

    return timed(prepare, 1, {'calls': 15, 'seconds': 8}) | {'images': images}


def predict(images: int, size: int, precision: str, compiled: bool) -> Row:
    """Time the maps of one group: uint8 on the host to maps on the host."""
    chosen = setting(precision, compiled)
    from benchmarks.torch_setting import segmenter

    group = pictures(images, size)

    def prepare() -> Callable[[], Any]:
        return functools.partial(segmenter(weights(), chosen), group)

    return timed(prepare, images, {'calls': 10, 'seconds': 4})


def similarity(images: int, dtype: str, compiled: bool) -> Row:
    """Time the similarity of a group, forward and with gradients."""
    from benchmarks.torch_setting import prepare

    prepare(setting(dtype, compiled))
    inputs = affinity.features(images)
    functions = affinity.torch_functions(*inputs, dtype, device=device(), compiled=compiled)
    row: Row = {}
    for name, function in zip(('', 'gradients_'), functions, strict=True):
        found = timed(lambda function=function: function, 1, {'calls': 15, 'seconds': 2})
        row |= {f'{name}{key}': value for key, value in found.items()}
    return row


def timed(prepare: Callable[[], Callable[[], Any]], units: int, limits: dict[str, Any]) -> Row:
    """Time the function that `prepare` returns; also report its first call and its peak memory."""
    import torch

    on_gpu = torch.cuda.is_available()
    if on_gpu:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    run = prepare()

    def once() -> Any:
        result = run()
        if on_gpu:
            torch.cuda.synchronize()
        return result

    start = time.perf_counter()
    result = once()
    row: Row = {'compile_s': time.perf_counter() - start}
    if isinstance(result, tuple) and isinstance(result[0], float):
        row |= {'loss': result[0], 'grad_norm': result[1]}
    row |= measure.spread(measure.repeated(once, **limits), units)
    if on_gpu:
        row['peak_gib'] = torch.cuda.max_memory_allocated() / 2**30
    return row
