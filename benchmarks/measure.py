"""Shared code of the benchmarks: interleaved timing, and the rates of the machine itself."""

import json
import math
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from gconet_jax.whole_file import whole_file


def interleaved(rows: Mapping[str, Callable[[], Any]], passes: int) -> dict[str, list[float]]:
    """Return the seconds of `passes` calls of every row; rows take turns after one warm-up call.

    A row must wait for its own result, as `jax.block_until_ready` does.
    """
    times: dict[str, list[float]] = {name: [] for name in rows}
    for count in range(passes + 1):
        for name, run in rows.items():
            start = time.perf_counter()
            run()
            if count:
                times[name].append(time.perf_counter() - start)
    return times


def summary(times: Mapping[str, list[float]], reference: str) -> dict[str, dict[str, float]]:
    """Return median, minimum and maximum milliseconds, and the median ratio to `reference`.

    Ratios are taken within a pass.
    """
    return {
        name: {
            'ms': 1000 * statistics.median(values),
            'least': 1000 * min(values),
            'most': 1000 * max(values),
            'ratio': statistics.median(
                a / b for a, b in zip(values, times[reference], strict=True)
            ),
        }
        for name, values in times.items()
    }


def repeated(
    run: Callable[[], Any], calls: int = 10, *, seconds: float = 4.0, warm: int = 2
) -> list[float]:
    """Return the seconds of each of `calls` calls after `warm` untimed ones.

    This stops early, after at least three calls, once they took `seconds` in total. `run` must wait
    for its own result.
    """
    for _ in range(warm):
        run()
    times: list[float] = []
    while len(times) < calls and (len(times) < 3 or sum(times) < seconds):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return times


def spread(times: list[float], units: int = 1) -> dict[str, float]:
    """Return median, minimum and maximum milliseconds per unit, and the number of calls."""
    scale = 1000 / units
    return {
        'ms': scale * statistics.median(times),
        'least': scale * min(times),
        'most': scale * max(times),
        'calls': len(times),
    }


def matrix_rate(
    n: int = 2048,
    dtype: Any = jnp.float32,
    *,
    precision: str | None = None,
    products: int = 1,
) -> float:
    """Return the operations per second of an n x n matrix product: the median of seven.

    The matrix is random, because products of constants draw less power and run faster. On
    accelerators one program computes several `products` in sequence, so that its launch does not
    count.
    """
    x = jax.random.normal(jax.random.key(0), (n, n), dtype) / n**0.5
    product = jax.jit(
        lambda a: jax.lax.fori_loop(
            0, products, lambda _, b: jnp.matmul(a, b, precision=precision), a
        )
    )
    times = interleaved({'': lambda: product(x).block_until_ready()}, 7)['']
    return products * 2 * n**3 / statistics.median(times)


def copy_rate(megabytes: int = 256) -> float:
    """Return the bytes per second, read and written, of a copy larger than any cache.

    The result is the median of seven.
    """
    x = jnp.ones(megabytes * 2**18, jnp.float32)
    copy = jax.jit(lambda a: a + 1)  # a plain copy would be optimised away
    times = interleaved({'': lambda: copy(x).block_until_ready()}, 7)['']
    return 2 * x.nbytes / statistics.median(times)


def convolution_flops(jaxpr: Any) -> int:
    """Return the multiplications and additions of the convolutions of a jaxpr.

    Padding counts as pixels, a loop counts once per iteration, and of several branches the largest
    counts.
    """
    total = 0
    for equation in jaxpr.eqns:
        if equation.primitive.name == 'conv_general_dilated':
            kernel = equation.invars[1].aval.shape
            outputs = kernel[equation.params['dimension_numbers'].rhs_spec[0]]
            total += 2 * equation.outvars[0].aval.size * math.prod(kernel) // outputs
            continue
        inner = [convolution_flops(each) for each in _inner_jaxprs(equation.params)]
        if inner:
            largest = max(inner) if equation.primitive.name == 'cond' else sum(inner)
            total += largest * equation.params.get('length', 1)
    return total


def _inner_jaxprs(params: Mapping[str, Any]) -> Iterator[Any]:
    for value in params.values():
        for each in value if isinstance(value, tuple) else (value,):
            inner = getattr(each, 'jaxpr', each)
            if hasattr(inner, 'eqns'):
                yield inner


def machine() -> dict[str, Any]:
    """Return where and with what this was measured."""
    device = jax.devices()[0]
    cores = len(os.sched_getaffinity(0))
    return {
        'device': device.device_kind,
        'cores': cores,
        'jax': jax.__version__,
        'python': platform.python_version(),
    }


def finish(result: Mapping[str, Any], out: str | None) -> None:
    """Print one line of JSON, and write it to `out` if given."""
    line = json.dumps(machine() | result)
    print(line)
    if out:
        with whole_file(Path(out)) as partial:
            partial.write_text(line + '\n')
