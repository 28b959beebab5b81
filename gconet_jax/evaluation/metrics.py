"""Scores of saliency maps under the eval-co-sod protocol, in plain numpy.

`summarize(score_image(prediction, truth) for prediction, truth in pairs)` gives the table's row.

The protocol (github.com/zzhanghub/eval-co-sod): the ground truth stays grey for MAE, E and F and
is cut at 0.5 for S; the prediction is min-max normalised for all but MAE, then compared (`>=`) with
255 thresholds i / 254 in float32. Curves are averaged over the images before the maximum.

The published toolbox gives NaN where S is undefined (a single foreground pixel, an empty quadrant,
a truth that is empty only after the cut); here these have finite scores.
"""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating]
Image = NDArray[np.floating] | NDArray[np.uint8]

THRESHOLDS = (np.arange(255) / 254).astype(np.float32)
GREYS = (np.arange(256) / 255).astype(np.float32)  # the values an 8-bit map can have
BETA_SQUARED = 0.3  # weight of precision against recall in F (Achanta 2009)
ALPHA = 0.5  # weight of the object term against the region term in S (Fan 2017)
TINY = 1e-20  # keeps a quotient of zeros at zero


class ImageScores(NamedTuple):
    """Scores of one image or averages over a set, in [0, 1]; curves are over `THRESHOLDS`."""

    mae: float
    smeasure: float
    fmeasure: Array  # (255,)
    emeasure: Array  # (255,); can exceed 1 by 1 / (H*W - 1), the protocol's normalisation
    precision: Array  # (255,)
    recall: Array  # (255,); also the true-positive rate of the ROC curve
    false_positive_rate: Array  # (255,)


def score_image(prediction: Image, truth: Image) -> ImageScores:
    """Scores one saliency map.

    Args:
        prediction: (H, W), float in [0, 1], or uint8, which is divided by 255.
        truth: (H, W), the same; grey edges are kept.

    Raises:
        ValueError: the shapes differ, or a map is not 2-D, is empty, has another dtype, or holds
            values outside [0, 1].
    """
    if np.shape(prediction) != np.shape(truth):
        raise ValueError(
            f'prediction {np.shape(prediction)} and truth {np.shape(truth)} differ in shape; '
            'resize the prediction to the size of the truth'
        )
    prediction, truth = _unit_range(prediction, 'prediction'), _unit_range(truth, 'truth')
    normalised = minmax(prediction)
    passed = np.searchsorted(THRESHOLDS, normalised.ravel(), side='right')
    precision, recall, false_positive_rate = threshold_rates(passed, truth.ravel())
    return ImageScores(
        mae=mean_absolute_error(prediction, truth),
        smeasure=smeasure(normalised, truth),
        fmeasure=fmeasure_curve(precision, recall),
        emeasure=emeasure_curve(passed, truth.ravel()),
        precision=precision,
        recall=recall,
        false_positive_rate=false_positive_rate,
    )


def mean_scores(scores: Iterable[ImageScores]) -> ImageScores:
    """Averages every score and curve over the images; ValueError if there is none."""
    columns = list(zip(*scores, strict=True))
    if not columns:
        raise ValueError('no image to average: at least one score is needed')
    return ImageScores._make(np.mean(column, axis=0) for column in columns)


def summarize(scores: Iterable[ImageScores]) -> dict[str, float]:
    """The published numbers of a set of images, each in [0, 1]; ValueError if there is no image.

    AP and AUC come from the averaged precision, recall and false-positive curves.
    """
    mean = mean_scores(scores)
    return {
        'mae': float(mean.mae),
        'max_fmeasure': float(mean.fmeasure.max()),
        'mean_fmeasure': float(mean.fmeasure.mean()),
        'max_emeasure': float(mean.emeasure.max()),
        'mean_emeasure': float(mean.emeasure.mean()),
        'smeasure': float(mean.smeasure),
        'ap': average_precision(mean.precision, mean.recall),
        'auc': area_under_roc(mean.recall, mean.false_positive_rate),
    }


