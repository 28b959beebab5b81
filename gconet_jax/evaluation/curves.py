"""Pictures of a report, as data URIs, so that the page is self-contained."""

import base64
import io
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from gconet_jax.evaluation.scores import ImageScores, ScoredImage, SetScores
from gconet_jax.input_pipeline.files import open_image

Array = NDArray[np.floating]

# Distinguishable by colour-blind readers (Okabe and Ito 2008); they repeat dashed and dotted.
COLOURS = ('#0072b2', '#d55e00', '#009e73', '#cc79a7', '#e69f00', '#56b4e9', '#555555')
DASHES = ('solid', 'dashed', 'dotted')

TILE = 110  # height, pixels
WIDEST = 220  # maximum width, pixels
GAP = 4
BINS = 32  # of the histogram of confidence
NEAR = 0.05  # a pixel within this distance of 0 or 1 counts as sure


def style(i: int) -> tuple[str, str]:
    """Return colour and line style of the i-th method, valid in CSS and matplotlib."""
    return COLOURS[i % len(COLOURS)], DASHES[i // len(COLOURS) % len(DASHES)]


def plots(methods: Mapping[str, Sequence[SetScores]]) -> dict[str, str]:
    """Plot the PR curve, F and E over thresholds, and the confidence histogram: title -> SVG.

    Methods use the lines of `style`, in order. A line is the mean over the images and runs of a
    method; a band around it is the standard deviation over runs. Method names are not drawn: the
    page has a legend, and matplotlib would interpret `$` as mathematics.
    """
    runs = [[_mean(run) for run in several] for several in methods.values()]
    return {
        'Precision over recall': _draw(
            [(_over(several, 'recall'), _spread(several, 'precision')) for several in runs],
            ('recall', 'precision'),
        ),
        'F over thresholds': _draw(
            [(_thresholds(several), _spread(several, 'fmeasure')) for several in runs],
            ('threshold', 'F'),
        ),
        'E over thresholds': _draw(
            [(_thresholds(several), _spread(several, 'emeasure')) for several in runs],
            ('threshold', 'E'),
        ),
        'Confidence of pixels': _histogram([_over(several, 'confidence') for several in runs]),
    }


def sureness(methods: Mapping[str, Sequence[SetScores]]) -> str:
    """Return HTML for the histogram: the share of pixels that are nearly black or white."""
    shares = (f'{100 * sure_share(runs):.1f} % for {escape(m)}' for m, runs in methods.items())
    return f'Pixels within {NEAR} of 0 or 1: {", ".join(shares)}.'


def sure_share(runs: Sequence[SetScores]) -> float:
    """Return the share of pixels within `NEAR` of 0 or 1; all images have the same weight."""
    confidence = np.mean([run.scores.confidence.mean(axis=0) for run in runs], axis=0)
    values = np.arange(256) / 255
    return float(confidence[(values <= NEAR) | (values >= 1 - NEAR)].sum())


def legend(methods: Iterable[str]) -> str:
    """Return HTML that shows the line of each method in the plots."""
    lines = []
    for i, method in enumerate(methods):
        colour, dash = style(i)
        line = f'<span class="line" style="border-top: 3px {dash} {colour}"></span>'
        lines.append(f'<span>{line}{escape(method)}</span>')
    return '\n'.join(lines)


def strip(image: ScoredImage) -> str:
    """Return a JPEG of `image | truth | map | error`, each in the aspect ratio of the truth.

    The error is map minus truth: red where the map is too high, blue where it is too low, white
    where they agree. A missing photograph is grey.
    """
    truth = open_image(image.truth, 'L')
    width = min(max(1, round(truth.width * TILE / truth.height)), WIDEST)
    size = width, TILE
    grey = truth.resize(size)
    pixels = open_image(image.map, 'L').resize(size)
    photo = open_image(image.image, 'RGB').resize(size) if image.image else None
    tiles = [photo or Image.new('RGB', size, '#ddd'), grey, pixels, error(pixels, grey)]
    sheet = Image.new('RGB', (4 * width + 3 * GAP, TILE), '#bbb')
    for i, tile in enumerate(tiles):
        sheet.paste(tile.convert('RGB'), (i * (width + GAP), 0))
    file = io.BytesIO()
    sheet.save(file, 'JPEG', quality=80)
    return _uri('image/jpeg', file.getvalue())


def error(pixels: Image.Image, truth: Image.Image) -> Image.Image:
    """Colour map minus truth, both 'L' of one size: from blue (-1) through white (0) to red (1)."""
    difference = (np.asarray(pixels, float) - np.asarray(truth, float)) / 255
    high, low = np.maximum(difference, 0), np.maximum(-difference, 0)
    colours = np.stack([1 - low, 1 - high - low, 1 - high], axis=-1)
    return Image.fromarray((255 * colours).round().astype(np.uint8))


def _mean(run: SetScores) -> ImageScores:
    return ImageScores._make(column.mean(axis=0) for column in run.scores)


def _over(runs: Sequence[ImageScores], field: str) -> Array:
    return np.mean([run._asdict()[field] for run in runs], axis=0)


def _spread(runs: Sequence[ImageScores], field: str) -> tuple[Array, Array | None]:
    """Return the mean over runs, and the standard deviation if there are several."""
    values = np.stack([run._asdict()[field] for run in runs])
    return values.mean(axis=0), values.std(axis=0, ddof=1) if len(runs) > 1 else None


def _thresholds(runs: Sequence[ImageScores]) -> Array:
    return np.linspace(0, 1, runs[0].fmeasure.size)


def _draw(lines: Sequence[tuple[Array, tuple[Array, Array | None]]], axes: tuple[str, str]) -> str:
    figure, panel = _panel(*axes)
    for i, (x, (y, deviation)) in enumerate(lines):
        colour, dash = style(i)
        panel.plot(x, y, color=colour, linestyle=dash, linewidth=1.4)
        if deviation is not None:
            panel.fill_between(x, y - deviation, y + deviation, color=colour, alpha=0.2, lw=0)
    panel.set_xlim(0, 1)
    return _svg(figure)


def _histogram(confidences: Sequence[Array]) -> str:
    figure, panel = _panel('value of a pixel', 'share of the pixels')
    panel.set_yscale('log')
    for i, confidence in enumerate(confidences):
        colour, dash = style(i)
        shares = np.maximum(confidence.reshape(BINS, -1).sum(axis=1), 1e-6)  # zero has no logarithm
        panel.stairs(shares, np.linspace(0, 1, BINS + 1), color=colour, linestyle=dash, lw=1.4)
    panel.set_xlim(0, 1)
    panel.set_ylim(top=1)
    return _svg(figure)


def _panel(x: str, y: str) -> tuple[Any, Any]:
    from matplotlib.figure import Figure  # takes half a second

    figure = Figure(figsize=(3.7, 2.9), layout='constrained')
    panel = figure.add_subplot(xlabel=x, ylabel=y)
    panel.grid(color='#ddd', linewidth=0.6)
    panel.set_axisbelow(True)
    panel.spines[['top', 'right']].set_visible(False)
    return figure, panel


def _svg(figure: Any) -> str:
    import matplotlib

    file = io.BytesIO()
    # Equal scores must give equal bytes: no random names, no date.
    with matplotlib.rc_context({'svg.fonttype': 'none', 'svg.hashsalt': 'report'}):
        figure.savefig(file, format='svg', metadata={'Date': None})
    return _uri('image/svg+xml', file.getvalue())


def _uri(kind: str, content: bytes) -> str:
    return f'data:{kind};base64,{base64.b64encode(content).decode("ascii")}'
