"""Collection-aware thumbnails: one aspect, one scale of the object (GCoNet+, section 5)."""

from typing import NamedTuple

import cv2
import numpy as np

from gconet_jax.inference.outputs import adaptive_mask

ENLARGED = 1.2  # an object's box about its centre, so that its surroundings show
LEAST_AREA = 0.1  # of the largest part: smaller parts of a mask are specks


class Box(NamedTuple):
    """A rectangle of pixels, its far edges exclusive; it may reach beyond the photo."""

    left: float
    top: float
    right: float
    bottom: float


def object_box(mask: np.ndarray) -> Box | None:
    """The tight box about the object, bool (H, W), specks aside; None without an object."""
    count, _, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8))
    if count < 2:
        return None
    areas = stats[1:, cv2.CC_STAT_AREA]
    left, top, width, height = stats[1:][areas >= LEAST_AREA * areas.max(), :4].T
    return Box(left.min(), top.min(), (left + width).max(), (top + height).max())


def thumbnail(photo: np.ndarray, pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A thumbnail of a photo of a collection, uint8 (size[1], size[0], 3).

    The crop has the aspect of `size` and is the smallest about the enlarged box of the object, so
    that the objects of a collection fill their thumbnails alike. It is moved into the photo where
    it fits, and continues the photo by its mirror image where it does not. Without an object it is
    the photo's middle.

    Args:
        photo: (H, W, 3) uint8.
        pixels: its map, (H, W) in [0, 1].
        size: (width, height) for the whole collection, pixels.
    """
    box = crop_box(photo.shape, object_box(adaptive_mask(pixels)), size)
    return _crop(photo, box, size)


def crop_box(shape: tuple[int, ...], box: Box | None, size: tuple[int, int]) -> Box:
    """What is shown of a photo (H, W, ...) whose object is in `box`; see `thumbnail`."""
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
    """Moves an interval into [0, limit], or leaves it about its middle if it is longer."""
    return start if length > limit else min(max(start, 0.0), limit - length)


def _crop(photo: np.ndarray, box: Box, size: tuple[int, int]) -> np.ndarray:
    scale_x, scale_y = size[0] / (box.right - box.left), size[1] / (box.bottom - box.top)
    if scale_x < 1:  # shrunk first, with every pixel counted: warping looks at the nearest alone
        height, width = photo.shape[:2]
        small = (max(1, round(width * scale_x)), max(1, round(height * scale_y)))
        box = Box(*(np.array(box) * np.tile([small[0] / width, small[1] / height], 2)))
        photo = cv2.resize(photo, small, interpolation=cv2.INTER_AREA)
        scale_x, scale_y = size[0] / (box.right - box.left), size[1] / (box.bottom - box.top)
    # Centres of pixels are at .5.
    matrix = np.array(
        [
            [scale_x, 0, (0.5 - box.left) * scale_x - 0.5],
            [0, scale_y, (0.5 - box.top) * scale_y - 0.5],
        ]
    )
    return cv2.warpAffine(
        photo, matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101
    )
