"""Time the decoder's bilinear resizes, as products with two small matrices and as gathers.

    PYTHONPATH=. python benchmarks/resize.py [--images=8] [--passes=9] [--out=FILE.json]

The rows are the resizes of a forward pass over images of 256 x 256; the forms take turns. `of copy`
is the time of reading the input and writing the output once, at the rate of a large copy, divided
by the measured time.
"""

import argparse
from collections.abc import Callable
from typing import Any

import jax

from benchmarks import measure
from gconet_jax.interpolation import interpolation_matrix
from gconet_jax.models.resize import gathered, multiplied

SIZES = {16: 256, 32: 128, 64: 64, 128: 32}  # height and width, to be doubled -> channels


def main() -> None:
    """Print the table, then one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--images', type=int, default=8)
    parser.add_argument('--passes', type=int, default=9)
    parser.add_argument('--out', help='a file for the JSON')
    arguments = parser.parse_args()
    copy = measure.copy_rate()
    print(f'copy: {copy / 1e9:.1f} GB/s')
    print(f'{"size":>5} {"channels":>8} {"":10} {"ms":>8} {"of copy":>8} {"to product":>11}')
    tables = {}
    for size, channels in SIZES.items():
        x = jax.random.normal(jax.random.key(0), (arguments.images, size, size, channels))
        bound = 1000 * 5 * x.nbytes / copy  # the output is four times the input
        rows = {form.__name__: doubled(form, x) for form in (multiplied, gathered)}
        tables[size] = measure.summary(measure.interleaved(rows, arguments.passes), 'multiplied')
        for name, row in tables[size].items():
            print(
                f'{size:5} {channels:8} {name:10} {row["ms"]:8.2f} {bound / row["ms"]:8.2f} '
                f'{row["ratio"]:11.2f}'
            )
    measure.finish({'copy_gb_per_s': copy / 1e9, 'rows': tables}, arguments.out)


def doubled(form: Callable[..., jax.Array], x: jax.Array) -> Callable[[], Any]:
    """Return a function that doubles x along both axes with `form`."""
    matrix = interpolation_matrix(x.shape[1], 2 * x.shape[1])
    run = jax.jit(lambda x: form(form(x, 1, matrix), 2, matrix))
    return lambda: jax.block_until_ready(run(x))


if __name__ == '__main__':
    main()
