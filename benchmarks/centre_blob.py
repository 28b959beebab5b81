"""A baseline that ignores the image: the same centred blob as the map of every image.

    python benchmarks/centre_blob.py ROOT SET OUT [--include='SET/cat,SET/dog']
    python evaluate.py --maps=OUT --root=ROOT --sets=SET [--include=...]

The blob is a Gaussian whose standard deviation is a quarter of each side of the image.
"""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

from gconet_jax.input_pipeline.files import size_of
from gconet_jax.input_pipeline.groups import load_groups, select

DEVIATION = 0.25  # fraction of a side


def blob(width: int, height: int) -> np.ndarray:
    """Return the blob, (height, width) uint8, 255 in the middle."""
    x = (np.arange(width) + 0.5) / width - 0.5
    y = (np.arange(height) + 0.5) / height - 0.5
    distance = (x[None, :] / DEVIATION) ** 2 + (y[:, None] / DEVIATION) ** 2
    return (255 * np.exp(-distance / 2)).astype(np.uint8)


def main() -> None:
    """Write OUT/<set>/<group>/<name>.png."""
    parser = argparse.ArgumentParser(description='Writes centred blobs as maps.')
    parser.add_argument('root', type=Path)
    parser.add_argument('set')
    parser.add_argument('out', type=Path)
    parser.add_argument('--include', default='*', help='patterns of <set>/<group>')
    arguments = parser.parse_args()
    groups = load_groups(arguments.root, arguments.set)
    for group in select(groups, include=tuple(arguments.include.split(','))):
        folder = arguments.out / arguments.set / group.name
        folder.mkdir(parents=True, exist_ok=True)
        for path in group.images:
            Image.fromarray(blob(*size_of(path))).save(folder / f'{path.stem}.png')


if __name__ == '__main__':
    main()
