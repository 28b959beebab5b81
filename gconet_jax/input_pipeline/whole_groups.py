"""Whole groups for evaluation, decoded in threads."""

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from gconet_jax.input_pipeline.groups import Group
from gconet_jax.input_pipeline.pairs import bucket, check_sizes
from gconet_jax.input_pipeline.pixels import read_image


class EvalBatch(NamedTuple):
    """One whole group.

    Attributes:
        group: the group; the images are in the order of `group.images`.
        image: uint8 (1, N, image_size, image_size, 3), RGB, zero where padded.
        valid: bool (1, N), True for the first len(group.images).
    """

    group: Group
    image: np.ndarray
    valid: np.ndarray


def eval_batches(
    groups: Sequence[Group], *, image_size: int, group_sizes: tuple[int, ...], workers: int
) -> Iterator[EvalBatch]:
    """Yield each group as one batch, in order, while the next group is decoded.

    N is the smallest of the ascending `group_sizes` that holds the group, or else a multiple of the
    largest.

    Args:
        groups: with or without masks, which are not read.
        image_size: height and width, pixels.
        group_sizes: padded sizes, ascending.
        workers: decoding threads; at least 1 is used.

    Raises:
        DataError: an image cannot be read; the message names it.
    """
    check_sizes(group_sizes)
    with ThreadPoolExecutor(max(workers, 1)) as pool:

        def submit(group: Group) -> list[Future[np.ndarray]]:
            return [pool.submit(read_image, path, image_size) for path in group.images]

        try:
            ahead = submit(groups[0]) if groups else []
            for i, group in enumerate(groups):
                images, ahead = ahead, submit(groups[i + 1]) if i + 1 < len(groups) else []
                n = padded_size(len(group.images), group_sizes)
                batch = np.zeros((1, n, image_size, image_size, 3), np.uint8)
                for j, image in enumerate(images):
                    batch[0, j] = image.result()
                yield EvalBatch(group, batch, np.arange(n)[None] < len(images))
        finally:  # on an error or an early stop, do not wait for the queue
            pool.shutdown(wait=False, cancel_futures=True)


def padded_size(n: int, group_sizes: Sequence[int]) -> int:
    """Return the bucket of n images, or the next multiple of the largest size if n exceeds it."""
    largest = group_sizes[-1]
    return bucket(n, group_sizes) if n <= largest else -(-n // largest) * largest
