"""Training batches: pairs of groups, read and padded in Grain's workers."""

import sys
from collections.abc import Sequence
from typing import Any

import grain
import numpy as np
from absl import flags

from gconet_jax.input_pipeline.pairs import Pair, PairSampler, bucket, check_sizes
from gconet_jax.input_pipeline.part import WHOLE, Part
from gconet_jax.input_pipeline.pixels import Reader
from gconet_jax.input_pipeline.sets import TrainingSet

# Grain keeps about 2 * (this + 1) batches per worker in shared memory; a batch of the main config
# has 32 MiB.
_BUFFERED = 1

Batch = dict[str, np.ndarray]


class _ReadBatch:
    """Read the batch of a step. Runs in worker processes, so it makes no JAX calls."""

    def __init__(
        self,
        readers: Sequence[Reader],
        labels: Sequence[Sequence[int]],
        samplers: Sequence[PairSampler],
        image_size: int,
        group_sizes: tuple[int, ...],
        part: Part,
    ) -> None:
        self._readers, self._labels, self._samplers = readers, labels, samplers
        self._image_size, self._group_sizes, self._part = image_size, group_sizes, part

    def pairs(self, step: int) -> list[Pair]:
        """Return the pairs of a step, one for each set."""
        return [sampler.pair(step) for sampler in self._samplers]

    def __call__(self, step: int) -> Batch:
        pairs = self.pairs(step)
        n = bucket(max(len(pair.images[0]) for pair in pairs), self._group_sizes)
        mine = _share(len(pairs), self._part.pair)
        places = _share(n, self._part.image)
        lead, size = (len(mine), 2), self._image_size
        batch = {
            'image': np.zeros((*lead, len(places), size, size, 3), np.uint8),
            'mask': np.zeros((*lead, len(places), size, size), np.uint8),
            'label': np.zeros(lead, np.int32),
            'valid': np.zeros((*lead, len(places)), np.bool_),
        }
        for p, at in enumerate(mine):
            for g, (group, images) in enumerate(
                zip(pairs[at].groups, pairs[at].images, strict=True)
            ):
                batch['label'][p, g] = self._labels[at][group]
                for i, place in enumerate(places):
                    if place < len(images):
                        batch['valid'][p, g, i] = True
                        batch['image'][p, g, i], batch['mask'][p, g, i] = self._readers[at](
                            group, images[place]
                        )
        return batch


def _share(length: int, part: tuple[int, int]) -> range:
    """Return the indices of part (index, count) out of `length`."""
    index, count = part
    return range(length * index // count, length * (index + 1) // count)


class TrainIterator(grain.DatasetIterator[Batch]):
    """The endless stream of training batches; see `make_train_iterator`.

    Its state is only the number of the next step, unlike the state of Grain's multi-process
    iterator, so a run can resume with another number of workers. Workers start at the first `next`;
    `close` stops them.
    """

    def __init__(self, read_batch: _ReadBatch, workers: int, first_step: int) -> None:
        super().__init__()
        self._read_batch, self._workers = read_batch, workers
        self._start(first_step)

    def _start(self, step: int) -> None:
        # In-process, two threads read ahead; a worker process reads one batch at a time.
        threads = 0 if self._workers else 2
        steps = grain.MapDataset.range(step, sys.maxsize).map(self._read_batch)
        batches = steps.to_iter_dataset(
            grain.ReadOptions(num_threads=threads, prefetch_buffer_size=threads)
        )
        options = grain.MultiprocessingOptions(
            num_workers=self._workers, per_worker_buffer_size=_BUFFERED
        )
        self._step, self._batches = step, iter(batches.mp_prefetch(options))

    def __next__(self) -> Batch:
        batch = next(self._batches)
        self._step += 1
        return batch

    def pairs(self, step: int) -> list[Pair]:
        """Return the pairs of the batch of `step`, one for each set."""
        return self._read_batch.pairs(step)

    def read(self, step: int) -> Batch:
        """Read the batch of any step now, without moving the stream."""
        return self._read_batch(step)

    def get_state(self) -> dict[str, Any]:
        """Return {'step': the step of the batch that `next` returns}."""
        return {'step': self._step}

    def set_state(self, state: dict[str, Any]) -> None:
        """Continue at `state['step']`."""
        self._batches.close()
        self._start(int(state['step']))

    def close(self) -> None:
        """Stop the workers; the iterator cannot be used afterwards."""
        self._batches.close()


def make_train_iterator(
    sets: Sequence[TrainingSet],
    *,
    image_size: int,
    max_images: int,
    group_sizes: tuple[int, ...],
    seed: int,
    workers: int,
    cut_epochs: bool = False,
    part: Part = WHOLE,
    first_step: int = 0,
) -> TrainIterator:
    """Return an endless iterator of batches, each with one pair of groups from every set.

    With P = len(sets) pairs, batch s is a function of (seed, s), for any number of workers and any
    first step:

        image  uint8 (P, 2, N, image_size, image_size, 3), RGB
        mask   uint8 (P, 2, N, image_size, image_size), 0..255
        label  int32 (P, 2), class of each group
        valid  bool  (P, 2, N), False where a group is padded; image and mask are zero there

    N is the smallest of `group_sizes` that holds the largest pair. The arrays may be read-only.

    Args:
        sets: sets with at least two groups each.
        image_size: height and width, pixels.
        max_images: largest number of images that a group contributes.
        group_sizes: padded sizes, ascending, the last at least `max_images`.
        seed: seed of the choice of groups and images, non-negative.
        workers: processes that read; 0 reads in two threads of this process. Processes are spawned,
            so a script that uses them needs `if __name__ == '__main__'`, and /dev/shm must hold
            about four batches for each (containers often have only 64 MiB).
        cut_epochs: end an epoch of every set after as many steps as the smallest set has groups.
        part: part of each batch to load; the parts of all processes make up the batch.
        first_step: s of the first batch.

    Raises:
        DataError: a set has fewer than two groups; from `next`, an image cannot be read, and the
            message names it.
        ValueError: the arguments contradict each other.
    """
    check_sizes(group_sizes, max_images)
    if not sets:
        raise ValueError('no set to train on')
    uneven = [n for n in group_sizes if n % part.image[1]]
    if len(sets) % part.pair[1] or uneven:
        raise ValueError(
            f'{len(sets)} pairs of {uneven or group_sizes} images are not divisible by {part}'
        )
    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()  # Grain reads absl flags, which raise until they are parsed
    anchors = min(len(each.groups) for each in sets) if cut_epochs else None
    samplers = [PairSampler(each.groups, max_images, seed, anchors) for each in sets]
    read_batch = _ReadBatch(
        [each.reader for each in sets],
        [each.labels for each in sets],
        samplers,
        image_size,
        group_sizes,
        part,
    )
    return TrainIterator(read_batch, workers, first_step)
