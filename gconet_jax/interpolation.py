"""Bilinear interpolation with aligned corners, as the released code resizes everywhere."""

import functools

import numpy as np


@functools.cache
def interpolation_matrix(inputs: int, outputs: int) -> np.ndarray:
    """(outputs, inputs) float32: linear interpolation that maps end points to end points.

    PyTorch's `align_corners=True`, in one dimension. Rows sum to 1.
    """
    matrix = np.zeros((outputs, inputs), np.float32)
    scale = np.float32(inputs - 1) / np.float32(outputs - 1) if outputs > 1 else np.float32(0)
    position = np.arange(outputs, dtype=np.float32) * scale
    lower = np.minimum(position.astype(int), inputs - 1)
    upper = np.minimum(lower + 1, inputs - 1)
    fraction = position - lower.astype(np.float32)
    rows = np.arange(outputs)
    np.add.at(matrix, (rows, lower), 1 - fraction)
    np.add.at(matrix, (rows, upper), fraction)
    return matrix
