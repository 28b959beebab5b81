"""Weighted F-measure of Margolin, Zelnik-Manor and Tal (CVPR 2014), b² = 1."""

import math
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt

Array = NDArray[np.floating]

RADIUS = 3  # of the 7 x 7 Gaussian that spreads errors within the foreground, pixels
SIGMA = 5.0  # its standard deviation, pixels
HALF_DISTANCE = 5.0  # distance from the object at which a false alarm's weight is 1.5, pixels

_KERNEL = np.exp(-(np.arange(-RADIUS, RADIUS + 1) ** 2) / (2 * SIGMA**2))
_KERNEL /= _KERNEL.sum()


def weighted_fmeasure(
    values: Array, prediction: NDArray[np.uint8], foreground: NDArray[np.bool_]
) -> float:
    """Return the weighted F of a map, in [0, 1]; 0 if there is no foreground.

    The error of a foreground pixel is the smaller of its own error and the average around it; in
    that average, background takes the error of the nearest foreground. Errors in the background
    count more with increasing distance from the object.

    Args:
        values: (256,) normalised map levels.
        prediction: (H, W), map levels.
        foreground: (H, W), the truth.
    """
    size = np.count_nonzero(foreground)
    if size == 0:
        return 0.0
    background = (~foreground).astype(np.uint8)
    error = cv2.LUT(prediction, values.astype(np.float32))  # of the background; 1 - p elsewhere
    distance = cv2.distanceTransform(background, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    # Weights matter only in the background, where distances are at least 1.
    weight = 2 - np.exp(distance * (math.log(0.5) / HALF_DISTANCE))
    false = float(np.vdot(error * background, weight))
    missed = _missed(error, foreground)
    hit = size - missed
    recall, precision = 1 - missed / size, hit / (hit + false + np.spacing(1.0))
    return float(2 * recall * precision / (recall + precision + np.spacing(1.0)))


def _missed(values: NDArray[Any], foreground: NDArray[np.bool_]) -> float:
    """Return the sum of smoothed foreground errors, computed in a box around the object."""
    rows, columns = (np.flatnonzero(np.any(foreground, axis=axis)) for axis in (1, 0))
    box = tuple(
        slice(max(places[0] - RADIUS, 0), places[-1] + RADIUS + 1) for places in (rows, columns)
    )
    inside = foreground[box]
    error = 1 - values[box].astype(np.float64)
    nearest: Any = distance_transform_edt(~inside, return_distances=False, return_indices=True)
    spread = cv2.sepFilter2D(
        error[tuple(nearest)], -1, _KERNEL, _KERNEL, borderType=cv2.BORDER_CONSTANT
    )
    return float(np.minimum(error, spread)[inside].sum())
