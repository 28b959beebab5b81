"""Scores of one saliency map by the eval-co-sod protocol, from one joint histogram per image.

The protocol (github.com/zzhanghub/eval-co-sod): the ground truth stays grey for MAE, E and F, and
is cut at 0.5 for S. The prediction is min-max normalised for all scores except MAE, then compared
(`>=`) with 255 thresholds from 0 to 1 in float32.

S is undefined where the toolbox divides zero by zero; it is NaN here as there. This happens for a
truth that becomes empty, or loses its background, only by the cut; for a single pixel of either;
and for a foreground whose centroid lies in the first row or column. Where map and truth are both
constant in a quadrant they count as equal; if the map is neither 0 nor 1 there, the toolbox's
result depends on float32 rounding.

The toolbox has no weighted F, adaptive scores, IoU or Dice. They are computed from the same maps:
the adaptive threshold is twice the mean of the normalised map, at most 1; IoU and Dice use the grey
truth; weighted F uses the truth cut at 0.5.

Map and truth each have 256 possible values. One pass over the pixels counts the pairs of values in
each of the four quadrants around the object's centroid, and all scores follow from these counts.
Only weighted F needs distances between pixels.
"""

from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from gconet_jax.evaluation.scores import ImageScores
from gconet_jax.evaluation.weighted_fmeasure import weighted_fmeasure

Array = NDArray[np.floating]
Pixels = NDArray[np.uint8]

VALUES = np.arange(256) / 255  # of 8-bit maps
GREYS = VALUES.astype(np.float32)
CUT = 128  # first grey level of the foreground when the truth is cut at 0.5
BETA_SQUARED = 0.3  # weight of precision against recall in F (Achanta 2009)
ALPHA = 0.5  # weight of the object term against the region term in S (Fan 2017)
# A sum of squared deviations below this is rounding: a single differing pixel gives 1e-5.
CONSTANT = 1e-12
TINY = 1e-20  # from the toolbox: keeps a quotient of zeros at zero


def _thresholds() -> NDArray[np.float32]:
    """Return PyTorch's `linspace(0, 1, 255)`: float32 steps from either end, each rounded once.

    The exact bits matter. For example, if the largest value of a map is twice 127 above its
    smallest, some pixels equal thresholds, and one unit in the last place moves them to the other
    side.
    """
    step, i = float(np.float32(1) / np.float32(254)), np.arange(255)
    return np.where(i < 127, step * i, 1 - step * (254 - i)).astype(np.float32)


THRESHOLDS = _thresholds()


def score_image(prediction: Pixels, truth: Pixels) -> ImageScores:
    """Score one saliency map, uint8 (H, W), against a grey truth of the same shape.

    Raises:
        ValueError: the shapes differ, or a map is not 2-D, is empty, or is not uint8.
    """
    check_maps(prediction, truth)
    joint, greys = _count(prediction, truth)
    counts = joint.sum(axis=0)
    levels, pixels = counts.sum(axis=1), counts.sum(axis=0)
    present = np.flatnonzero(levels)
    span = GREYS[present[-1]] - GREYS[present[0]] + np.float32(TINY)
    normalised = (GREYS - GREYS[present[0]]) / span  # of each level, in float32 as in the toolbox
    mean = levels @ normalised.astype(np.float64) / prediction.size
    # The adaptive threshold is added as the last threshold.
    thresholds = np.append(THRESHOLDS, np.float32(min(2 * mean, 1)))
    curves = _curves(_reached(counts, normalised, thresholds), pixels, VALUES[greys])
    return ImageScores(
        mae=(np.abs(VALUES[:, None] - VALUES[greys]) * counts).sum() / prediction.size,
        smeasure=smeasure(joint, normalised.astype(np.float64), greys),
        wfmeasure=np.float64(weighted_fmeasure(normalised, prediction, truth >= CUT)),
        adaptive_fmeasure=curves.fmeasure[-1],
        adaptive_emeasure=curves.emeasure[-1],
        adaptive_iou=curves.iou[-1],
        adaptive_dice=curves.dice[-1],
        **{name: curve[:-1] for name, curve in curves._asdict().items()},
        confidence=levels / prediction.size,
    )


