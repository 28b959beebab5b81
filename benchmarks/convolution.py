"""Time the network's 3 x 3 convolutions with many channels on a CPU: XLA and Winograd.

    PYTHONPATH=. python benchmarks/convolution.py [--images=1] [--keep-memory] [--passes=9]
        [--out=FILE.json]

Rows take turns within a pass. `of floor` is the floor divided by the measured time, where the floor
is the plain convolution's multiplications and additions at the rate of a large matrix product.
Winograd's form needs only 4 / 9 of the multiplications, so it may exceed 1. `--keep-memory` matches
how `train.py` runs.
"""

import argparse
import functools

import jax
import numpy as np

from benchmarks import measure
from gconet_jax.host_memory import keep_freed_memory
from gconet_jax.models.convolution import direct
from gconet_jax.models.winograd import winograd

# Layers of the backbone: height and width, channels in and out. The first three stay with XLA.
LAYERS = (
    (256, 64, 64),
    (128, 64, 128),
    (128, 128, 128),
    (64, 128, 256),
    (64, 256, 256),
    (32, 256, 512),
    (32, 512, 512),
    (16, 512, 512),
)


def main() -> None:
    """Print the table, then one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--images', type=int, default=1)
    parser.add_argument('--keep-memory', action='store_true')
    parser.add_argument('--passes', type=int, default=9)
    parser.add_argument('--out', help='a file for the JSON')
    arguments = parser.parse_args()
    if arguments.keep_memory:
        keep_freed_memory()
    rate = measure.matrix_rate()
    print(f'matrix product: {rate / 1e9:.0f} GFLOP/s')
    print(
        f'{"size, channels":16} {"XLA, ms":>8} {"of floor":>9} {"Winograd ms":>12} {"of floor":>9}'
    )
    tables = {}
    for size, inputs, outputs in LAYERS:
        table = timed(arguments.images, size, inputs, outputs, arguments.passes)
        floor = 1000 * 2 * 9 * arguments.images * size**2 * inputs * outputs / rate
        plain, ours = table['direct']['ms'], table['winograd']['ms']
        name = f'{size}, {inputs} to {outputs}'
        tables[name] = table
        print(f'{name:16} {plain:8.1f} {floor / plain:9.2f} {ours:9.1f} {floor / ours:9.2f}')
    measure.finish({'gflops': rate / 1e9, 'rows': tables}, arguments.out)


def timed(
    images: int, size: int, inputs: int, outputs: int, passes: int
) -> dict[str, dict[str, float]]:
    """Return the summaries of one layer, by form."""
    rng = np.random.default_rng(0)
    x = jax.device_put(rng.standard_normal((images, size, size, inputs), np.float32))
    kernel = jax.device_put(rng.standard_normal((3, 3, inputs, outputs), np.float32))
    rows = {
        form.__name__: functools.partial(
            lambda f: jax.block_until_ready(f(x, kernel)), jax.jit(form)
        )
        for form in (direct, winograd)
    }
    return measure.summary(measure.interleaved(rows, passes), 'direct')


if __name__ == '__main__':
    main()
