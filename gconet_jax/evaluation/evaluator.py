"""From a model to scores: predicts every group, writes the maps, scores what was written."""

import functools
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx
from PIL import Image
from tqdm import tqdm

from gconet_jax.evaluation import pictures
from gconet_jax.evaluation.maps import score_maps
from gconet_jax.evaluation.metrics import summarize
from gconet_jax.evaluation.paper import TABLE_3
from gconet_jax.input_pipeline.files import size_of
from gconet_jax.input_pipeline.groups import Group
from gconet_jax.input_pipeline.loader import eval_batches
from gconet_jax.models.gconet_plus import GCoNetPlus, normalize
from gconet_jax.models.layers import interpolation_matrix, with_running_average

Segment = Callable[[np.ndarray, np.ndarray], jax.Array]
Weights = tuple[Any, ...]  # of a model: what `nnx.merge` takes after the structure

# Groups are padded to the next of these, or to a multiple of the last, so that few programs
# are compiled.
GROUP_SIZES = (2, 4, 6, 8, 12, 16, 24, 32)


@functools.cache  # the weights of a run and their averages share the programs
def make_segment(graph: nnx.GraphDef) -> Callable[[Weights, np.ndarray, np.ndarray], jax.Array]:
    """Jitted inference: weights, uint8 (G, N, H, W, 3), valid (G, N) -> (G, N, H, W) maps."""

    @jax.jit
    def segment(weights, images, valid):
        model = with_running_average(nnx.merge(graph, *weights))
        return nnx.sigmoid(model.segment(normalize(images), valid).logits)

    return segment


def segment_with(model: GCoNetPlus) -> Segment:
    """Inference with the weights of `model`."""
    graph, weights = nnx.split(model)
    return functools.partial(make_segment(graph), (weights,))


def predict(
    segment: Segment, groups: Sequence[Group], *, image_size: int, workers: int
) -> Iterator[tuple[Group, np.ndarray]]:
    """Maps of each group, float32 (n, image_size, image_size) in [0, 1], with a progress bar."""
    batches = eval_batches(groups, image_size=image_size, group_sizes=GROUP_SIZES, workers=workers)
    for batch in tqdm(batches, total=len(groups), unit='group', leave=None):
        maps = np.asarray(segment(batch.image, batch.valid))[0]
        yield batch.group, maps[: len(batch.group.images)]


def write_maps(predictions: Iterable[tuple[Group, np.ndarray]], folder: Path) -> None:
    """Writes `folder/<group>/<name>.png`, 8-bit, at the size of each image.

    As released: bilinear with aligned corners, then 255·M cut off to whole numbers.
    """
    for group, maps in predictions:
        (folder / group.name).mkdir(parents=True, exist_ok=True)
        for path, pixels in zip(group.images, maps, strict=True):
            width, height = size_of(path)
            rows = interpolation_matrix(pixels.shape[0], height)
            columns = interpolation_matrix(pixels.shape[1], width)
            full = rows @ pixels @ columns.T
            grey = np.clip(full * 255, 0, 255).astype(np.uint8)
            Image.fromarray(grey).save(folder / group.name / f'{path.stem}.png')


def score(folder: Path, groups: Sequence[Group]) -> dict[str, float]:
    """Scores the maps of `groups` in `folder` by the eval-co-sod protocol; see `summarize`."""
    pairs = [
        (folder / group.name / f'{image.stem}.png', mask)
        for group in groups
        for image, mask in zip(group.images, group.masks, strict=True)
    ]
    return summarize(score_maps(pairs))


def evaluate(
    segment: Segment, sets: dict[str, tuple[Group, ...]], folder: Path, *, image_size: int
) -> dict[str, dict[str, float]]:
    """Predicts, writes and scores each set.

    Writes `folder/<set>/<group>/<name>.png`, `folder/<set>.png` (a sheet of `image | truth | map`)
    and `folder/scores.json`.

    Returns:
      The scores of each set; see `metrics.summarize`.
    """
    scores = {}
    for name, groups in sets.items():
        write_maps(predict(segment, groups, image_size=image_size, workers=2), folder / name)
        scores[name] = score(folder / name, groups)
        pictures.comparison(folder / name, groups, folder / f'{name}.png')
    (folder / 'scores.json').write_text(json.dumps(scores, indent=2) + '\n')
    return scores


def table(scores: dict[str, dict[str, float]], train_sets: tuple[str, ...]) -> str:
    """The scores as text, with the paper's row beneath where its Table 3 has one."""
    row = '{:<24} {:>7} {:>7} {:>7} {:>7}'
    lines = [row.format('', 'max E', 'S', 'max F', 'MAE')]
    for name, s in scores.items():
        values = (s['max_emeasure'], s['smeasure'], s['max_fmeasure'], s['mae'])
        lines.append(row.format(name, *(f'{value:.3f}' for value in values)))
        published = TABLE_3.get(train_sets, {}).get(name)
        if published is not None:
            lines.append(row.format('  paper', *(f'{value:.3f}' for value in published)))
    return '\n'.join(lines)