def check_maps(prediction: Pixels, truth: Pixels) -> None:
    """Raise ValueError unless both are non-empty uint8 (H, W) of one shape."""
    if np.shape(prediction) != np.shape(truth):
        raise ValueError(
            f'prediction {np.shape(prediction)} and truth {np.shape(truth)} differ in shape; '
            'resize the prediction to the size of the truth'
        )
    for name, image in ('prediction', prediction), ('truth', truth):
        if image.ndim != 2 or image.size == 0:
            raise ValueError(f'{name} must be a non-empty (H, W) map, not of shape {image.shape}')
        if image.dtype != np.uint8:
            raise ValueError(
                f'{name} must be uint8, as maps are saved, not {image.dtype}; '
                '(255 * map).astype(np.uint8) is how the released code saves a map in [0, 1]'
            )


def _count(prediction: Pixels, truth: Pixels) -> tuple[Array, NDArray[np.intp]]:
    """Count pixels by quadrant, map level and truth grey: (4, 256, G), and the G greys.

    The quadrants meet at the foreground's centroid, 0-based and rounded with halves to even. Their
    order is top left, top right, bottom left, bottom right.
    """
    greys = np.flatnonzero(cv2.calcHist([truth], [0], None, [256], [0, 256]))
    index = np.zeros(256, np.uint8)
    index[greys] = np.arange(greys.size)
    indices = cv2.LUT(truth, index)
    moments = cv2.moments((truth >= CUT).astype(np.uint8), binaryImage=True)
    area = max(moments['m00'], 1)
    y, x = round(moments['m01'] / area), round(moments['m10'] / area)
    joint = np.zeros((4, 256, greys.size))
    bins, ranges = [256, greys.size], [0, 256, 0, greys.size]
    for counts, part in zip(
        joint, (np.s_[:y, :x], np.s_[:y, x:], np.s_[y:, :x], np.s_[y:, x:]), strict=True
    ):
        if prediction[part].size:
            counts[:] = cv2.calcHist([prediction[part], indices[part]], [0, 1], None, bins, ranges)
    return joint, greys


class _Curves(NamedTuple):
    fmeasure: Array
    emeasure: Array
    iou: Array
    dice: Array
    precision: Array
    recall: Array
    false_positive_rate: Array


def _reached(counts: Array, normalised: Array, thresholds: Array) -> Array:
    """Count the pixels of each grey at or above each threshold: (256 levels, G) -> (T, G)."""
    at_least = np.zeros((257, counts.shape[1]))
    at_least[:256] = counts[::-1].cumsum(axis=0)[::-1]
    return at_least[np.searchsorted(normalised, thresholds, side='left')]


def _curves(on: Array, pixels: Array, truth: Array) -> _Curves:
    """Return the curves over T thresholds.

    A pixel of truth g in [0, 1] counts g towards the foreground and 1 - g towards the background.

    Args:
        on: (T, G) pixels of each grey of the truth that reach each threshold.
        pixels: (G,) pixels of each grey.
        truth: (G,) greys, in [0, 1].
    """
    area, hit = on.sum(axis=1), on @ truth
    size, ground = pixels @ truth, pixels @ (1 - truth)
    precision, recall = hit / np.maximum(area, 1), hit / max(size, TINY)
    return _Curves(
        fmeasure=_fmeasure(precision, recall),
        emeasure=_emeasure(on, pixels, truth),
        iou=hit / np.maximum(area + size - hit, TINY),
        dice=2 * hit / np.maximum(area + size, TINY),
        precision=precision,
        recall=recall,
        false_positive_rate=on @ (1 - truth) / max(ground, TINY),
    )


