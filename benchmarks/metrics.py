"""Time the scoring of maps: ours, PySODMetrics, and a direct loop over 255 thresholds.

    python benchmarks/metrics.py [--pairs=20] [--passes=5] [--out=FILE.json]

All rows score the same generated pairs of 300 x 400 maps, in memory, on one core; ours also on two:

    direct       eval-co-sod threshold by threshold, in PyTorch: MAE, F, E, S, PR, ROC. Skipped
                 if torch is not installed (pip install torch==2.13.0).
    library      PySODMetrics: MAE, S, F, E, weighted F
    ours         `evaluation.metrics.score_image`: all of these, adaptive scores, IoU and Dice
    weighted F   the part of it that the direct loop does not have
    files        ours from PNG files by `score_maps`, in one process and in two

Rows take turns within a pass; each is the median of the passes.
"""

import os

os.environ.setdefault('OMP_NUM_THREADS', '1')  # one core each; must be set before the imports

import argparse
import json
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import py_sod_metrics as library
from PIL import Image

from gconet_jax.evaluation import scoring
from gconet_jax.evaluation.metrics import CUT, VALUES, score_image
from gconet_jax.evaluation.weighted_fmeasure import weighted_fmeasure
from gconet_jax.input_pipeline.groups import load_groups

HEIGHT, WIDTH = 300, 400
FILES = 3000  # maps scored from files, about as many as CoSOD3k has

Pair = tuple[np.ndarray, np.ndarray]


def make_pair(seed: int) -> Pair:
    """Return a soft, noisy map and its truth, an ellipse with grey edges."""
    rng = np.random.default_rng(seed)
    yy, xx = np.mgrid[:HEIGHT, :WIDTH]
    cy, cx = rng.uniform(0.3, 0.7, 2) * [HEIGHT, WIDTH]
    ry, rx = rng.uniform(0.1, 0.3, 2) * [HEIGHT, WIDTH]
    inside = (np.hypot((yy - cy) / ry, (xx - cx) / rx) < 1).astype(np.float32)
    truth = cv2.GaussianBlur(inside, (0, 0), 1)
    soft = cv2.GaussianBlur(inside, (0, 0), 9) + rng.normal(0, 0.05, truth.shape)
    return tuple(np.rint(np.clip(x, 0, 1) * 255).astype(np.uint8) for x in (soft, truth))


