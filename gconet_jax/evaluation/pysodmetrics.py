"""Scores of one saliency map by the PySODMetrics library itself.

It differs from eval-co-sod (`metrics.py`): it has 256 thresholds, cuts the truth above 128,
normalises the prediction for MAE too, handles black and white truths separately in E, and uses
another centroid in S.
"""

import warnings

import numpy as np
from numpy.typing import NDArray

from gconet_jax.evaluation.metrics import check_maps
from gconet_jax.evaluation.scores import ImageScores

Pixels = NDArray[np.uint8]


def score_image(prediction: Pixels, truth: Pixels) -> ImageScores:
    """Score one saliency map, uint8 (H, W), against a truth of the same shape.

    S is NaN where it is in the library: the foreground's centroid lies in the last row or column.

    Raises:
        ValueError: the shapes differ, or a map is not 2-D, is empty, or is not uint8.
    """
    import py_sod_metrics as library  # takes half a second, with scikit-image

    check_maps(prediction, truth)
    mae, s, e = library.MAE(), library.Smeasure(), library.Emeasure()
    wf = library.WeightedFmeasure()
    handlers = {
        'fmeasure': library.FmeasureHandler,
        'iou': library.IOUHandler,
        'dice': library.DICEHandler,
        'precision': library.PrecisionHandler,
        'recall': library.RecallHandler,
        'false_positive_rate': library.FPRHandler,
    }
    overlaps = library.FmeasureV2(
        {name: handler(with_dynamic=True, with_adaptive=True) for name, handler in handlers.items()}
    )
    with warnings.catch_warnings():  # means of empty arrays, where S is undefined
        warnings.simplefilter('ignore', RuntimeWarning)
        for measure in (mae, s, e, wf, overlaps):
            measure.step(prediction, truth)
    alignment, overlap = e.get_results()['em'], overlaps.get_results()
    return ImageScores(
        mae=mae.get_results()['mae'],
        smeasure=s.get_results()['sm'],
        wfmeasure=wf.get_results()['wfm'],
        adaptive_fmeasure=overlap['fmeasure']['adaptive'],
        adaptive_emeasure=alignment['adp'],
        adaptive_iou=overlap['iou']['adaptive'],
        adaptive_dice=overlap['dice']['adaptive'],
        emeasure=alignment['curve'][::-1],  # the library's curves descend with the threshold
        **{name: overlap[name]['dynamic'][::-1] for name in handlers},
        confidence=np.bincount(prediction.ravel(), minlength=256) / prediction.size,
    )
