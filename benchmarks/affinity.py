"""Time and memory of the forms of a group's similarity, forward and with gradients.

    PYTHONPATH=. python benchmarks/affinity.py [--images=4,8,16,32] [--large=256] [--torch]
        [--bfloat16] [--passes=7] [--out=FILE.json]

The input is one group of N images of 16 x 16 positions with 512 features. Rows take turns within a
pass.

The floor is the product of queries and keys, 2 (N·256)² 512 operations, at the rate of a large
matrix product measured in the same run. Gradients only need the positions of the maxima, which adds
a negligible 8 N² 256·512 operations. For comparison, the table gives the time in which a large copy
would move the bytes of queries, keys and maxima, and those of the matrix, written once and read
once.

`peak` is the memory of a separate process that computes the gradients once; `before` is the part in
use when its inputs are ready. On GPUs the kernel is a row, and `--torch` adds PyTorch's (CPU: pip
install torch==2.13.0).
"""

# pyright: reportMissingImports=false

import argparse
import functools
import multiprocessing
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import measure
from gconet_jax.affinity import group_affinity

POSITIONS, FEATURES = 256, 512
EINSUM_LIMIT = 64  # images; above this, only the forms that do not store the matrix run


def main() -> None:
    """Print the tables, then one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--images', default='4,8,16,32')
    parser.add_argument('--large', type=int, default=256, help='N of the run for its memory; 0: no')
    parser.add_argument('--torch', action='store_true')
    parser.add_argument('--bfloat16', action='store_true')
    parser.add_argument('--passes', type=int, default=7)
    parser.add_argument('--out', help='a file for the JSON')
    arguments = parser.parse_args()
    dtype = 'bfloat16' if arguments.bfloat16 else 'float32'
    rate = measure.matrix_rate(dtype=dtype)
    copy = measure.copy_rate()
    print(f'matrix product: {rate / 1e9:.0f} GFLOP/s, copy: {copy / 1e9:.1f} GB/s')
    print(f'{"N":>4} {"form":10} {"forward ms":>11} {"of floor":>9} {"gradients ms":>13} ', end='')
    print(f'{"of floor":>9} {"to einsum":>10}')
    tables = {}
    for n in map(int, arguments.images.split(',')):
        floor = 1000 * operations(n) / rate
        needed, matrix = bytes_moved(n, dtype)
        print(
            f'{n:4} floor {floor:.1f} ms; {needed / 1e6:.0f} MB: {1000 * needed / copy:.1f} ms; '
            f'matrix, {matrix / 1e6:.0f} MB: {1000 * matrix / copy:.1f} ms'
        )
        tables[n] = timed(n, dtype, arguments.passes, arguments.torch)
        for form, (forward, gradients) in tables[n].items():
            print(
                f'{n:4} {form:10} {forward["ms"]:11.1f} {floor / forward["ms"]:9.2f} '
                f'{gradients["ms"]:13.1f} {floor / gradients["ms"]:9.2f} {gradients["ratio"]:10.2f}'
            )
    peaks = {}
    if arguments.large:
        for form in forms(arguments.large):
            peaks[form] = peak = in_a_process(form, arguments.large, dtype)
            print(
                f'N = {arguments.large}, {form}, with gradients: {peak["seconds"]:.1f} s, '
                f'peak {peak["peak_mb"]:.0f} MB, before {peak["before_mb"]:.0f} MB'
            )
    rates = {'gflops': rate / 1e9, 'copy_gb_per_s': copy / 1e9}
    setting = {'dtype': dtype, 'passes': arguments.passes}
    measure.finish(setting | rates | {'rows': tables, 'large': peaks}, arguments.out)


def operations(n: int) -> float:
    """Return the operations of the product of queries and keys."""
    return 2 * (n * POSITIONS) ** 2 * FEATURES


def bytes_moved(n: int, dtype: str) -> tuple[int, int]:
    """Return the bytes of queries, keys and maxima, and of the matrix, written and read."""
    positions = n * POSITIONS
    inputs = 2 * positions * FEATURES * jnp.dtype(dtype).itemsize
    return inputs + 4 * positions * n, 2 * 4 * positions**2


def forms(n: int) -> list[str]:
    """Return the forms that are practical here."""
    gpu = jax.default_backend() == 'gpu'
    return ['einsum'] * (n <= EINSUM_LIMIT) + ['blockwise'] + ['pallas'] * gpu


def timed(n: int, dtype: str, passes: int, with_torch: bool) -> dict[str, list[dict[str, float]]]:
    """Return, for each form, the summaries of the forward pass and of the gradients."""
    query, key = features(n)
    x = jnp.asarray(query, dtype), jnp.asarray(key, dtype)
    ways: tuple[dict[str, Callable[[], Any]], ...] = {}, {}
    for form in forms(n):
        for way, function in zip(ways, functions(form), strict=True):
            way[form] = functools.partial(lambda f: jax.block_until_ready(f(*x)), function)
    if with_torch:
        for way, run in zip(ways, torch_functions(query, key, dtype), strict=True):
            way['torch'] = run
    both = [measure.summary(measure.interleaved(way, passes), forms(n)[0]) for way in ways]
    return {form: [table[form] for table in both] for form in both[0]}


def features(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Return queries and keys (1, n, POSITIONS, FEATURES)."""
    rng = np.random.default_rng(0)
    shape = (1, n, POSITIONS, FEATURES)
    return rng.standard_normal(shape, np.float32), rng.standard_normal(shape, np.float32)


