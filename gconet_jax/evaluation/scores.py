"""The scores of each image, and the metrics of a set, a group or an image computed from them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gconet_jax.input_pipeline.files import ImageFile

Array = NDArray[np.floating]
Score = Any  # np.float64 for one image, (n,) for several


class ImageScores(NamedTuple):
    """Scores of one image, in [0, 1]; with a leading axis, of several images.

    A score that the protocol leaves undefined is NaN. Curves are over the protocol's T thresholds,
    ascending: 255 (eval-co-sod) or 256 (pysodmetrics).
    """

    mae: Score
    smeasure: Score
    wfmeasure: Score
    adaptive_fmeasure: Score  # adaptive: at twice the mean of the map, at most 1
    adaptive_emeasure: Score
    adaptive_iou: Score
    adaptive_dice: Score
    fmeasure: Array  # (T,)
    emeasure: Array  # (T,); the measure's normalisation allows up to 1 + 1 / (H*W - 1)
    iou: Array  # (T,)
    dice: Array  # (T,)
    precision: Array  # (T,)
    recall: Array  # (T,); also the true-positive rate of the ROC curve
    false_positive_rate: Array  # (T,)
    confidence: Array  # (256,) share of the pixels with each saved 8-bit value


class ScoredImage(NamedTuple):
    """The files that were scored.

    Attributes:
        group: name of the group.
        name: name of the image in its group, without suffix.
        image: the photograph, if available.
        truth: the ground truth.
        map: the map that was scored against it.
        resized: whether the map and the truth differ in size.
    """

    group: str
    name: str
    image: ImageFile | None
    truth: ImageFile
    map: Path
    resized: bool


@dataclass(frozen=True)
class SetScores:
    """The scores of one set of maps.

    Attributes:
        dataset: name of the set of images.
        protocol: 'eval-co-sod' or 'pysodmetrics'.
        images: the n images, group by group.
        scores: their scores, each field with a leading axis of n.
        remarks: messages about irregular files.
    """

    dataset: str
    protocol: str
    images: tuple[ScoredImage, ...]
    scores: ImageScores
    remarks: tuple[str, ...] = ()

    def groups(self) -> dict[str, list[int]]:
        """Return the indices of the images of each group."""
        groups: dict[str, list[int]] = {}
        for i, image in enumerate(self.images):
            groups.setdefault(image.group, []).append(i)
        return groups

    def summary(self, images: Sequence[int] | None = None) -> dict[str, float]:
        """Return the metrics of the whole set, or of the given images; see `summarize`."""
        return summarize(self.scores if images is None else take(self.scores, images))

    def undefined(self) -> list[ScoredImage]:
        """Return the images whose S the protocol leaves undefined."""
        return [self.images[i] for i in np.flatnonzero(np.isnan(self.scores.smeasure))]


def stack(scores: Sequence[ImageScores]) -> ImageScores:
    """Stack the scores of single images along a leading axis; ValueError if there are none."""
    if not scores:
        raise ValueError('no image to score: at least one is needed')
    return ImageScores._make(np.stack(column) for column in zip(*scores, strict=True))


def take(scores: ImageScores, images: Sequence[int]) -> ImageScores:
    """Select the scores of some images."""
    return ImageScores._make(column[np.asarray(images)] for column in scores)


def summarize(scores: ImageScores) -> dict[str, float]:
    """Compute the published metrics of a set of images; `scores` have a leading axis.

    All are in [0, 1], except that E can reach 1 + 1 / (H*W - 1) and S may be NaN.

    Curves are averaged over the images before the maximum or mean over thresholds, and before the
    areas AP and AUC. `smeasure` is NaN if it is undefined for any image, as in the toolboxes;
    `defined_smeasure` ignores such images.
    """
    mean = ImageScores._make(column.mean(axis=0) for column in scores)
    defined = scores.smeasure[~np.isnan(scores.smeasure)]
    return {
        'mae': float(mean.mae),
        'smeasure': float(mean.smeasure),
        'max_emeasure': float(mean.emeasure.max()),
        'mean_emeasure': float(mean.emeasure.mean()),
        'adaptive_emeasure': float(mean.adaptive_emeasure),
        'max_fmeasure': float(mean.fmeasure.max()),
        'mean_fmeasure': float(mean.fmeasure.mean()),
        'adaptive_fmeasure': float(mean.adaptive_fmeasure),
        'wfmeasure': float(mean.wfmeasure),
        'max_iou': float(mean.iou.max()),
        'adaptive_iou': float(mean.adaptive_iou),
        'max_dice': float(mean.dice.max()),
        'adaptive_dice': float(mean.adaptive_dice),
        'ap': average_precision(mean.precision, mean.recall),
        'auc': area_under_roc(mean.recall, mean.false_positive_rate),
        'min_ber': balanced_error_rate(mean.recall, mean.false_positive_rate),
        'defined_smeasure': float(defined.mean()) if defined.size else float('nan'),
    }


def mean_smeasure(summaries: Iterable[Mapping[str, float]]) -> float:
    """Return the defined S averaged over sets, by which checkpoints are chosen."""
    return float(np.mean([summary['defined_smeasure'] for summary in summaries]))


def average_precision(precision: Array, recall: Array) -> float:
    """Return the area under a PR curve, in [0, 1]; both (T,), recall falls with the threshold.

    Precision is first raised to the best precision at that recall or higher (PASCAL VOC 2010).
    """
    best = np.maximum.accumulate(precision)
    return float(np.sum((recall - np.append(recall[1:], 0)) * best))


def area_under_roc(true_positive_rate: Array, false_positive_rate: Array) -> float:
    """Return the area under a ROC curve by the trapezoid rule, in [0, 1]; both rates are (T,).

    Where false-positive rates tie, the curve rises vertically from the lowest true-positive rate to
    the highest.
    """
    order = np.lexsort((true_positive_rate, false_positive_rate))
    return float(np.trapezoid(true_positive_rate[order], false_positive_rate[order]))


def balanced_error_rate(true_positive_rate: Array, false_positive_rate: Array) -> float:
    """Return the lowest mean of miss rate and false-alarm rate over the thresholds; both are (T,).

    Object and background count equally, however small the object is. The result is in [0, 0.5],
    because everything passes the first threshold. For a black truth, whose recall is always 0, it
    is in [0.5, 1].
    """
    return float(np.min((1 - true_positive_rate + false_positive_rate) / 2))
