"""What is known of each scored image, and the numbers of a set, a group or an image made of it."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gconet_jax.input_pipeline.files import ImageFile

Array = NDArray[np.floating]
Score = Any  # np.float64 of one image, (n,) of several


class ImageScores(NamedTuple):
    """Scores of one image, in [0, 1]; or, with a leading axis, of several.

    NaN where the protocol leaves a score undefined. Curves are over the protocol's T thresholds,
    rising: 255 (eval-co-sod) or 256 (pysodmetrics).
    """

    mae: Score
    smeasure: Score
    wfmeasure: Score
    adaptive_fmeasure: Score  # adaptive: at twice the mean of the map, at most 1
    adaptive_emeasure: Score
    adaptive_iou: Score
    adaptive_dice: Score
    fmeasure: Array  # (T,)
    emeasure: Array  # (T,); can exceed 1 by 1 / (H*W - 1), the measure's normalisation
    iou: Array  # (T,)
    dice: Array  # (T,)
    precision: Array  # (T,)
    recall: Array  # (T,); also the true-positive rate of the ROC curve
    false_positive_rate: Array  # (T,)
    confidence: Array  # (256,) share of the pixels that have each 8-bit value, as saved


class ScoredImage(NamedTuple):
    """Which files were scored.

    Attributes:
        group: name of the group.
        name: of the image in its group, without suffix.
        image: the photograph, if it is at hand.
        truth: the ground truth.
        map: what was scored against it.
        resized: whether the map had another size than the truth.
    """

    group: str
    name: str
    image: ImageFile | None
    truth: ImageFile
    map: Path
    resized: bool


@dataclass(frozen=True)
class SetScores:
    """One set of maps, scored.

    Attributes:
        dataset: name of the set of images.
        protocol: 'eval-co-sod' or 'pysodmetrics'.
        images: n of them, group by group.
        scores: their scores, each field with a leading axis of n.
        remarks: lines on what was odd about the files, for people.
    """

    dataset: str
    protocol: str
    images: tuple[ScoredImage, ...]
    scores: ImageScores
    remarks: tuple[str, ...] = ()

    def groups(self) -> dict[str, list[int]]:
        """The indices of the images of each group."""
        groups: dict[str, list[int]] = {}
        for i, image in enumerate(self.images):
            groups.setdefault(image.group, []).append(i)
        return groups

    def summary(self, images: Sequence[int] | None = None) -> dict[str, float]:
        """The numbers of the whole set, or of these images of it; see `summarize`."""
        return summarize(self.scores if images is None else take(self.scores, images))

    def undefined(self) -> list[ScoredImage]:
        """The images whose S the protocol leaves undefined."""
        return [self.images[i] for i in np.flatnonzero(np.isnan(self.scores.smeasure))]


def stack(scores: Sequence[ImageScores]) -> ImageScores:
    """Scores of single images as one, with a leading axis; ValueError if there is none."""
    if not scores:
        raise ValueError('no image to score: at least one is needed')
    return ImageScores._make(np.stack(column) for column in zip(*scores, strict=True))


def take(scores: ImageScores, images: Sequence[int]) -> ImageScores:
    """The scores of some of the images."""
    return ImageScores._make(column[np.asarray(images)] for column in scores)


def summarize(scores: ImageScores) -> dict[str, float]:
    """The published numbers of a set of images; `scores` have a leading axis.

    In [0, 1], but that E may exceed 1 by 1 / (H*W - 1), and that S may be NaN.

    Curves are averaged over the images before the maximum or the mean over thresholds is taken, and
    before the areas AP and AUC. `smeasure` is NaN, as the toolboxes have it, if it is undefined for
    any image; `defined_smeasure` leaves such images out.
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
    """S, where it is defined, averaged over sets: what checkpoints are chosen by."""
    return float(np.mean([summary['defined_smeasure'] for summary in summaries]))


def average_precision(precision: Array, recall: Array) -> float:
    """Area under a PR curve, in [0, 1]; both (T,), recall falls with the threshold.

    Precision is first raised to the best at that recall or a higher one (PASCAL VOC 2010).
    """
    best = np.maximum.accumulate(precision)
    return float(np.sum((recall - np.append(recall[1:], 0)) * best))


def area_under_roc(true_positive_rate: Array, false_positive_rate: Array) -> float:
    """Area under a ROC curve (both rates (T,)) by the trapezoid rule, in [0, 1].

    Where rates of false positives tie, the curve rises straight up, from the least rate of true
    positives to the most.
    """
    order = np.lexsort((true_positive_rate, false_positive_rate))
    return float(np.trapezoid(true_positive_rate[order], false_positive_rate[order]))


def balanced_error_rate(true_positive_rate: Array, false_positive_rate: Array) -> float:
    """The least mean of the rates of misses and of false alarms; both rates (T,).

    An object counts as much as its background, however small it is. In [0, 0.5], for at the first
    threshold everything passes; but in [0.5, 1] of a black truth, whose recall is 0 throughout.
    """
    return float(np.min((1 - true_positive_rate + false_positive_rate) / 2))
