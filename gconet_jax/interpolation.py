"""Linear interpolation with aligned corners, which the released code uses for all resizing."""

import functools

import numpy as np


@functools.cache
def interpolation_matrix(inputs: int, outputs: int) -> np.ndarray:
    """Return the matrix of linear interpolation along one axis, (outputs, inputs) float32.

    End points map to end points, as under PyTorch's `align_corners=True`. Rows sum to 1.
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