def minmax(prediction: Array) -> Array:
    """Stretches a map to [0, 1]; a constant map becomes 0. Float32 in, float32 out."""
    low, high = prediction.min(), prediction.max()
    return (prediction - low) / max(high - low, np.float32(TINY))


def mean_absolute_error(prediction: Array, truth: Array) -> float:
    """MAE = mean |prediction - truth| of two maps of one shape, neither normalised."""
    return float(np.abs(prediction - truth).mean(dtype=np.float64))


def threshold_rates(passed: NDArray[np.intp], truth: Array) -> tuple[Array, Array, Array]:
    """Precision, recall and false-positive rate, (255,) each, against a grey truth.

    `passed` (n,) says how many thresholds each pixel reaches, 1 to 255. A pixel of truth g, in
    [0, 1], counts g towards the foreground and 1 - g towards the background.
    """
    on = _at_or_above(np.bincount(passed, minlength=256))
    true_on = _at_or_above(np.bincount(passed, weights=truth, minlength=256))
    false_on = _at_or_above(np.bincount(passed, weights=1 - truth, minlength=256))
    # Every pixel reaches threshold 0, so the first entry is the sum over the image.
    return (
        true_on / np.maximum(on, 1),
        true_on / max(true_on[0], TINY),
        false_on / max(false_on[0], TINY),
    )


def fmeasure_curve(precision: Array, recall: Array) -> Array:
    """F = (1 + b²) P R / (b² P + R), b² = 0.3, and 0 where P = R = 0 (Achanta et al., 2009)."""
    weighted = np.maximum(BETA_SQUARED * precision + recall, TINY)
    return (1 + BETA_SQUARED) * precision * recall / weighted


def emeasure_curve(passed: NDArray[np.intp], truth: Array) -> Array:
    """E-measure at every threshold, (255,) (Fan et al., 2018, eqs. 3 to 5).

    E = sum (2 g p / (g² + p²) + 1)² / 4 / (n - 1), g and p the truth and the thresholded prediction
    less their means. p takes two values, so counting pixels by (threshold, grey) is enough; the
    cost grows with the number of greys. `passed` and `truth` (n,) as in `threshold_rates`.
    """
    n = truth.size
    on_share = _at_or_above(np.bincount(passed, minlength=256)) / n
    greys, index = _distinct_greys(truth)
    centred = greys - np.bincount(index, minlength=greys.size) @ greys / n
    total = np.zeros(THRESHOLDS.size)
    # In blocks of greys, so that a float truth needs no (n, 255) table.
    for start in range(0, greys.size, 256):
        g = centred[start : start + 256, None]
        here = (index >= start) & (index < start + 256)
        cells = (index[here] - start) * 256 + passed[here]
        on = _at_or_above(np.bincount(cells, minlength=g.size * 256).reshape(g.size, 256))
        off = on[:, :1] - on  # every pixel reaches threshold 0
        total += (on * _alignment(g, 1 - on_share) + off * _alignment(g, -on_share)).sum(axis=0)
    return total / max(n - 1, 1)


def smeasure(prediction: Array, truth: Array) -> float:
    """S-measure, half object and half region similarity, at least 0 (Fan et al., 2017).

    An empty truth scores 1 - mean(prediction), a full one mean(prediction).

    Args:
        prediction: (H, W), min-max normalised.
        truth: (H, W), in [0, 1]; foreground where >= 0.5.
    """
    prediction = prediction.astype(np.float64)
    foreground = truth >= 0.5
    share = foreground.mean()
    if share == 0:
        return float(1 - prediction.mean())
    if share == 1:
        return float(prediction.mean())
    object_term = share * _object_similarity(prediction[foreground])
    object_term += (1 - share) * _object_similarity(1 - prediction[~foreground])
    region_term = _region_similarity(prediction, foreground)
    return float(max(ALPHA * object_term + (1 - ALPHA) * region_term, 0))


