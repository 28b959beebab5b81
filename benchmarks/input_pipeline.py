"""Measure images per second through the input pipeline, next to the released code.

    PYTHONPATH=. python benchmarks/input_pipeline.py [--images=128] [--side=400] [--out=FILE.json]

The images are generated: JPEGs of about `side` x 3/4 `side` with PNG masks, read at 256 x 256:

    released   PIL for each image: open, flip, rotate, enhance, resize, to float; one core
    files      ours from the files, decoded and resized; one core (the device does the rest)
    cache      ours from the cache, as whole training batches of two groups of 16, in one process
    iterator   the same through the training iterator, with Grain's read-ahead

Each is the median of several passes. Rows do not take turns, because Grain would read ahead for the
last row while others run.
"""

import argparse
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageEnhance

from benchmarks import measure
from gconet_jax.config import DataConfig
from gconet_jax.input_pipeline.groups import Group, load_groups
from gconet_jax.input_pipeline.loader import make_train_iterator
from gconet_jax.input_pipeline.pixels import Decoder
from gconet_jax.input_pipeline.sets import training_sets
from gconet_jax.models.gconet_plus import IMAGE_MEAN, IMAGE_STD

SIZE = 256
GROUPS = 8
N = 16
PASSES = 5


def make_set(root: Path, images: int, side: int) -> None:
    """Generate smooth colours with noise, as JPEGs of about the size of photographs."""
    rng = np.random.default_rng(0)
    height = 3 * side // 4
    for i in range(images):
        for kind, suffix in (('images', 'jpg'), ('gts', 'png')):
            (root / kind / 'made' / f'{i % GROUPS}').mkdir(parents=True, exist_ok=True)
            path = root / kind / 'made' / f'{i % GROUPS}' / f'{i:04}.{suffix}'
            coarse = Image.fromarray(rng.integers(0, 256, (12, 16, 3), np.uint8))
            smooth = coarse.resize((side, height), Image.Resampling.BICUBIC)
            picture = np.asarray(smooth).astype(int)
            if suffix == 'jpg':
                picture += rng.integers(-12, 13, picture.shape)
                Image.fromarray(np.clip(picture, 0, 255).astype(np.uint8)).save(path, quality=90)
            else:
                Image.fromarray(np.where(picture[..., 0] > 128, 255, 0).astype(np.uint8)).save(path)


def released_way(image_path: Path, mask_path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Process an image and its mask as the released code does on the host."""
    image, mask = Image.open(image_path).convert('RGB'), Image.open(mask_path).convert('L')
    if random.random() > 0.5:
        image, mask = (x.transpose(Image.Transpose.FLIP_LEFT_RIGHT) for x in (image, mask))
    if random.random() > 0.8:
        angle = random.randint(-15, 14)
        image, mask = (x.rotate(angle, Image.Resampling.BICUBIC) for x in (image, mask))
    for enhance, low, high in (
        (ImageEnhance.Brightness, 5, 15),
        (ImageEnhance.Contrast, 5, 15),
        (ImageEnhance.Color, 0, 20),
        (ImageEnhance.Sharpness, 0, 30),
    ):
        image = enhance(image).enhance(random.randint(low, high) / 10)
    image, mask = (x.resize((SIZE, SIZE), Image.Resampling.BILINEAR) for x in (image, mask))
    pixels = (np.asarray(image, np.float32) / 255 - IMAGE_MEAN) / IMAGE_STD
    return pixels.transpose(2, 0, 1).copy(), np.asarray(mask, np.float32)[None] / 255


def rate(work: Callable[[], int]) -> list[float]:
    """Return median, minimum and maximum images per second; `work` returns how many it read."""
    rates = []
    for _ in range(PASSES):
        start = time.perf_counter()
        rates.append(work() / (time.perf_counter() - start))
    return [statistics.median(rates), min(rates), max(rates)]


def main() -> None:
    """Print the table and one line of JSON."""
    parser = argparse.ArgumentParser(description='Times the input pipeline.')
    parser.add_argument('--images', type=int, default=128)
    parser.add_argument('--side', type=int, default=400, help='width of an image, pixels')
    parser.add_argument('--out', help='a file for the JSON')
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        make_set(root, arguments.images, arguments.side)
        groups = load_groups(root, 'made')
        results = {
            'released': rate(lambda: read_released(groups)),
            'files': rate(lambda: read_files(groups)),
        }
        data = DataConfig(
            root=folder,
            train_sets=('made',),
            image_size=SIZE,
            max_images=N,
            group_sizes=(N,),
            workers=0,
        )
        sets = training_sets(data)
        results['cache'] = rate(lambda: read_groups(sets[0].reader))
        iterator = make_train_iterator(
            sets, image_size=SIZE, max_images=N, group_sizes=(N,), seed=0, workers=0
        )
        next(iterator)
        results['iterator'] = rate(lambda: sum(next(iterator)['valid'].size for _ in range(20)))
        iterator.close()
    print(f'{"":10} {"images/s":>10} {"least":>10} {"most":>10} {"released = 1":>14}')
    for name, values in results.items():
        cells = ''.join(f'{value:>11.0f}' for value in values)
        print(f'{name:10}{cells} {values[0] / results["released"][0]:>14.1f}')
    measure.finish({'side': arguments.side} | results, arguments.out)


def read_released(groups: tuple[Group, ...]) -> int:
    """Read every image of the groups."""
    for group in groups:
        for image, mask in zip(group.images, group.masks, strict=True):
            assert isinstance(image, Path)
            assert isinstance(mask, Path)
            released_way(image, mask)
    return sum(len(group.images) for group in groups)


def read_files(groups: tuple[Group, ...]) -> int:
    """Read every image of the groups."""
    decoder = Decoder(groups, SIZE)
    for g, group in enumerate(groups):
        for i in range(len(group.images)):
            decoder(g, i)
    return sum(len(group.images) for group in groups)


def read_groups(reader: Callable[[int, int], tuple[np.ndarray, np.ndarray]]) -> int:
    """Fill batches of two groups as training does."""
    images = np.zeros((2, N, SIZE, SIZE, 3), np.uint8)
    masks = np.zeros((2, N, SIZE, SIZE), np.uint8)
    count = 0
    for step in range(20):
        for g in range(2):
            for i in range(N):
                images[g, i], masks[g, i] = reader((step + g) % GROUPS, i)
                count += 1
    return count


if __name__ == '__main__':
    main()
