"""The pair of groups of each step, and their images, as a function of (seed, step)."""

import itertools
import zlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from gconet_jax.input_pipeline.files import DataError
from gconet_jax.input_pipeline.groups import Group

# Purpose of a random stream; streams of different purposes are independent.
_ORDER, _DRAW = 0, 1


class Pair(NamedTuple):
    """Two groups and the images that each contributes.

    Attributes:
        groups: indices of the anchor and the other group, which differ.
        images: for each group, int64 (N,), distinct indices of its images, in random order.
    """

    groups: tuple[int, int]
    images: tuple[np.ndarray, np.ndarray]


class PairSampler:
    """Draw the pairs of one set.

    An epoch is one step per group: each group is the anchor once, in an order that is shuffled
    every epoch. The other group is drawn uniformly from the rest. Both contribute N = min(#A, #B,
    max_images) images, drawn without replacement (GCoNet+, section 4.2). No call depends on an
    earlier one.

    The set's name is part of its seed. The streams of two sets therefore differ, and do not depend
    on which other sets are trained.

    Args:
        groups: groups of one set, at least two.
        max_images: largest N, at least 1. Paper: 32; released code: 26.
        seed: non-negative.
        anchors: number of groups, from the first, that serve as anchors; all by default.

    Raises:
        DataError: fewer than two groups.
        ValueError: `max_images` or `seed` is out of range.
    """

    def __init__(
        self, groups: Sequence[Group], max_images: int, seed: int, anchors: int | None = None
    ) -> None:
        name = '+'.join(sorted({group.dataset for group in groups}))
        if len(groups) < 2:
            raise DataError(
                f'set {name!r} gives {len(groups)} group{"" if len(groups) == 1 else "s"}; '
                'training contrasts two, so at least two groups are needed'
            )
        if max_images < 1:
            raise ValueError(f'max_images={max_images} must be at least 1')
        if seed < 0:
            raise ValueError(f'seed={seed} must not be negative')
        self._counts = [len(group.images) for group in groups]
        self._anchors = len(groups) if anchors is None else anchors
        self._max_images = max_images
        self._entropy = (seed, zlib.crc32(name.encode()))

    def pair(self, step: int) -> Pair:
        """Return the pair of step `step` >= 0."""
        epoch, position = divmod(step, self._anchors)
        anchor = int(self._rng(_ORDER, epoch).permutation(self._anchors)[position])
        rng = self._rng(_DRAW, step)
        other = int(rng.integers(len(self._counts) - 1))
        other += other >= anchor  # skip the anchor, to stay uniform over the rest
        n = min(self._counts[anchor], self._counts[other], self._max_images)
        first = rng.choice(self._counts[anchor], n, replace=False)
        second = rng.choice(self._counts[other], n, replace=False)
        return Pair((anchor, other), (first, second))

    def _rng(self, purpose: int, index: int) -> np.random.Generator:
        return np.random.Generator(np.random.PCG64([*self._entropy, purpose, index]))


def check_sizes(sizes: Sequence[int], max_images: int = 1) -> None:
    """Raise ValueError unless `sizes` are positive, ascend and reach `max_images`."""
    if not sizes or sizes[0] < 1 or any(a >= b for a, b in itertools.pairwise(sizes)):
        raise ValueError(f'group_sizes={tuple(sizes)} must be positive and ascend')
    if sizes[-1] < max_images:
        raise ValueError(
            f'the largest of group_sizes={tuple(sizes)} is below max_images={max_images}'
        )


def bucket(n: int, sizes: Sequence[int]) -> int:
    """Return the smallest of the ascending `sizes` that is >= n; few sizes mean few compilations.

    Raises:
        ValueError: n is larger than all of them.
    """
    for size in sizes:
        if size >= n:
            return size
    raise ValueError(f'{n} images exceed the largest of group_sizes={tuple(sizes)}')