def average_precision(precision: Array, recall: Array) -> float:
    """Area under the averaged PR curve, in [0, 1]; both (255,), recall falls with the threshold.

    Precision is first raised to the best at that recall or a higher one (PASCAL VOC 2010).
    """
    best = np.maximum.accumulate(precision)
    return float(np.sum((recall - np.append(recall[1:], 0)) * best))


def area_under_roc(true_positive_rate: Array, false_positive_rate: Array) -> float:
    """Area under the averaged ROC curve (both rates (255,)) by the trapezoid rule."""
    # Stable, because rates that tie must stay in the order of the thresholds.
    order = np.argsort(false_positive_rate, kind='stable')
    return float(np.trapezoid(true_positive_rate[order], false_positive_rate[order]))


def _unit_range(image: Image, name: str) -> Array:
    if image.ndim != 2 or image.size == 0:
        raise ValueError(f'{name} must be a non-empty (H, W) map, not of shape {image.shape}')
    if image.dtype == np.uint8:
        return GREYS[np.asarray(image, np.uint8)]
    if not np.issubdtype(image.dtype, np.floating):
        raise ValueError(f'{name} must be uint8 or float in [0, 1], not {image.dtype}')
    if not (image.min() >= 0 and image.max() <= 1):  # written so that NaN fails too
        raise ValueError(f'{name} must lie in [0, 1], not in [{image.min()}, {image.max()}]')
    return image.astype(np.float32)


def _distinct_greys(truth: Array) -> tuple[Array, NDArray[np.intp]]:
    """The truth's greys and, for each pixel, which of them it has; 8-bit truths need no sort."""
    codes = np.rint(truth * 255).astype(np.intp)
    if not np.array_equal(GREYS[codes], truth):
        greys, index = np.unique(truth, return_inverse=True)
        return greys.astype(np.float64), index
    present = np.bincount(codes, minlength=256) > 0
    return GREYS[present].astype(np.float64), (np.cumsum(present) - 1)[codes]


def _at_or_above(histogram: NDArray) -> NDArray:
    """(..., 256) pixels by thresholds reached -> (..., 255) pixels that reach each threshold."""
    return histogram[..., :0:-1].cumsum(axis=-1)[..., ::-1]


def _alignment(g: Array, p: Array) -> Array:
    return (2 * g * p / (g * g + p * p + TINY) + 1) ** 2 / 4


def _object_similarity(values: Array) -> float:
    mean, spread = values.mean(), values.std(ddof=1) if values.size > 1 else 0.0
    return 2 * mean / (mean * mean + 1 + spread)


def _region_similarity(prediction: Array, foreground: NDArray[np.bool_]) -> float:
    """SSIM of the four rectangles about the foreground's centroid, weighted by their areas."""
    h, w = foreground.shape
    y = round(foreground.sum(axis=1) @ np.arange(h) / foreground.sum())  # 0-based, halves to even
    x = round(foreground.sum(axis=0) @ np.arange(w) / foreground.sum())
    total = 0.0
    for part in np.s_[:y, :x], np.s_[:y, x:], np.s_[y:, :x], np.s_[y:, x:]:
        weight = prediction[part].size / prediction.size
        if weight > 0:
            total += weight * _structural_similarity(prediction[part], foreground[part])
    return total


def _structural_similarity(p: Array, t: NDArray[np.bool_]) -> float:
    p_mean, t_mean = p.mean(), t.mean()
    p_centred, t_centred = p - p_mean, t - t_mean
    # The n - 1 of the three (co)variances cancels; a quotient of zeros counts as equal.
    numerator = 4 * p_mean * t_mean * (p_centred * t_centred).sum()
    denominator = (p_mean**2 + t_mean**2) * ((p_centred**2).sum() + (t_centred**2).sum())
    return float(numerator / denominator) if denominator > 0 else 1.0
