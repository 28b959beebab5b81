"""Scoring of map files against ground truth in several processes, with remarks on odd files."""

import contextlib
import itertools
import multiprocessing
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from gconet_jax.errors import some
from gconet_jax.evaluation import metrics, pysodmetrics
from gconet_jax.evaluation.maps import (
    Truth,
    load_map,
    load_truth,
    maps_folder,
    pair,
    resize_map,
    truths_in,
    truths_of,
    write_map,
)
from gconet_jax.evaluation.scores import ImageScores, ScoredImage, SetScores, stack
from gconet_jax.futures import in_order
from gconet_jax.input_pipeline.groups import Group

PROTOCOLS = {'eval-co-sod': metrics.score_image, 'pysodmetrics': pysodmetrics.score_image}
AHEAD = 64  # calls queued or with unread results, to bound memory
CHUNK = 8  # files per call, to amortise its overhead
KEPT_BYTES = 31 << 20  # just below glibc's largest dynamic mmap threshold
WINDOWS_WORKERS = 61  # the limit of Python's process pools on Windows
SHOWN = 3  # files that a remark lists before it only counts

Submit = Callable[..., 'Future[Any]']


class Scored(NamedTuple):
    """The scores of one image, and anything irregular about its map: see `maps.load_map`."""

    scores: ImageScores
    mode: str = ''
    resized: bool = False


def evaluate_maps(
    pred_dir: str | Path, gt_dir: str | Path, *, protocol: str = 'eval-co-sod', workers: int = 0
) -> dict[str, float]:
    """Score `pred_dir/<group>/<name>.png` against `gt_dir/<group>/<name>.png`.

    `gt_dir` determines the images. All have the same weight, whatever the sizes of their groups.

    Args:
        pred_dir: folder of maps; other suffixes, other sizes, 16 bits and colour also work.
        gt_dir: folder of masks; the protocol keeps or cuts grey edges.
        protocol: 'eval-co-sod', the paper's, or 'pysodmetrics', by that library.
        workers: additional processes; a script that uses them needs `if __name__ == '__main__':`.

    Returns:
        mae, smeasure and defined_smeasure, max_/mean_/adaptive_ fmeasure and emeasure, wfmeasure,
        max_/adaptive_ iou and dice, ap, auc and min_ber; see `scores.summarize` for their ranges.

    Raises:
        DataError: there is no ground truth, maps are missing (the message counts them and lists the
            first few), or a file cannot be read.
        ValueError: the protocol is unknown.
    """
    if protocol not in PROTOCOLS:
        raise ValueError(f'unknown protocol {protocol!r}; there are {", ".join(PROTOCOLS)}')
    found = Found(*pair(truths_in(Path(gt_dir)), Path(pred_dir)))
    return score_maps({'': found}, protocol=protocol, workers=workers)[''].summary()


class Found(NamedTuple):
    """The maps of a set: one for each truth, and stray ones without a truth."""

    pairs: list[ScoredImage]
    stray: tuple[Path, ...]


def find_maps(maps: Path, sets: dict[str, tuple[Group, ...]]) -> dict[str, Found]:
    """Find a method's maps `<maps>/<set>/<group>/<name>.png` of each set.

    Raises:
        DataError: as in `evaluate_maps`.
    """
    return {
        name: Found(*pair(truths_of(groups), maps_folder(maps, name, only=len(sets) == 1)))
        for name, groups in sets.items()
    }


def score_maps(found: dict[str, Found], *, protocol: str, workers: int) -> dict[str, SetScores]:
    """Score the maps of each set, in `workers` processes, with progress.

    Raises:
        DataError: a map or its truth cannot be read.
    """
    with pool(workers) as submit:
        return {name: _score(name, maps, protocol, submit) for name, maps in found.items()}


def collect(
    dataset: str,
    protocol: str,
    images: Sequence[ScoredImage],
    scored: Sequence[Scored],
    stray: tuple[Path, ...] = (),
) -> SetScores:
    """Collect the scores of a set's images, in order, with remarks on irregular files."""
    images = [i._replace(resized=s.resized) for i, s in zip(images, scored, strict=True)]
    modes = [f'{i.map} ({s.mode})' for i, s in zip(images, scored, strict=True) if s.mode]
    remarks = (
        _remark(
            [str(i.map) for i in images if i.resized], 'of another size than the truth: resized'
        ),
        _remark(modes, 'not 8-bit grey: converted'),
        _remark([str(path) for path in stray], 'of no image of the set: not scored'),
    )
    scores = stack([s.scores for s in scored])
    return SetScores(dataset, protocol, tuple(images), scores, tuple(filter(None, remarks)))


def score_files(image: ScoredImage, protocol: str) -> Scored:
    """Read and score one map; DataError if it or its truth cannot be read."""
    prediction, mode = load_map(image.map)
    return _scored(prediction, load_truth(image.truth), protocol)._replace(mode=mode)


def write_and_score(pixels: NDArray[np.float32], truth: Truth, path: Path, protocol: str) -> Scored:
    """Write a map (h, w) in [0, 1] as `maps.write_map` does, and score the written pixels.

    Raises:
        DataError: the image or its truth cannot be read.
    """
    assert truth.image is not None
    return _scored(write_map(pixels, truth.image, path), load_truth(truth.mask), protocol)


def _scored(prediction: NDArray[np.uint8], truth: NDArray[np.uint8], protocol: str) -> Scored:
    resized = prediction.shape != truth.shape
    if resized:
        prediction = resize_map(prediction, truth.shape)
    return Scored(PROTOCOLS[protocol](prediction, truth), resized=resized)


@contextlib.contextmanager
def pool(workers: int) -> Iterator[Submit]:
    """Context that submits calls to a process pool, or runs them immediately if `workers` is 0.

    Processes are spawned, because JAX's threads do not survive a fork. They must not import JAX,
    which takes seconds.
    """
    if workers == 0:
        yield _call
        return
    if sys.platform == 'win32':
        workers = min(workers, WINDOWS_WORKERS)
    executor = ProcessPoolExecutor(
        workers, multiprocessing.get_context('spawn'), initializer=_start_worker
    )
    try:
        yield executor.submit
    finally:  # on an error or an early stop, do not wait for the queue
        executor.shutdown(cancel_futures=True)


def _score(dataset: str, found: Found, protocol: str, submit: Submit) -> SetScores:
    chunks = (found.pairs[i : i + CHUNK] for i in range(0, len(found.pairs), CHUNK))
    futures = (submit(_score_chunk, chunk, protocol) for chunk in chunks)
    scored = itertools.chain.from_iterable(in_order(futures, AHEAD // CHUNK))
    bar = tqdm(scored, total=len(found.pairs), desc=dataset or None, unit='map', leave=None)
    return collect(dataset, protocol, found.pairs, list(bar), found.stray)


def _score_chunk(images: Sequence[ScoredImage], protocol: str) -> list[Scored]:
    return [score_files(image, protocol) for image in images]


def _call(function: Callable[..., Any], *arguments: Any) -> 'Future[Any]':
    future: Future[Any] = Future()
    future.set_result(function(*arguments))
    return future


def _start_worker() -> None:
    import cv2

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent reports an interrupt, once
    cv2.setNumThreads(1)  # the processes share the cores
    # After freeing one large block, glibc keeps smaller blocks for the next image instead of
    # returning and requesting them again, which saves a sixth of the time.
    np.empty(KEPT_BYTES, np.uint8)


def _remark(names: Sequence[str], what: str) -> str:
    if not names:
        return ''
    return f'{len(names)} maps {what}: {some(names, SHOWN)}'
