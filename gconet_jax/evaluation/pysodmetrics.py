"""Scores of one saliency map by PySODMetrics, through the library itself.

It differs from eval-co-sod (`metrics.py`): 256 thresholds, truth above 128, a prediction that is
min-max normalised for MAE too, black and white truths apart in E, another centroid in S.
"""

import warnings

import numpy as np
from numpy.typing import NDArray

from gconet_jax.evaluation.metrics import check_maps
from gconet_jax.evaluation.scores import ImageScores

Pixels = NDArray[np.uint8]


def score_image(prediction: Pixels, truth: Pixels) -> ImageScores:
    """Scores one saliency map, (H, W) uint8, against a truth of the same shape.

    S is NaN where the library has it: the foreground's centroid lies in the last row or column.

    Raises:
        ValueError: the shapes differ, or a map is not 2-D, is empty, or is not uint8.
    """
    import py_sod_metrics as library  # half a second to import, with scikit-image

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
    with warnings.catch_warnings():  # of means of nothing, where S is undefined
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
        emeasure=alignment['curve'][::-1],  # the library's fall with the threshold
        **{name: overlap[name]['dynamic'][::-1] for name in handlers},
        confidence=np.bincount(prediction.ravel(), minlength=256) / prediction.size,
    )