def _fmeasure(precision: Array, recall: Array) -> Array:
    """Return F = (1 + b²) P R / (b² P + R), b² = 0.3; 0 if P = R = 0 (Achanta et al., 2009)."""
    weighted = np.maximum(BETA_SQUARED * precision + recall, TINY)
    return (1 + BETA_SQUARED) * precision * recall / weighted


def _emeasure(on: Array, pixels: Array, truth: Array) -> Array:
    """Return the E-measure at every threshold, (T,) (Fan et al., 2018, eqs. 3 to 5); see `_curves`.

    E = sum (2 g p / (g² + p²) + 1)² / 4 / (n - 1), where g and p are the truth and the thresholded
    prediction minus their means. p takes two values, so the cost is proportional to the number of
    greys.
    """
    n = pixels.sum()
    g = truth - pixels @ truth / n
    share = on.sum(axis=1, keepdims=True) / n
    total = on * _alignment(g, 1 - share) + (pixels - on) * _alignment(g, -share)
    return total.sum(axis=1) / max(n - 1, 1)


def _alignment(g: Array, p: Array) -> Array:
    return (2 * g * p / (g * g + p * p + TINY) + 1) ** 2 / 4


def smeasure(joint: Array, values: Array, greys: NDArray[np.intp]) -> np.float64:
    """Return the S-measure, half object and half region similarity, at least 0 (Fan et al., 2017).

    A black truth scores 1 - mean(prediction), a white one mean(prediction).

    Args:
        joint: (4, 256, G) pixels by quadrant, map level and truth grey.
        values: (256,) normalised map levels.
        greys: (G,) truth greys, 0 to 255, ascending.

    Returns:
        S in [0, 1], or NaN as in the toolbox; see the module docstring.
    """
    n = joint.sum()
    if greys[-1] == 0 or greys[0] == 255:
        mean = joint.sum(axis=(0, 2)) @ values / n
        return np.float64(mean if greys[0] else 1 - mean)
    off, on = joint[:, :, greys < CUT].sum(axis=2), joint[:, :, greys >= CUT].sum(axis=2)
    share = on.sum() / n
    with np.errstate(invalid='ignore', divide='ignore'):
        objects = share * _object_similarity(on.sum(axis=0), values)
        objects += (1 - share) * _object_similarity(off.sum(axis=0), 1 - values)
        regions = joint.sum(axis=(1, 2)) / n @ _structural_similarity(off, on, values)
        return np.float64(np.maximum(ALPHA * objects + (1 - ALPHA) * regions, 0))


def _object_similarity(counts: Array, values: Array) -> Array:
    """Return 2 m / (m² + 1 + s), with mean m and sample deviation s.

    `counts` (256,) holds the number of pixels of each of `values` (256,).
    """
    n = counts.sum()
    mean = counts @ values / n
    spread = np.sqrt(counts @ (values - mean) ** 2 / (n - 1))
    return 2 * mean / (mean * mean + 1 + spread)


def _structural_similarity(off: Array, on: Array, values: Array) -> Array:
    """Return the SSIM of map and cut truth in each quadrant, (4,); NaN for an empty quadrant.

    `off` and `on` (4, 256) count the pixels of background and foreground by level.
    """
    n = (off + on).sum(axis=1)
    p_mean, t_mean = (off + on) @ values / n, on.sum(axis=1) / n
    p_centred = values - p_mean[:, None]  # (4, 256)
    p_variance = ((off + on) * p_centred**2).sum(axis=1)
    t_variance = n * t_mean * (1 - t_mean)
    covariance = (on * p_centred).sum(axis=1)
    # The factors n - 1 of the three (co)variances cancel.
    similarity = 4 * p_mean * t_mean * covariance
    similarity /= (p_mean**2 + t_mean**2) * (p_variance + t_variance)
    return np.where(p_variance + t_variance < CONSTANT, 1.0, similarity)
