"""The synthetic co-saliency set, made in seconds, in the layout of the real sets.

    python data/synthetic.py OUT

Each group shares one object class, a combination of shape, surface pattern and palette. Each image
also shows another object that is equally salient, so one image alone does not tell which object is
meant. The classes of `synthetic_test` do not occur in `synthetic_train`, but each of their shapes,
patterns and palettes does.
"""

import argparse
import itertools
import json
import multiprocessing
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image
from tqdm import tqdm

from data.synthetic_objects import PALETTES, PATTERNS, SHAPES, ObjectClass
from data.synthetic_scenes import render

JPEG_QUALITY = 92
SETTINGS = 'synthetic.json'  # written last; records how the set was made
TEST_PART = 0.25  # fraction of all classes
TRAIN = (96, 10)  # (groups, images per group)
TEST = (12, 10)
# Purpose of a random stream; streams of different purposes are independent.
_CLASSES, _IMAGES = 0, 1


class PlannedGroup(NamedTuple):
    """A group before it is drawn; `distractors` has one class per image."""

    dataset: str
    shared: ObjectClass
    distractors: tuple[ObjectClass, ...]


def plan_groups(
    *, seed: int, train: tuple[int, int] = TRAIN, test: tuple[int, int] = TEST
) -> list[PlannedGroup]:
    """Choose the shared class of each group and the distractors of each image, deterministically.

    Args:
        seed: non-negative.
        train, test: (groups, images per group).

    Raises:
        ValueError: more groups than there are classes.
    """
    rng = _rng(seed, _CLASSES)
    names = list(itertools.product(SHAPES, PATTERNS, PALETTES))
    classes = [ObjectClass(*names[i]) for i in rng.permutation(len(names))]
    first = round(TEST_PART * len(classes))
    pools = {'synthetic_test': classes[:first], 'synthetic_train': classes[first:]}
    plan = []
    for dataset, (groups, images) in (('synthetic_train', train), ('synthetic_test', test)):
        pool = pools[dataset]
        for shared in _pick_shared(pool, groups):
            plan.append(PlannedGroup(dataset, shared, _pick_distractors(rng, pool, shared, images)))
    return plan


def generate(
    root: str | Path,
    *,
    seed: int = 0,
    size: int = 128,
    train: tuple[int, int] = TRAIN,
    test: tuple[int, int] = TEST,
) -> None:
    """Make the set in `root` atomically; do nothing if it already exists.

    Args:
        root: folder to create, with `images/<set>/<group>/*.jpg` and `gts/<set>/<group>/*.png`.
        seed: non-negative; the same seed gives the same bytes.
        size: mean side of an image, pixels.
        train, test: (groups, images per group).

    Raises:
        FileExistsError: `root` exists and holds something else.
    """
    root = Path(root)
    settings = {'seed': seed, 'size': size, 'train': list(train), 'test': list(test)}
    if root.is_file() or (root.exists() and any(root.iterdir())):
        note = root / SETTINGS
        if note.is_file() and json.loads(note.read_text(encoding='utf-8')) == settings:
            print(f'{root} holds this set already')
            return
        raise FileExistsError(f'{root} holds something else; remove it or name another folder')

    plan = plan_groups(seed=seed, train=train, test=test)
    root.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f'.{root.name}-', dir=root.parent))
    try:
        jobs = [(partial, group, index, seed, size) for index, group in enumerate(plan)]
        processes = min(os.cpu_count() or 1, len(jobs))
        with multiprocessing.get_context('spawn').Pool(processes) as pool:
            for _ in tqdm(pool.imap_unordered(_draw_group, jobs), total=len(jobs), unit='group'):
                pass
        (partial / SETTINGS).write_text(json.dumps(settings) + '\n', encoding='utf-8')
        if root.exists():
            root.rmdir()
        partial.chmod(0o755)
        partial.rename(root)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _pick_shared(pool: Sequence[ObjectClass], groups: int) -> list[ObjectClass]:
    """Choose distinct classes that cycle through all shapes and all palettes."""
    shared: dict[ObjectClass, None] = {}
    turns = zip(itertools.cycle(SHAPES), itertools.cycle(PALETTES), strict=False)
    for shape, palette in itertools.islice(turns, len(pool) * len(PALETTES)):
        if len(shared) == groups:
            break
        left = (c for c in pool if (c.shape, c.palette) == (shape, palette) and c not in shared)
        shared |= dict.fromkeys(itertools.islice(left, 1))
    if len(shared) < groups:
        raise ValueError(f'{groups} groups are more than the classes allow ({len(shared)})')
    return list(shared)


def _pick_distractors(
    rng: np.random.Generator, pool: Sequence[ObjectClass], shared: ObjectClass, images: int
) -> tuple[ObjectClass, ...]:
    """Choose one class per image, all different, unlike `shared` in palette and another factor."""
    unlike = [
        other
        for other in pool
        if other.palette != shared.palette
        and (other.shape, other.pattern) != (shared.shape, shared.pattern)
    ]
    return tuple(unlike[i] for i in rng.choice(len(unlike), images, replace=False))


def _draw_group(job: tuple[Path, PlannedGroup, int, int, int]) -> None:
    root, group, index, seed, size = job
    name = f'{index:02d}_{group.shared.name}'
    images = root / 'images' / group.dataset / name
    masks = root / 'gts' / group.dataset / name
    images.mkdir(parents=True)
    masks.mkdir(parents=True)
    rng = _rng(seed, _IMAGES, index)
    for number, other in enumerate(group.distractors):
        aspect = rng.uniform(0.8, 1.25)
        height, width = round(size / aspect**0.5), round(size * aspect**0.5)
        scene = render(rng, group.shared, (other,), height, width)
        Image.fromarray(scene.image).save(images / f'{number:03d}.jpg', quality=JPEG_QUALITY)
        mask = scene.mask.astype(np.uint8) * 255
        Image.fromarray(mask).save(masks / f'{number:03d}.png')


def _rng(seed: int, *purpose: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64([seed, *purpose]))


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description='Makes the synthetic co-saliency set.')
    parser.add_argument('out', type=Path, help='folder to make')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--size', type=int, default=128, help='mean side of an image, pixels')
    arguments = parser.parse_args()
    try:
        generate(arguments.out, seed=arguments.seed, size=arguments.size)
    except FileExistsError as error:
        print(f'error: {error}', file=sys.stderr)
        return 1
    return 0


if __name__ == '__main__':
    sys.exit(main())
