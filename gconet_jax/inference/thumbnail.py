"""Collection-aware thumbnails with a common aspect ratio and object scale (GCoNet+, section 5)."""

from typing import NamedTuple

import cv2
import numpy as np

from gconet_jax.inference.outputs import adaptive_mask

ENLARGED = 1.2  # factor on the size of an object's box, to show some surroundings
LEAST_AREA = 0.1  # parts of a mask below this fraction of its largest part are ignored


class Box(NamedTuple):
    """A rectangle in pixels; right and bottom are exclusive. It may extend beyond the photo."""

    left: float
    top: float
    right: float
    bottom: float


def object_box(mask: np.ndarray) -> Box | None:
    """Return the bounding box of a mask, bool (H, W), without specks; None if it is empty."""
    count, _, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8))
    if count < 2:
        return None
    areas = stats[1:, cv2.CC_STAT_AREA]
    left, top, width, height = stats[1:][areas >= LEAST_AREA * areas.max(), :4].T
    return Box(left.min(), top.min(), (left + width).max(), (top + height).max())


def thumbnail(photo: np.ndarray, pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Crop a photo around its object and resize it to a thumbnail.

    The crop is the smallest one with the aspect ratio of `size` that contains the object's enlarged
    box, so that objects have a similar scale throughout a collection. It is shifted into the photo
    if it fits; otherwise the photo is continued by reflection. Without an object, the crop is the
    middle of the photo.

    Args:
        photo: (H, W, 3) uint8.
        pixels: its map, (H, W) in [0, 1].
        size: (width, height), the same for the whole collection, pixels.

    Returns:
        uint8 (size[1], size[0], 3).
    """
    box = crop_box(photo.shape, object_box(adaptive_mask(pixels)), size)
    return _crop(photo, box, size)


def crop_box(shape: tuple[int, ...], box: Box | None, size: tuple[int, int]) -> Box:
    """Return the crop of a photo of `shape` (H, W, ...) with its object in `box`.

    See `thumbnail` for the rules, and for `size`.
    """
    height, width = shape[:2]
    aspect = size[0] / size[1]
    if box is None:
        wide, high = min(width, height * aspect), min(height, width / aspect)
        x, y = width / 2, height / 2
    else:
        w, h = ENLARGED * (box.right - box.left), ENLARGED * (box.bottom - box.top)
        wide, high = max(w, h * aspect), max(h, w / aspect)
        x, y = (box.left + box.right) / 2, (box.top + box.bottom) / 2
    left, top = _within(x - wide / 2, wide, width), _within(y - high / 2, high, height)
    return Box(left, top, left + wide, top + high)


def _within(start: float, length: float, limit: float) -> float:
    """Return the start of an interval shifted into [0, limit], or unchanged if it is longer."""
    return start if length > limit else min(max(start, 0.0), limit - length)


def _crop(photo: np.ndarray, box: Box, size: tuple[int, int]) -> np.ndarray:
    scale_x, scale_y = size[0] / (box.right - box.left), size[1] / (box.bottom - box.top)
    if scale_x < 1:  # shrink by area first: warping samples only the nearest pixels
        height, width = photo.shape[:2]
        small = (max(1, round(width * scale_x)), max(1, round(height * scale_y)))
        box = Box(*(np.array(box) * np.tile([small[0] / width, small[1] / height], 2)))
        photo = cv2.resize(photo, small, interpolation=cv2.INTER_AREA)
        scale_x, scale_y = size[0] / (box.right - box.left), size[1] / (box.bottom - box.top)
    # Pixel centres are at half-integer coordinates.
    matrix = np.array(
        [
            [scale_x, 0, (0.5 - box.left) * scale_x - 0.5],
            [0, scale_y, (0.5 - box.top) * scale_y - 0.5],
        ]
    )
    return cv2.warpAffine(
        photo, matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101
    )
