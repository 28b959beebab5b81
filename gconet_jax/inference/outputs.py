"""Pictures made from a photo and its map: masks, overlays, cut-outs and contact sheets."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from gconet_jax.whole_file import whole_file

TILE = 160  # pixels, height of photos in a contact sheet
COLUMNS = 4
GAP = 8
NEARLY = 0.9  # the adaptive threshold is at most this fraction of the map's maximum
DIMMED = 0.35  # fraction of its brightness that the background keeps in overlays
OUTLINE = (255, 60, 60)


def grey(pixels: np.ndarray) -> np.ndarray:
    """Convert a map (H, W) in [0, 1] to uint8: 255·M rounded down, as in the released code."""
    return (pixels * 255).astype(np.uint8)


def adaptive_mask(pixels: np.ndarray) -> np.ndarray:
    """Binarise a map (H, W) in [0, 1] with an adaptive threshold; returns bool (H, W).

    The threshold is twice the map's mean (GCoNet+, section 5; Achanta et al., CVPR 2009), but at
    most NEARLY times its maximum. They limit it to the maximum itself, which leaves only specks of
    an object that fills half of the photo. The mask of a black map is empty.
    """
    threshold = min(2 * float(pixels.mean()), NEARLY * float(pixels.max()))
    return (pixels >= threshold) & (pixels > 0)


def overlay(photo: np.ndarray, pixels: np.ndarray, mask: np.ndarray | None = None) -> np.ndarray:
    """Dim the photo where the map is low, and outline the object.

    Args:
        photo: (H, W, 3) uint8, RGB.
        pixels: the map, (H, W) in [0, 1].
        mask: (H, W) bool, the object to outline; by default `adaptive_mask(pixels)`.

    Returns:
        (H, W, 3) uint8, RGB.
    """
    light = DIMMED + (1 - DIMMED) * pixels[..., None]
    picture = np.ascontiguousarray((photo * light).astype(np.uint8))
    object_ = (adaptive_mask(pixels) if mask is None else mask).astype(np.uint8)
    contours, _ = cv2.findContours(object_, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(picture, contours, -1, OUTLINE, max(1, round(max(photo.shape) / 300)))
    return picture


def cutout(photo: np.ndarray, pixels: np.ndarray) -> np.ndarray:
    """Return the photo with the map as its alpha channel, (H, W, 4) uint8."""
    return np.dstack([photo, grey(pixels)])


def tile(photo: np.ndarray, pixels: np.ndarray) -> Image.Image:
    """Return a small `photo | overlay` picture for a contact sheet."""
    height, width = photo.shape[:2]
    size = (max(1, round(min(width / height, 2) * TILE)), TILE)
    small, small_map = (_small(x, size) for x in (photo, pixels))
    pair = Image.new('RGB', (2 * size[0] + 2, TILE), 'white')
    for x, part in zip((0, size[0] + 2), (small, overlay(small, small_map)), strict=True):
        pair.paste(Image.fromarray(part), (x, 0))
    return pair


def contact_sheet(tiles: Sequence[Image.Image]) -> Image.Image:
    """Arrange the tiles of a group in rows of COLUMNS."""
    rows = [tiles[i : i + COLUMNS] for i in range(0, len(tiles), COLUMNS)]
    widest = max(sum(tile.width + GAP for tile in row) for row in rows)
    sheet = Image.new('RGB', (widest, len(rows) * (TILE + GAP)), 'white')
    for y, row in enumerate(rows):
        x = 0
        for each in row:
            sheet.paste(each, (x, y * (TILE + GAP)))
            x += each.width + GAP
    return sheet


def write_whole(path: Path, image: Image.Image) -> None:
    """Save an image atomically, in the format of the path's suffix; create its folder."""
    with whole_file(path) as partial:
        image.save(partial)


def _small(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    return cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
