"""Measure memory and time of one large group: the whole network with random weights.

    python benchmarks/large_groups.py [--images=300] [--size=256] [--chunk=1]

This prints the peak resident memory above the model and the decoded images, and seconds per image.
To compare the maps with those of another `--chunk`, pass `--against=FILE.npy`, which an earlier run
wrote with `--out`.
"""

import argparse
import resource
import time
from pathlib import Path

import numpy as np
from flax import nnx

from gconet_jax.config import ModelConfig
from gconet_jax.inference.predictor import Predictor
from gconet_jax.models.gconet_plus import GCoNetPlus


def resident_bytes() -> int:
    """Return the current resident memory, in bytes."""
    pages = int(Path('/proc/self/statm').read_text().split()[1])
    return pages * resource.getpagesize()


def main() -> None:
    """Print one line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--images', type=int, default=300)
    parser.add_argument('--size', type=int, default=256)
    parser.add_argument('--chunk', type=int, default=1)
    parser.add_argument('--out', type=Path)
    parser.add_argument('--against', type=Path)
    arguments = parser.parse_args()
    model = GCoNetPlus(ModelConfig(), rngs=nnx.Rngs(0))
    predictor = Predictor(model, image_size=arguments.size, chunk=arguments.chunk)
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (arguments.images, 8, 8, 3), np.uint8)
    images = coarse.repeat(arguments.size // 8, axis=1).repeat(arguments.size // 8, axis=2)
    before = resident_bytes()
    start = time.perf_counter()
    prediction = predictor.predict(images)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before
    print(
        f'{arguments.images} images of {arguments.size}, {arguments.chunk} at once: peak '
        f'{peak / 1e9:.2f} GB, {seconds:.0f} s, {seconds / arguments.images:.2f} s an image '
        '(with compilation)'
    )
    if arguments.out:
        np.save(arguments.out, prediction.prob)
    if arguments.against:
        difference = np.abs(prediction.prob - np.load(arguments.against)).max()
        print(f'largest difference of P: {difference:.1e}')


if __name__ == '__main__':
    main()
