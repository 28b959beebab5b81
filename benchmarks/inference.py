"""Maps of a group: our network and the released one in PyTorch, side by side on the CPU.

    PYTHONPATH=. python benchmarks/inference.py [--images=10] [--passes=7] [--compile]

The same weights (seeded) and images in both; each row takes its turn within a pass, and the table
has the median ratio of a row to `torch, released` over the passes, for the machine may be noisy:

    ours, in chunks    `Predictor.predict`: what `predict.py` runs, memory bounded
    ours, one batch    the folded network as one program
    torch, released    PyTorch, with the pass over the masked images that inference throws away
    torch, lean        without that pass
    ..., compiled      by torch.compile, if asked for

Two threads each: PyTorch's by its setting, XLA's by the cores (taskset -c 0,1 on larger machines).
The floor is the convolutions' multiplications and additions at the rate of a large matrix product,
which is measured on the way. Needs PyTorch: pip install torch==2.13.0.
"""

# pyright: reportMissingImports=false

import argparse
import json
import statistics
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import torch
from flax import nnx

from benchmarks import torch_peer
from gconet_jax.inference.predictor import Predictor
from gconet_jax.models.gconet_plus import GCoNetPlus, normalize
from gconet_jax.weights.folding import fold
from tests import golden_cases

SIZE = 256
TOLERANCE = 1e-3  # of P between the two


def main() -> None:
    """Checks that both give the same P, then prints the table and one line of JSON."""
    parser = argparse.ArgumentParser(description='Maps of a group, ours and PyTorch, timed.')
    parser.add_argument('--images', type=int, default=10)
    parser.add_argument('--passes', type=int, default=7)
    parser.add_argument('--compile', action='store_true')
    arguments = parser.parse_args()
    torch.set_num_threads(torch_peer.THREADS)

    meta = {'seed': 0, 'h': SIZE, 'w': SIZE, 'db_scale': 1.0, 'thresh_bias': 0.0}
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (arguments.images, SIZE, SIZE, 3), np.uint8)
    model = golden_cases.released_model(meta)
    rows = ours(model, images) | theirs(golden_cases.state_dict(meta), images, arguments.compile)
    probs = {name: run() for name, run in rows.items()}  # compiled, and checked
    for name, prob in probs.items():
        error = float(np.abs(prob - probs['torch, released']).max())
        print(f'{name:24} P differs by {error:.1e} at most')
        if not error < TOLERANCE:
            raise SystemExit(f'{name} does not compute what PyTorch does')

    times: dict[str, list[float]] = {name: [] for name in rows}
    products: list[float] = []
    for _ in range(arguments.passes):
        products.append(matrix_rate())
        for name, run in rows.items():
            start = time.perf_counter()
            run()
            times[name].append(1000 * (time.perf_counter() - start) / len(images))
    report(times, statistics.median(products), flops(model))


def ours(model: GCoNetPlus, images: np.ndarray) -> dict[str, Callable[[], np.ndarray]]:
    """Our rows: each gives P (n, H, W)."""
    predictor = Predictor(model, image_size=SIZE)
    graph, weights = nnx.split(fold(model))

    @jax.jit
    def segment(weights, images):
        valid = jnp.ones((1, len(images)), bool)
        return nnx.merge(graph, weights).segment(normalize(images)[None], valid)

    return {
        'ours, in chunks': lambda: predictor.predict([images])[0].prob,
        'ours, one batch': lambda: np.asarray(segment(weights, images).prob[0]),
    }


def theirs(
    weights: dict[str, np.ndarray], images: np.ndarray, compiled: bool
) -> dict[str, Callable[[], np.ndarray]]:
    """PyTorch's rows."""
    x = torch_peer.as_nchw(np.asarray(normalize(jnp.asarray(images))))
    modules = {
        'torch, released': torch_peer.build(weights),
        'torch, lean': torch_peer.build(weights, masked_pass=False),
    }
    if compiled:
        modules |= {f'{name}, compiled': torch.compile(module) for name, module in modules.items()}

    def runner(module: torch.nn.Module) -> Callable[[], np.ndarray]:
        def run() -> np.ndarray:
            with torch.inference_mode():
                return module(x).prob[:, 0].numpy()

        return run

    return {name: runner(module) for name, module in modules.items()}


def matrix_rate(n: int = 2048) -> float:
    """Operations a second of a float32 matrix product in XLA."""
    x = jnp.ones((n, n))
    product = jax.jit(lambda a: a @ a)
    product(x).block_until_ready()
    start = time.perf_counter()
    product(x).block_until_ready()
    return 2 * n**3 / (time.perf_counter() - start)


def flops(model: GCoNetPlus) -> float:
    """Multiplications and additions of an image, as XLA counts them for a group of one."""
    graph, weights = nnx.split(fold(model))

    def segment(weights, images):
        return nnx.merge(graph, weights).segment(images, jnp.ones((1, 1), bool))

    shape = jax.ShapeDtypeStruct((1, 1, SIZE, SIZE, 3), jnp.float32)
    costs = jax.jit(segment).lower(weights, shape).cost_analysis()
    return float(costs['flops'])


def report(times: dict[str, list[float]], rate: float, operations: float) -> None:
    """The table, and one line of JSON."""
    floor = 1000 * operations / rate
    print(
        f'{operations / 1e9:.1f} GFLOP an image; matrix product {rate / 1e9:.0f} GFLOP/s: ', end=''
    )
    print(f'floor {floor:.0f} ms')
    print(
        f'{"":24} {"ms an image":>12} {"least":>8} {"most":>8} {"to released":>12} {"of floor":>9}'
    )
    table = {}
    for name, values in times.items():
        ratio = statistics.median(
            a / b for a, b in zip(values, times['torch, released'], strict=True)
        )
        median = statistics.median(values)
        table[name] = {'ms': median, 'least': min(values), 'most': max(values), 'ratio': ratio}
        print(
            f'{name:24} {median:12.0f} {min(values):8.0f} {max(values):8.0f} {ratio:12.2f}', end=''
        )
        print(f' {floor / median:9.2f}')
    versions = {'jax': jax.__version__, 'torch': torch.__version__}
    print(json.dumps(versions | {'gflop': operations / 1e9, 'gflops': rate / 1e9, 'rows': table}))


if __name__ == '__main__':
    main()
