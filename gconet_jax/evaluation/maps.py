"""Scores a folder of saved saliency maps, of any method, against a folder of ground truth."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from gconet_jax.evaluation.metrics import ImageScores, score_image, summarize
from gconet_jax.input_pipeline.files import DataError, ImageFile, open_image

MISSING_SHOWN = 5  # missing maps named in the error


def load_map(file: ImageFile) -> NDArray[np.uint8]:
    """Reads a map or mask as grey: (H, W) uint8; colours are weighted as PIL's mode 'L' does.

    Raises:
        DataError: the file is missing, broken, or not an image.
    """
    return np.array(open_image(file, 'L'))


def score_maps(pairs: Iterable[tuple[ImageFile, ImageFile]]) -> Iterator[ImageScores]:
    """Scores (map, truth) pairs of image files.

    A map of another size than its truth is resized to it (bilinear, 8-bit, as the published
    toolbox does).

    Raises:
        ValueError: an unreadable image.
    """
    for prediction_path, truth_path in pairs:
        prediction, truth = load_map(prediction_path), load_map(truth_path)
        if prediction.shape != truth.shape:
            size = (truth.shape[1], truth.shape[0])
            resized = Image.fromarray(prediction).resize(size, Image.Resampling.BILINEAR)
            prediction = np.array(resized)
        yield score_image(prediction, truth)


def evaluate_maps(
    pred_dir: str | Path, gt_dir: str | Path, *, protocol: str = 'eval-co-sod'
) -> dict[str, float]:
    """Scores 8-bit maps against 8-bit masks, one folder a group; `gt_dir` decides what counts.

    Returns:
        mae, max_fmeasure, mean_fmeasure, max_emeasure, mean_emeasure, smeasure, ap and auc, each in
        [0, 1], over all images alike, whatever the sizes of their groups.

    Raises:
        ValueError: an unknown protocol, or as `pair_files` and `score_maps`.
    """
    if protocol != 'eval-co-sod':
        raise ValueError(f"unknown protocol {protocol!r}; 'eval-co-sod' is the one there is")
    return summarize(score_maps(pair_files(Path(pred_dir), Path(gt_dir))))


def pair_files(pred_dir: Path, gt_dir: Path) -> list[tuple[Path, Path]]:
    """pred_dir/<group>/<name>.png beside every gt_dir/<group>/<name>.png, in sorted order.

    Maps without a truth are left out.

    Raises:
        ValueError: no ground truth, or maps are missing; they are counted, the first few named.
    """
    truths = sorted(gt_dir.glob('*/*.png'))
    if not truths:
        raise DataError(f'no ground truth in {gt_dir}; it should hold <group>/<name>.png')
    pairs = [(pred_dir / truth.relative_to(gt_dir), truth) for truth in truths]
    missing = [str(prediction) for prediction, _ in pairs if not prediction.is_file()]
    if missing:
        more = ', ...' if len(missing) > MISSING_SHOWN else ''
        raise DataError(
            f'{len(missing)} of {len(pairs)} maps are missing: '
            f'{", ".join(missing[:MISSING_SHOWN])}{more}'
        )
    return pairs
