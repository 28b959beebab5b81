"""Content-aware co-segmentation: sharp outlines from maps (GCoNet+, section 5)."""

import cv2
import numpy as np

from gconet_jax.inference.outputs import adaptive_mask

LONGER_SIDE = 600  # pixels at which GrabCut runs
SURE = 0.9  # a pixel of the object with at least this value stays in it
SURELY_NOT = 0.1  # one below this does not come into it, however alike its colour


def cosegment(photo: np.ndarray, pixels: np.ndarray, *, iterations: int = 3) -> np.ndarray:
    """The object, bool (H, W): GrabCut (Rother et al., 2004) from the map's adaptive mask.

    Args:
        photo: (H, W, 3) uint8, RGB.
        pixels: the map, (H, W) in [0, 1].
        iterations: of GrabCut.
    """
    height, width = photo.shape[:2]
    scale = min(1.0, LONGER_SIDE / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    small = cv2.resize(photo, size, interpolation=cv2.INTER_AREA)
    values = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    likely = adaptive_mask(values)
    if likely.all() or not likely.any():  # GrabCut needs some of both
        return np.full((height, width), bool(likely.any()))
    labels = np.where(likely, cv2.GC_PR_FGD, cv2.GC_PR_BGD).astype(np.uint8)
    labels[likely & (values >= SURE)] = cv2.GC_FGD
    labels[~likely & (values < SURELY_NOT)] = cv2.GC_BGD
    if not np.any(labels != cv2.GC_FGD):
        return np.ones((height, width), bool)
    cv2.setRNGSeed(0)  # of the k-means that GrabCut begins with
    models = np.zeros((1, 65)), np.zeros((1, 65))
    bgr = cv2.cvtColor(small, cv2.COLOR_RGB2BGR)
    cv2.grabCut(bgr, labels, (0, 0, 0, 0), models[0], models[1], iterations, cv2.GC_INIT_WITH_MASK)
    found = np.isin(labels, (cv2.GC_FGD, cv2.GC_PR_FGD)).astype(np.float32)
    return cv2.resize(found, (width, height), interpolation=cv2.INTER_LINEAR) >= 0.5


def on_background(
    photo: np.ndarray, mask: np.ndarray, background: tuple[int, int, int]
) -> np.ndarray:
    """The object (mask bool (H, W)) upon a colour, its edge soft over a pixel or so."""
    alpha = cv2.GaussianBlur(mask.astype(np.float32), (3, 3), 0)[..., None]
    mixed = photo * alpha + np.array(background, np.float32) * (1 - alpha)
    return np.rint(mixed).astype(np.uint8)