def direct(prediction: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """Compute eval-co-sod's measures threshold by threshold, in float32."""
    import torch

    p, g = (torch.from_numpy(x).float() / 255 for x in (prediction, truth))
    mae = (p - g).abs().mean()
    p = (p - p.min()) / (p.max() - p.min() + 1e-20)
    f, e, true_rate, false_rate = (torch.zeros(255) for _ in range(4))
    for i, threshold in enumerate(torch.linspace(0, 1 - 1e-10, 255)):
        on = (p >= threshold).float()
        hit = (on * g).sum()
        precision, recall = hit / (on.sum() + 1e-20), hit / (g.sum() + 1e-20)
        f[i] = 1.3 * precision * recall / (0.3 * precision + recall)
    for i, threshold in enumerate(torch.linspace(0, 1 - 1e-10, 255)):
        on = (p >= threshold).float()
        hit, false = (on * g).sum(), (on * (1 - g)).sum()
        missed, rest = ((1 - on) * g).sum(), ((1 - on) * (1 - g)).sum()
        true_rate[i], false_rate[i] = hit / (hit + missed + 1e-20), false / (false + rest + 1e-20)
    for i, threshold in enumerate(torch.linspace(0, 1 - 1e-10, 255)):
        on = (p >= threshold).float()
        a, b = on - on.mean(), g - g.mean()
        aligned = 2 * a * b / (a * a + b * b + 1e-20)
        e[i] = ((aligned + 1) * (aligned + 1) / 4).sum() / (g.numel() - 1)
    return {
        'mae': float(mae),
        'max_fmeasure': float(f.nan_to_num().max()),
        'max_emeasure': float(e.max()),
        'smeasure': float(_direct_smeasure(p, (g >= 0.5).float())),
    }


def _direct_smeasure(p, t):
    def likeness(values):
        return 2 * values.mean() / (values.mean() ** 2 + 1 + values.std())

    objects = t.mean() * likeness(p[t == 1]) + (1 - t.mean()) * likeness(1 - p[t == 0])
    rows, columns = t.nonzero(as_tuple=True)
    y, x = int(rows.float().mean().round()), int(columns.float().mean().round())
    regions = 0.0
    for part in np.s_[:y, :x], np.s_[:y, x:], np.s_[y:, :x], np.s_[y:, x:]:
        a, b = p[part] - p[part].mean(), t[part] - t[part].mean()
        above = 4 * p[part].mean() * t[part].mean() * (a * b).sum()
        below = (p[part].mean() ** 2 + t[part].mean() ** 2) * ((a * a).sum() + (b * b).sum())
        similarity = above / below if above else float(below == 0)
        regions += p[part].numel() / p.numel() * similarity
    return 0.5 * objects + 0.5 * regions


def by_library(prediction: np.ndarray, truth: np.ndarray) -> None:
    """Compute the measures that PySODMetrics shares with ours."""
    names = ('MAE', 'Smeasure', 'Emeasure', 'Fmeasure', 'WeightedFmeasure')
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        for name in names:
            getattr(library, name)().step(prediction, truth)


def write_files(root: Path, pairs: list[Pair]) -> None:
    """Write FILES maps and truths as PNG, repeating the pairs, in the layout of a set."""
    folders = (root / 'maps' / 'made', root / 'gts' / 'S' / 'made', root / 'images' / 'S' / 'made')
    for folder in folders:
        folder.mkdir(parents=True)
    for i in range(FILES):
        prediction, truth = pairs[i % len(pairs)]
        for folder, pixels in zip(folders, (prediction, truth, truth), strict=True):
            Image.fromarray(pixels).save(folder / f'{i:04}.png')


def seconds(function: Callable[[], object]) -> float:
    """Return the seconds of one call."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def show(result: dict[str, tuple[float, float, float]]) -> None:
    """Print the rows."""
    for name, (median, least, most) in result.items():
        ratio = median / result['ours'][0]
        print(f'{name:20} {median:8.2f} [{least:.2f}, {most:.2f}]   ours = 1: {ratio:.1f}')


def main() -> None:
    """Print the table and one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--pairs', type=int, default=20)
    parser.add_argument('--passes', type=int, default=5)
    parser.add_argument('--out', type=Path)
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    pairs = [make_pair(seed) for seed in range(arguments.pairs)]
    ways: dict[str, Callable[[], object]] = {
        'library': lambda: [by_library(*pair) for pair in pairs],
        'ours': lambda: [score_image(*pair) for pair in pairs],
        'weighted F': lambda: [weighted_fmeasure(VALUES, p, t >= CUT) for p, t in pairs],
    }
    try:
        import torch

        torch.set_num_threads(1)
        few = pairs[:2]  # one second per pair
        ways['direct'] = lambda: [direct(*pair) for pair in few]
    except ImportError:
        print('torch is not installed: no direct loop')
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_files(root, pairs)
        found = scoring.find_maps(root / 'maps', {'S': load_groups(root, 'S')})
        for workers in (1, 2):
            ways[f'files, {workers} process{"es" * (workers > 1)}'] = lambda workers=workers: (
                scoring.score_maps(found, protocol='eval-co-sod', workers=workers)
            )
        counts = {name: len(pairs) for name in ways} | {'direct': 2}
        counts |= {name: FILES for name in ways if name.startswith('files')}
        times: dict[str, list[float]] = {name: [] for name in ways}
        for way in ways.values():
            way()
        for _ in range(arguments.passes):
            for name, way in ways.items():
                times[name].append(1000 * seconds(way) / counts[name])
    result = {name: (statistics.median(t), min(t), max(t)) for name, t in times.items()}
    print(f'ms a map of {HEIGHT} x {WIDTH}, median of {arguments.passes} passes [least, most]')
    show(result)
    if 'direct' in ways:
        histogram = result['ours'][0] - result['weighted F'][0]
        print(f'direct loop / ours without weighted F: {result["direct"][0] / histogram:.0f}')
        differences = _differences(few)
        print(f'largest difference from the direct loop: {differences}')
        result['differences'] = differences
    print(json.dumps(result))
    if arguments.out:
        arguments.out.write_text(json.dumps(result, indent=2) + '\n')


def _differences(pairs: list[Pair]) -> dict[str, float]:
    largest: dict[str, float] = {}
    for pair in pairs:
        expected, got = direct(*pair), score_image(*pair)
        ours = {
            'mae': got.mae,
            'max_fmeasure': got.fmeasure.max(),
            'max_emeasure': got.emeasure.max(),
            'smeasure': got.smeasure,
        }
        for name, value in expected.items():
            largest[name] = max(largest.get(name, 0), abs(float(ours[name]) - value))
    return largest


if __name__ == '__main__':
    main()
