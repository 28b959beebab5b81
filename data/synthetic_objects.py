"""The toy objects of the synthetic set: a class is a shape, a surface pattern and a palette.

An object is drawn once, upright, on a square sprite of `SPRITE` pixels. Point coordinates are in
units of the sprite: x to the right and y down, both within [-1, 1].
"""

import functools
import math
from typing import NamedTuple

import cv2
import numpy as np

SPRITE = 256  # side of a sprite, px
REACH = 108  # px from the centre of a sprite to coordinate 1; the rest is a margin for blurs
INK = 5.0  # width of outlines, px
BEVEL = 34.0  # width of the rounded, shaded rim, px

# Two RGB colours each: the body, and the pattern on it.
PALETTES: dict[str, tuple[tuple[int, int, int], tuple[int, int, int]]] = {
    'cherry': ((212, 38, 52), (255, 226, 214)),
    'ocean': ((32, 92, 200), (150, 214, 255)),
    'lemon': ((250, 212, 48), (128, 84, 20)),
    'moss': ((52, 122, 52), (200, 228, 118)),
    'grape': ((112, 48, 168), (232, 182, 255)),
    'tangerine': ((246, 128, 28), (62, 52, 62)),
    'mint': ((84, 212, 180), (16, 96, 98)),
    'rose': ((246, 130, 178), (132, 22, 80)),
    'slate': ((74, 84, 106), (226, 230, 236)),
    'cream': ((246, 236, 214), (202, 84, 62)),
}


class ObjectClass(NamedTuple):
    """What the images of a group share: one name from each of SHAPES, PATTERNS and PALETTES."""

    shape: str
    pattern: str
    palette: str

    @property
    def name(self) -> str:
        return '_'.join(self)


class Outline(NamedTuple):
    """A shape drawn once. Arrays are (SPRITE, SPRITE) float32.

    Attributes:
        alpha: coverage, [0, 1].
        ink: outline and inner lines, [0, 1].
        slope_x, slope_y: tilt of the surface, about [-1, 1], for shading.
        hull: (K, 1, 2) float32, corners of the convex hull, px.
        area: px.
    """

    alpha: np.ndarray
    ink: np.ndarray
    slope_x: np.ndarray
    slope_y: np.ndarray
    hull: np.ndarray
    area: float


def _px(points) -> np.ndarray:
    """Convert unit coordinates (K, 2) to OpenCV's: int32 with four fractional bits."""
    return np.int32(np.round((np.asarray(points, float) * REACH + SPRITE / 2) * 16))  # type: ignore[return-value]


def _arc(x, y, rx, ry=None, start=0.0, stop=360.0, count=60) -> np.ndarray:
    """Return (count, 2) points along an ellipse, in degrees clockwise from the right."""
    angles = np.radians(np.linspace(start, stop, count))
    return np.stack([x + rx * np.cos(angles), y + (ry or rx) * np.sin(angles)], axis=1)


def _radial(radii) -> np.ndarray:
    """Return (K, 2) points at equal angles, the first at the top."""
    angles = np.linspace(0, 2 * math.pi, len(radii), endpoint=False) - math.pi / 2
    return np.stack([radii * np.cos(angles), radii * np.sin(angles)], axis=1)


def _box(x0, y0, x1, y1) -> np.ndarray:
    return np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)])


def _heart() -> np.ndarray:
    t = np.linspace(0, 2 * math.pi, 80)
    y = 13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)
    return np.stack([16 * np.sin(t) ** 3, -y - 2], axis=1) / 16.5


def _leaf() -> np.ndarray:
    t = np.linspace(-1, 1, 40)
    bulge = 0.62 * (1 - t**2) ** 0.8 * (1 + 0.25 * t)
    return np.concatenate([np.stack([bulge, t], 1), np.stack([-bulge, t], 1)[::-1]])


_TEETH = np.repeat(np.tile([1.0, 0.74], 9), 6)
_STAR = np.tile([1.05, 0.48], 5)
_ARROW = [(-1, -0.3), (0.05, -0.3), (0.05, -0.8), (1, 0), (0.05, 0.8), (0.05, 0.3), (-1, 0.3)]
_TAIL = [(-0.35, 0), (-1.0, -0.58), (-0.82, 0), (-1.0, 0.58)]

# Each shape: polygons to fill, polygons to cut out, and lines of ink inside.
SHAPES: dict[str, tuple[list, list, list]] = {
    'star': ([_radial(_STAR)], [], []),
    'crescent': ([_arc(0.1, 0, 1)], [_arc(0.58, -0.08, 0.72)], []),
    'mug': (
        [_box(-0.9, -0.8, 0.4, 0.85), _arc(0.42, 0.05, 0.56)],
        [_arc(0.5, 0.05, 0.27, start=-90, stop=90), ],
        [_arc(-0.25, -0.62, 0.56, 0.1), [(0.4, -0.4), (0.4, 0.5)]],
    ),
    'fish': (
        [_arc(0.22, 0, 0.76, 0.56), _TAIL, [(-0.2, -0.4), (0.3, -0.86), (0.5, -0.4)]],
        [],
        [_arc(0.62, -0.14, 0.06), _arc(0.15, 0, 0.28, 0.42, -60, 60)],
    ),
    'arrow': ([_ARROW], [], []),
    'gear': ([_radial(_TEETH)], [_arc(0, 0, 0.3)], [_arc(0, 0, 0.5)]),
    'heart': ([_heart()], [], []),
    'leaf': (
        [_leaf(), _box(-0.06, 0.8, 0.06, 1.15)],
        [],
        [[(0, -0.8), (0, 1)], [(-0.36, -0.15), (0, 0.2), (0.36, -0.15)],
         [(-0.36, 0.25), (0, 0.58), (0.36, 0.25)]],
    ),
    'bottle': (
        [_box(-0.5, -0.05, 0.5, 1), _box(-0.2, -1, 0.2, 0), _arc(0, 0, 0.5, 0.42)],
        [],
        [[(-0.2, -0.72), (0.2, -0.72)], [(-0.5, 0.25), (0.5, 0.25)], [(-0.5, 0.75), (0.5, 0.75)]],
    ),
    'cross': ([_box(-0.32, -0.95, 0.32, 0.95), _box(-0.95, -0.32, 0.95, 0.32)], [], []),
    'mushroom': (
        [_arc(0, 0.05, 1, 0.95, 180, 360), _box(-0.3, 0, 0.3, 0.9)],
        [],
        [[(-0.3, 0.06), (0.3, 0.06)]],
    ),
    'butterfly': (
        [_arc(-0.52, -0.4, 0.5, 0.46), _arc(0.52, -0.4, 0.5, 0.46), _arc(-0.4, 0.42, 0.4, 0.4),
         _arc(0.4, 0.42, 0.4, 0.4), _arc(0, 0, 0.14, 0.8)],
        [],
        [_arc(0, 0, 0.12, 0.7)],
    ),
}  # fmt: skip


