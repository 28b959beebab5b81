"""From a model to scores: predict every group, write the maps, score what was written."""

import functools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx
from tqdm import tqdm

from gconet_jax.evaluation.maps import Truth, truths_of
from gconet_jax.evaluation.scores import ScoredImage, SetScores
from gconet_jax.evaluation.scoring import AHEAD, Submit, collect, pool, write_and_score
from gconet_jax.futures import in_order
from gconet_jax.input_pipeline.groups import Group
from gconet_jax.input_pipeline.whole_groups import eval_batches
from gconet_jax.models.gconet_plus import GCoNetPlus, normalize
from gconet_jax.models.layers import with_running_average

Segment = Callable[[np.ndarray, np.ndarray], jax.Array]
Weights = tuple[Any, ...]  # of a model: the arguments of `nnx.merge` after the structure

# Groups are padded to the next of these, or to a multiple of the last, so that few programs are
# compiled.
GROUP_SIZES = (2, 4, 6, 8, 12, 16, 24, 32)


@functools.cache  # a run's weights and their averages share the programs
def make_segment(graph: nnx.GraphDef) -> Callable[[Weights, np.ndarray, np.ndarray], jax.Array]:
    """Return jitted inference: weights, uint8 (G, N, H, W, 3), valid (G, N) -> (G, N, H, W)."""

    @jax.jit
    def segment(weights, images, valid):
        model = with_running_average(nnx.merge(graph, *weights))
        return nnx.sigmoid(model.segment(normalize(images), valid).logits)

    return segment


def segment_with(model: GCoNetPlus) -> Segment:
    """Return inference with the weights of `model`."""
    graph, weights = nnx.split(model)
    return functools.partial(make_segment(graph), (weights,))


def predict(
    segment: Segment, groups: Sequence[Group], *, image_size: int, workers: int
) -> Iterator[tuple[Group, np.ndarray]]:
    """Yield the maps of each group, float32 (n, image_size, image_size) in [0, 1].

    While a group is on the device, the caller uses the previous maps and `workers` threads decode
    the next images.
    """
    batches = eval_batches(groups, image_size=image_size, group_sizes=GROUP_SIZES, workers=workers)
    on_device: tuple[Group, jax.Array] | None = None
    for batch in batches:
        previous, on_device = on_device, (batch.group, segment(batch.image, batch.valid))
        if previous is not None:
            yield _fetch(*previous)
    if on_device is not None:
        yield _fetch(*on_device)


def evaluate(
    segment: Segment,
    sets: dict[str, tuple[Group, ...]],
    folder: Path,
    *,
    image_size: int,
    protocol: str = 'eval-co-sod',
    workers: int,
) -> dict[str, SetScores]:
    """Predict, write and score each set in one pipeline, with progress.

    Writes `folder/<set>/<group>/<name>.png`. Decoding, inference, and writing and scoring in
    `workers` processes run concurrently; the queues between them are bounded.
    """
    with pool(workers) as submit:
        return {
            name: _evaluate_set(segment, name, groups, folder / name, image_size, protocol, submit)
            for name, groups in sets.items()
        }


def _evaluate_set(
    segment: Segment,
    dataset: str,
    groups: Sequence[Group],
    folder: Path,
    image_size: int,
    protocol: str,
    submit: Submit,
) -> SetScores:
    def submitted():
        for group, maps in predict(segment, groups, image_size=image_size, workers=2):
            for truth, pixels in zip(truths_of([group]), maps, strict=True):
                yield submit(write_and_score, pixels, truth, _place(folder, truth), protocol)

    truths = truths_of(groups)
    images = [ScoredImage(*truth, _place(folder, truth), resized=False) for truth in truths]
    scored = in_order(submitted(), AHEAD)
    bar = tqdm(scored, total=len(truths), desc=dataset, unit='image', leave=None)
    return collect(dataset, protocol, images, list(bar))


def _place(folder: Path, truth: Truth) -> Path:
    return folder / truth.group / f'{truth.name}.png'


def _fetch(group: Group, maps: jax.Array) -> tuple[Group, np.ndarray]:
    return group, np.asarray(maps)[0, : len(group.images)]
