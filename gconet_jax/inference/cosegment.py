"""Content-aware co-segmentation: sharp object masks from maps (GCoNet+, section 5)."""

import cv2
import numpy as np

from gconet_jax.inference.outputs import adaptive_mask

LONGER_SIDE = 600  # pixels at which GrabCut runs
SURE = 0.9  # object pixels with at least this value are fixed as object
SURELY_NOT = 0.1  # other pixels below this value are fixed as background, whatever their colour


def cosegment(photo: np.ndarray, pixels: np.ndarray, *, iterations: int = 3) -> np.ndarray:
    """Segment the object with GrabCut (Rother et al., 2004), starting from the adaptive mask.

    Args:
        photo: (H, W, 3) uint8, RGB.
        pixels: the map, (H, W) in [0, 1].
        iterations: number of GrabCut iterations.

    Returns:
        The mask, bool (H, W).
    """
    height, width = photo.shape[:2]
    scale = min(1.0, LONGER_SIDE / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    small = cv2.resize(photo, size, interpolation=cv2.INTER_AREA)
    values = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    likely = adaptive_mask(values)
    if likely.all() or not likely.any():  # GrabCut needs object and background
        return np.full((height, width), bool(likely.any()))
    labels = np.where(likely, cv2.GC_PR_FGD, cv2.GC_PR_BGD).astype(np.uint8)
    labels[likely & (values >= SURE)] = cv2.GC_FGD
    labels[~likely & (values < SURELY_NOT)] = cv2.GC_BGD
    if not np.any(labels != cv2.GC_FGD):
        return np.ones((height, width), bool)
    cv2.setRNGSeed(0)  # for the k-means that initialises GrabCut
    models = np.zeros((1, 65)), np.zeros((1, 65))
    bgr = cv2.cvtColor(small, cv2.COLOR_RGB2BGR)
    cv2.grabCut(bgr, labels, (0, 0, 0, 0), models[0], models[1], iterations, cv2.GC_INIT_WITH_MASK)
    found = np.isin(labels, (cv2.GC_FGD, cv2.GC_PR_FGD)).astype(np.float32)
    return cv2.resize(found, (width, height), interpolation=cv2.INTER_LINEAR) >= 0.5


def on_background(
    photo: np.ndarray, mask: np.ndarray, background: tuple[int, int, int]
) -> np.ndarray:
    """Paste the object onto a plain background, with an edge softened over about a pixel.

    Args:
        photo: (H, W, 3) uint8, RGB.
        mask: (H, W) bool, the object.
        background: (R, G, B), 0 to 255 each.

    Returns:
        (H, W, 3) uint8, RGB.
    """
    alpha = cv2.GaussianBlur(mask.astype(np.float32), (3, 3), 0)[..., None]
    mixed = photo * alpha + np.array(background, np.float32) * (1 - alpha)
    return np.rint(mixed).astype(np.uint8)
