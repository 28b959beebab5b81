"""Figures of the network's intermediate results, and of the similarity between groups."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure
from PIL import Image
from tqdm import tqdm

from gconet_jax.device_memory import memory_errors
from gconet_jax.inference.out_folder import writing_to
from gconet_jax.inference.predictor import Predictor
from gconet_jax.input_pipeline.files import DataError
from gconet_jax.input_pipeline.photos import find_groups, read_photo
from gconet_jax.input_pipeline.pixels import to_square
from gconet_jax.whole_file import whole_file

SHOWN = 6  # most photos of a group in its figure, evenly spread
CHUNK = 8  # images in the network at once
TILE = 1.1  # inches of a picture in a figure
DPI = 110


class Inside(NamedTuple):
    """Intermediate results of a group of n images, for the m images that are shown.

    Attributes:
        images: (m, S, S, 3) uint8.
        maps, prob, thresh: M, P and T of the CEM, (m, S, S) float32 each.
        attention: the GAM's attention, (m, h, w), which sums to 1 per image; None without GAM.
        stages: decoder stages, starting with the top block, mean over channels of absolute values,
            (m, h, w) each (Figure 2 of the paper).
        class_activation: class activation map of the auxiliary classifier's most likely class,
            (m, h, w) (Figure 10; Zhou et al., CVPR 2016); None without classifier.
        consensus: the consensus of the group, (C,).
    """

    images: np.ndarray
    maps: np.ndarray
    prob: np.ndarray
    thresh: np.ndarray
    attention: np.ndarray | None
    stages: tuple[np.ndarray, ...]
    class_activation: np.ndarray | None
    consensus: np.ndarray


def look_inside(predictor: Predictor, images: np.ndarray, *, shown: int = SHOWN) -> Inside:
    """Compute the intermediate results of a group.

    Args:
        predictor: the network.
        images: (n, S, S, 3) uint8, at the network's image size. All contribute to the results.
        shown: most images to return results for, evenly spread.
    """
    stages = predictor.stages
    chosen = np.unique(np.linspace(0, len(images) - 1, shown).round().astype(int))
    chunks = [images[i : i + CHUNK] for i in range(0, len(images), CHUNK)]
    x5 = [stages.encode(chunk)[-1] for chunk in chunks]
    shared = stages.consensus(x5)
    look = stages.look(stages.encode(images[chosen]), shared)
    activation = None if look.class_activation is None else np.asarray(look.class_activation)
    prediction = predictor.predict(images)
    return Inside(
        images=images[chosen],
        maps=prediction.maps[chosen],
        prob=prediction.prob[chosen],
        thresh=prediction.thresh[chosen],
        attention=stages.attention(x5)[chosen] if stages.config.gam else None,
        stages=tuple(np.asarray(stage) for stage in look.stages),
        class_activation=activation,
        consensus=np.asarray(shared),
    )


def similarity(consensus: Sequence[np.ndarray]) -> np.ndarray:
    """Return the cosine similarity between the consensuses (C,) of n groups, (n, n) in [-1, 1]."""
    vectors = np.stack(consensus).astype(np.float64)
    vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    return vectors @ vectors.T


def group_figure(inside: Inside) -> Figure:
    """Draw a row for each image: image, attention, decoder stages, class activation, P, T, map."""
    columns: list[tuple[str, np.ndarray | None, bool]] = [  # True: grey scale of [0, 1]
        ('image', inside.images, False),
        ('attention', inside.attention, False),
        *((f'stage {len(inside.stages) - i}', x, False) for i, x in enumerate(inside.stages)),
        ('class activation', inside.class_activation, False),
        ('P', inside.prob, True),
        ('T', inside.thresh, True),
        ('map', inside.maps, True),
    ]
    present = [(name, x, unit) for name, x, unit in columns if x is not None]
    figure = Figure(
        (TILE * len(present), TILE * (len(inside.images) + 0.3)), DPI, layout='compressed'
    )
    axes = figure.subplots(len(inside.images), len(present), squeeze=False)
    for column, (name, pictures, unit) in enumerate(present):
        axes[0, column].set_title(name, fontsize=7)
        for row, picture in enumerate(pictures):
            style = {'cmap': 'gray', 'vmin': 0, 'vmax': 1} if unit else {}
            axes[row, column].imshow(picture, **style)
            axes[row, column].set_axis_off()
    return figure


def similarity_figure(consensus: Mapping[str, np.ndarray]) -> Figure:
    """Draw the cosine similarity between the consensuses (C,) of groups, given by name."""
    names, cosines = list(consensus), similarity(list(consensus.values()))
    size = 2.5 + 0.35 * len(names)
    figure = Figure((size + 0.8, size), DPI, layout='constrained')
    axes = figure.subplots()
    shown = axes.imshow(cosines, vmin=min(0.0, float(cosines.min())), vmax=1)
    figure.colorbar(shown, label='cosine of consensuses', shrink=0.8)
    # Names of folders may contain `$`.
    axes.set_xticks(range(len(names)), names, rotation=90, fontsize=7, parse_math=False)
    axes.set_yticks(range(len(names)), names, fontsize=7, parse_math=False)
    if len(names) <= 12:
        for i, row in enumerate(cosines):
            for j, value in enumerate(row):
                colour = 'white' if value < 0.6 else 'black'
                axes.text(j, i, f'{value:.2f}', ha='center', va='center', size=6, color=colour)
    return figure


@memory_errors()
def look(predictor: Predictor, inputs: Sequence[Path], out: Path) -> list[str]:
    """Write a figure per group, `<out>/<group>.png`, and one of all, `<out>/similarity.png`.

    If a group is called `similarity`, the latter is `similarity_of_groups.png`. It is written only
    for two or more groups.

    Args:
        predictor: the network.
        inputs: folders and photos; see `photos.find_groups`.
        out: output directory.

    Returns:
        A line about each file that was skipped because it could not be read.

    Raises:
        InputError: there are no photos, none could be read, or `out` is not writable.
    """
    problems: list[str] = []
    consensus: dict[str, np.ndarray] = {}
    found = find_groups(inputs, leave_out=out)
    with writing_to(out):
        for group, files in tqdm(found.items(), unit='group', leave=None):
            squares = []
            for file in files:
                try:
                    photo = Image.fromarray(read_photo(file))
                except DataError as error:
                    problems.append(str(error))
                    continue
                squares.append(to_square(photo, predictor.image_size))
            if squares:
                inside = look_inside(predictor, np.stack(squares))
                consensus[group] = inside.consensus
                _save(group_figure(inside), out / f'{group}.png')
        if len(consensus) > 1:
            _save(similarity_figure(consensus), out / f'{_unlike("similarity", consensus)}.png')
    if not consensus:
        raise DataError('none of the files could be read:\n  ' + '\n  '.join(problems[:10]))
    return problems


def _unlike(name: str, groups: Collection[str]) -> str:
    """Return `name`, extended until no group has it."""
    taken = {group.lower() for group in groups}  # some file systems ignore case
    while name in taken:
        name += '_of_groups'
    return name


def _save(figure: Figure, path: Path) -> None:
    with whole_file(path) as partial:
        figure.savefig(partial)