def _soft(wave: np.ndarray) -> np.ndarray:
    """Turn a wave around zero into flat bands in [0, 1] with edges of about two px."""
    return np.clip(wave * 6 + 0.5, 0, 1).astype(np.float32)


@functools.cache
def _pattern(name: str) -> np.ndarray:
    """Return the weight of the palette's second colour: (SPRITE, SPRITE) float32 in [0, 1]."""
    y, x = (np.mgrid[:SPRITE, :SPRITE] - SPRITE / 2) / REACH
    turn = 2 * math.pi
    match name:
        case 'plain':
            return np.zeros((SPRITE, SPRITE), np.float32)
        case 'stripes':
            return _soft(np.sin(turn * (x + 0.5 * y) * 2.2))
        case 'dots':
            return _soft(np.cos(turn * 1.35 * (x + y)) + np.cos(turn * 1.35 * (x - y)) - 0.75)
        case 'checker':
            return _soft(2 * np.sin(turn * 1.7 * x) * np.sin(turn * 1.7 * y))
        case 'rings':
            return _soft(np.sin(turn * np.hypot(x, y) * 2.6 + 1.5))
        case 'zigzag':
            fold = np.abs((x * 2.2) % 1 - 0.5)
            return _soft(np.sin(turn * (y * 2 + fold * 1.3)))
        case _:
            raise ValueError(f'no pattern {name!r}; there are {PATTERNS}')


PATTERNS = ('plain', 'stripes', 'dots', 'checker', 'rings', 'zigzag')


@functools.cache
def outline(shape: str) -> Outline:
    """Draw a shape of SHAPES with its ink and relief; corners are rounded like a toy's."""
    solids, holes, lines = SHAPES[shape]
    cover = np.zeros((SPRITE, SPRITE), np.uint8)
    for polygon in solids:
        cv2.fillPoly(cover, [_px(polygon)], 255, cv2.LINE_AA, shift=4)
    for polygon in holes:
        cv2.fillPoly(cover, [_px(polygon)], 0, cv2.LINE_AA, shift=4)
    blurred = cv2.GaussianBlur(cover.astype(np.float32) / 255, (0, 0), 4)
    alpha = np.clip((blurred - 0.5) * 9 + 0.5, 0, 1)
    depth = cv2.distanceTransform(np.uint8(alpha > 0.5), cv2.DIST_L2, 5)  # type: ignore[call-overload]
    ink = np.clip(INK - depth, 0, 1)
    drawn = np.zeros_like(cover)
    for line in lines:
        cv2.polylines(drawn, [_px(line)], False, 255, round(INK), cv2.LINE_AA, shift=4)
    ink = np.maximum(ink, drawn.astype(np.float32) / 255 * 0.85)
    rise = np.clip(depth / BEVEL, 0, 1)
    height = cv2.GaussianBlur(np.sqrt(1 - (1 - rise) ** 2) * BEVEL, (0, 0), 5)
    slope_x = np.clip(cv2.Sobel(height, cv2.CV_32F, 1, 0, scale=0.125), -1, 1)
    slope_y = np.clip(cv2.Sobel(height, cv2.CV_32F, 0, 1, scale=0.125), -1, 1)
    rows, columns = np.nonzero(alpha > 0)
    hull = cv2.convexHull(np.stack([columns, rows], axis=1).astype(np.float32))
    return Outline(alpha, ink, slope_x, slope_y, hull, float(alpha.sum()))


def sprite(kind: ObjectClass, light: tuple[float, float]) -> np.ndarray:
    """Paint an object.

    Args:
        kind: what to paint.
        light: (x, y) of the unit vector towards the light, in the object's own frame.

    Returns:
        (SPRITE, SPRITE, 4) uint8: RGB and coverage (0-255). Outside the object, RGB is the colour
        of its outline, so that scaling leaves no fringe.
    """
    drawn = outline(kind.shape)
    body, second = (np.array(colour, np.float32) for colour in PALETTES[kind.palette])
    weight = _pattern(kind.pattern)[..., None]
    facing = -(drawn.slope_x * light[0] + drawn.slope_y * light[1])
    shade = (0.92 + 0.42 * facing)[..., None]
    glint = (np.clip(facing - 0.45, 0, 0.4) * 260)[..., None]
    colour = (body + (second - body) * weight) * shade + glint
    ink = drawn.ink[..., None]
    colour += (body * 0.28 - colour) * ink
    rgba = np.concatenate([colour, drawn.alpha[..., None] * 255], axis=2)
    return np.clip(rgba, 0, 255).astype(np.uint8)
