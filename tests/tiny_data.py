"""Tiny data sets on disk, in the authors' layout."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from gconet_jax.input_pipeline.groups import Group


def write_set(
    root: Path,
    dataset: str,
    groups: Mapping[str, int],
    size: tuple[int, int] = (24, 20),
    seed: int = 0,
) -> None:
    """Write groups of random images, each with a grey-edged disc as its mask.

    Args:
        root: folder for images/<dataset>/<group>/<i>.jpg and gts/<dataset>/<group>/<i>.png.
        dataset: name of the set.
        groups: number of images per group, by name.
        size: (width, height), pixels.
        seed: seed of the images and discs.
    """
    rng = np.random.default_rng(seed)
    width, height = size
    y, x = np.mgrid[:height, :width]
    for group, count in groups.items():
        images, masks = root / 'images' / dataset / group, root / 'gts' / dataset / group
        images.mkdir(parents=True)
        masks.mkdir(parents=True)
        for i in range(count):
            image = rng.integers(0, 256, (height, width, 3), np.uint8)
            Image.fromarray(image).save(images / f'{i:02}.jpg')
            centre_x, centre_y = rng.uniform(0.3, 0.7, 2) * size
            distance = np.hypot(x - centre_x, y - centre_y)
            mask = np.clip(255 * (min(size) / 3 - distance), 0, 255).astype(np.uint8)
            Image.fromarray(mask).save(masks / f'{i:02}.png')


def write_maps(folder: Path, groups: Sequence[Group], seed: int) -> None:
    """Write `<folder>/<group>/<name>.png`: dimmed masks with noise, 8-bit."""
    rng = np.random.default_rng(seed)
    for group in groups:
        for mask in group.masks:
            with Image.open(mask) as image:
                truth = np.asarray(image, float)
            noisy = np.clip(truth * 0.7 + rng.uniform(0, 80, truth.shape), 0, 255)
            path = folder / group.name / f'{mask.stem}.png'
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(noisy.astype(np.uint8)).save(path)