def functions(form: str) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Return the similarity, and the gradients of the sum of its squares."""

    def affinity(query: jax.Array, key: jax.Array) -> jax.Array:
        return group_affinity(query, key, jnp.ones(query.shape[:2], bool), form)

    def total(query: jax.Array, key: jax.Array) -> jax.Array:
        return jnp.square(affinity(query, key)).sum()

    return jax.jit(affinity), jax.jit(jax.grad(total, (0, 1)))


def torch_functions(
    query: np.ndarray,
    key: np.ndarray,
    dtype: str,
    *,
    device: str = 'cpu',
    compiled: bool = False,
) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """Return the same functions in PyTorch; on a GPU the caller synchronises."""
    import torch

    torch.set_num_threads(2)
    kind = getattr(torch, dtype)
    q, k = (torch.from_numpy(x[0]).to(device, kind).requires_grad_() for x in (query, key))

    def affinity(q: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
        n = len(q)
        similarity = q.flatten(0, 1) @ k.flatten(0, 1).T
        return similarity.view(n * POSITIONS, n, POSITIONS).amax(dim=2).mean(dim=1)

    run = torch.compile(affinity, dynamic=False) if compiled else affinity

    def forward() -> torch.Tensor:
        with torch.no_grad():
            return run(q, k)

    return forward, lambda: torch.autograd.grad(run(q, k).square().sum(), (q, k))


def in_a_process(form: str, n: int, dtype: str) -> dict[str, float]:
    """Return seconds and memory of the gradients for n images."""
    with multiprocessing.get_context('spawn').Pool(1) as pool:
        return pool.apply(_gradients_once, (form, n, dtype))


def _gradients_once(form: str, n: int, dtype: str) -> dict[str, float]:
    # Create the inputs in place: the memory of a second copy would hide that of the computation.
    keys = jax.random.split(jax.random.key(0))
    shape = (1, n, POSITIONS, FEATURES)
    query, key = (jax.block_until_ready(jax.random.normal(k, shape, dtype)) for k in keys)
    gradients = functions(form)[1]
    compiled = gradients.lower(query, key).compile()
    before = _peak_mb()
    start = time.perf_counter()
    jax.block_until_ready(compiled(query, key))
    seconds = time.perf_counter() - start
    return {'seconds': seconds, 'peak_mb': _peak_mb(), 'before_mb': before}


def _peak_mb() -> float:
    # getrusage would not do: a process starts with the peak of the one that spawned it.
    status = Path('/proc/self/status').read_text()
    return int(status.split('VmHWM:')[1].split()[0]) * 1024 / 1e6


if __name__ == '__main__':
    main()
