"""Time the maps of a group on the CPU: our network next to the released one in PyTorch.

    PYTHONPATH=. python benchmarks/inference.py [--images=10] [--passes=7] [--compile]
        [--out=FILE.json]

Both use the same seeded weights and the same images. Rows take turns within a pass. The table has
the median over the passes of each row's ratio to `torch, released`, because the machine may be
noisy:

    ours, in chunks    `Predictor.predict`: what `predict.py` runs, memory bounded
    ours, one batch    the folded network as one program
    torch, released    PyTorch, with the pass over the masked images that inference discards
    torch, lean        without that pass
    ..., compiled      by torch.compile, with --compile

Each uses two threads: PyTorch by its setting, XLA by the cores (taskset -c 0,1 on larger machines).
The floor is the multiplications and additions of plain convolutions at the rate of a large matrix
product measured in the same run; some of our convolutions multiply less. The table also gives what
the parts of the compiled program for one image read and write, at the rate of a large copy. This
needs PyTorch: pip install torch==2.13.0.
"""

# pyright: reportMissingImports=false

import argparse
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np
import torch
from flax import nnx

from benchmarks import measure, torch_peer
from gconet_jax.inference.predictor import Predictor
from gconet_jax.models.gconet_plus import GCoNetPlus, normalize
from gconet_jax.weights.folding import fold
from tests import golden_cases

SIZE = 256
TOLERANCE = 1e-3  # largest difference of P between the two


def main() -> None:
    """Check that both give the same P, then print the table and one line of JSON."""
    parser = argparse.ArgumentParser(description='Maps of a group, ours and PyTorch, timed.')
    parser.add_argument('--images', type=int, default=10)
    parser.add_argument('--passes', type=int, default=7)
    parser.add_argument('--compile', action='store_true')
    parser.add_argument('--out', help='a file for the JSON')
    arguments = parser.parse_args()
    torch.set_num_threads(torch_peer.THREADS)

    meta = {'seed': 0, 'h': SIZE, 'w': SIZE, 'db_scale': 1.0, 'thresh_bias': 0.0}
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (arguments.images, SIZE, SIZE, 3), np.uint8)
    model = golden_cases.released_model(meta)
    theirs = torch_peer.runners(
        golden_cases.state_dict(meta), np.asarray(normalize(jnp.asarray(images))), arguments.compile
    )
    rows = ours(model, images) | {f'torch, {name}': run for name, run in theirs.items()}
    probs = {name: run() for name, run in rows.items()}  # also compiles each row
    for name, prob in probs.items():
        error = float(np.abs(prob - probs['torch, released']).max())
        print(f'{name:24} P differs by {error:.1e} at most')
        if not error < TOLERANCE:
            raise SystemExit(f'{name} does not compute what PyTorch does')

    times = measure.interleaved(rows, arguments.passes)
    each = {name: [x / len(images) for x in values] for name, values in times.items()}
    report(each, costs_of(model), arguments.out)


def ours(model: GCoNetPlus, images: np.ndarray) -> dict[str, Callable[[], np.ndarray]]:
    """Return our rows; each returns P (n, H, W)."""
    predictor = Predictor(model, image_size=SIZE)
    graph, weights = nnx.split(fold(model))

    @jax.jit
    def segment(weights, images):
        valid = jnp.ones((1, len(images)), bool)
        return nnx.merge(graph, weights).segment(normalize(images)[None], valid)

    return {
        'ours, in chunks': lambda: predictor.predict(images).prob,
        'ours, one batch': lambda: np.asarray(segment(weights, images).prob[0]),
    }


def costs_of(model: GCoNetPlus) -> dict[str, float]:
    """Return XLA's costs for a group of one image, and the rates of the machine."""
    graph, weights = nnx.split(fold(model))

    def segment(weights, images):
        return nnx.merge(graph, weights).segment(images, jnp.ones((1, 1), bool))

    shape = jax.ShapeDtypeStruct((1, 1, SIZE, SIZE, 3), jnp.float32)
    traced = jax.jit(segment).trace(weights, shape)
    lowered, plain = traced.lower(), traced.lower(lowering_platforms=('cuda',))
    return {
        'gflop': plain.cost_analysis()['flops'] / 1e9,
        'our_gflop': lowered.cost_analysis()['flops'] / 1e9,
        'gigabytes': lowered.compile().cost_analysis()['bytes accessed'] / 1e9,
        'gflops': measure.matrix_rate() / 1e9,
        'copy_gb_per_s': measure.copy_rate() / 1e9,
    }


def report(times: Mapping[str, list[float]], costs: Mapping[str, float], out: str | None) -> None:
    """Print the table and one line of JSON; `times` are seconds per image."""
    floor = 1000 * costs['gflop'] / costs['gflops']
    print(
        f'{costs["gflop"]:.1f} GFLOP an image, ours {costs["our_gflop"]:.1f}; matrix product '
        f'{costs["gflops"]:.0f} GFLOP/s: floor {floor:.0f} ms; {costs["gigabytes"]:.2f} GB, copy '
        f'{costs["copy_gb_per_s"]:.1f} GB/s: '
        f'{1000 * costs["gigabytes"] / costs["copy_gb_per_s"]:.0f} ms'
    )
    print(
        f'{"":24} {"ms an image":>12} {"least":>8} {"most":>8} {"to released":>12} {"of floor":>9}'
    )
    table = measure.summary(times, 'torch, released')
    for name, row in table.items():
        print(
            f'{name:24} {row["ms"]:12.0f} {row["least"]:8.0f} {row["most"]:8.0f} '
            f'{row["ratio"]:12.2f} {floor / row["ms"]:9.2f}'
        )
    measure.finish({'torch': torch.__version__} | dict(costs) | {'rows': table}, out)


if __name__ == '__main__':
    main()
