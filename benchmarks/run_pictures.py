"""Draw pictures of a run that show none of its images: loss curves, and a sheet of maps.

    python benchmarks/run_pictures.py WORKDIR/metrics.jsonl WORKDIR/maps/STEP/SET OUT

Writes OUT_curves.png and OUT_maps.png (one row per group).
"""

import argparse
import json
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
from PIL import Image

TERMS = ('loss', 'bce', 'iou', 'gcm', 'acm')
SMOOTHED_OVER = 5  # logged values
COLUMNS = 10
TILE = 96  # pixels


def curves(metrics: Path, out: Path) -> None:
    """Draw one panel per loss term, raw and as a running mean."""
    rows = [json.loads(line) for line in metrics.read_text().splitlines()]
    rows = [row for row in rows if 'loss' in row]  # the others hold scores
    steps = np.array([row['step'] for row in rows])
    terms = [term for term in TERMS if term in rows[0]]
    figure, axes = plt.subplots(1, len(terms), figsize=(3 * len(terms), 2.4), layout='constrained')
    for axis, term in zip(axes, terms, strict=True):
        values = np.array([row[term] for row in rows])
        mean = np.convolve(values, np.ones(SMOOTHED_OVER) / SMOOTHED_OVER, 'valid')
        axis.plot(steps, values, color='0.8')
        axis.plot(steps[SMOOTHED_OVER - 1 :], mean, color='tab:blue')
        axis.set(title=term, xlabel='step')
    figure.savefig(out, dpi=100)


def sheet(folder: Path, out: Path) -> None:
    """Draw the first maps of each group."""
    groups = sorted(path for path in folder.iterdir() if path.is_dir())
    picture = Image.new('L', (COLUMNS * TILE, len(groups) * TILE))
    for row, group in enumerate(groups):
        for column, path in enumerate(sorted(group.glob('*.png'))[:COLUMNS]):
            tile = Image.open(path).resize((TILE - 4, TILE - 4))
            picture.paste(tile, (column * TILE, row * TILE))
    picture.save(out)


def main() -> None:
    """Write both pictures."""
    parser = argparse.ArgumentParser(description='Loss curves and maps of a run.')
    parser.add_argument('metrics', type=Path)
    parser.add_argument('maps', type=Path)
    parser.add_argument('out', help='path without ending')
    arguments = parser.parse_args()
    mpl.use('Agg')
    curves(arguments.metrics, Path(f'{arguments.out}_curves.png'))
    sheet(arguments.maps, Path(f'{arguments.out}_maps.png'))


if __name__ == '__main__':
    main()
