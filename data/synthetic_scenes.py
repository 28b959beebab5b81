"""Scenes of the synthetic set: a textured background with toy objects under one light.

Every random choice treats the shared object and the others equally: position, size, pose, depth
order and how much is hidden. One image therefore does not tell which is which.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import cv2
import numpy as np

from data.synthetic_objects import SPRITE, ObjectClass, outline, sprite

FINE = 2  # a scene is drawn this many times larger, then shrunk to smooth its edges
COVERAGE = (0.08, 0.30)  # fraction of the image covered by the visible part of the shared object
VISIBLE = 0.8  # smallest visible fraction of an object
# Plan sizes and overlaps with a margin, because the finished mask must meet the limits above.
_PLANNED_COVERAGE = (0.14, 0.27)
_PLANNED_VISIBLE = 0.86


class Scene(NamedTuple):
    """A finished scene.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        mask: (H, W) bool, the visible pixels of the shared object.
        whole: (H, W) bool, its pixels if nothing were in front of it.
    """

    image: np.ndarray
    mask: np.ndarray
    whole: np.ndarray


class Placed(NamedTuple):
    """An object in place.

    Attributes:
        pose: (3, 3), sprite px to image px.
        turn: radians.
        flip: 1 or -1.
    """

    kind: ObjectClass
    pose: np.ndarray
    turn: float
    flip: int


def _fractal(rng: np.random.Generator, height: int, width: int, cells: int = 3) -> np.ndarray:
    """Return smooth noise, a sum of octaves: (height, width) float32 in [0, 1]."""
    total = np.zeros((height, width), np.float32)
    for octave in range(5):
        grid = rng.random((cells * 2**octave + 1,) * 2, dtype=np.float32)
        total += cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC) * 0.55**octave
    return cv2.normalize(total, total, 0, 1, cv2.NORM_MINMAX)


def _tones(rng: np.random.Generator) -> np.ndarray:
    """Return two muted colours of neighbouring hue, one darker: (2, 3) float32 RGB."""
    hue, value = rng.uniform(0, 360), rng.uniform(0.45, 0.85)
    darker = value * rng.uniform(0.55, 0.8)
    hsv = [
        (hue, rng.uniform(0.02, 0.16), value),
        ((hue + rng.uniform(-30, 30)) % 360, rng.uniform(0.02, 0.16), darker),
    ]
    return cv2.cvtColor(np.array([hsv], np.float32), cv2.COLOR_HSV2RGB)[0] * 255


def _clouds(rng, y, x):
    return _fractal(rng, *y.shape)


def _gradient(rng, y, x):
    angle = rng.uniform(0, 2 * math.pi)
    return 0.5 + 0.5 * (x * math.cos(angle) + y * math.sin(angle))


def _fabric(rng, y, x):
    pitch = rng.uniform(45, 80)
    weave = np.sin(x * pitch) * 0.25 + np.sin(y * pitch) * 0.25
    return 0.5 + weave + 0.5 * (_fractal(rng, *y.shape) - 0.5)


def _bricks(rng, y, x):
    rows = (y + 1) * rng.uniform(3, 5)
    columns = (x + 1) * rng.uniform(1.8, 2.6) + 0.5 * (rows.astype(int) % 2)
    shade = rng.random((16, 16), dtype=np.float32)[rows.astype(int) % 16, columns.astype(int) % 16]
    joint = (rows % 1 < 0.1) | (columns % 1 < 0.05)
    return np.where(joint, 0.0, 0.55 + 0.3 * shade) + 0.2 * _fractal(rng, *y.shape, cells=12)


def _wood(rng, y, x):
    grain = _fractal(rng, *y.shape) * 0.5
    planks = np.abs((y * 1.5 + rng.uniform()) % 1) < 0.03
    rings = np.sin(40 * (y + 0.25 * grain + 0.04 * x))
    return np.where(planks, 0.0, 0.5 + 0.3 * rings + 0.3 * grain)


def _marble(rng, y, x):
    return np.abs(np.sin(4 * x + 3 * y + 9 * _fractal(rng, *y.shape))) ** 0.6


def _grass(rng, y, x):
    height, width = y.shape
    blades = np.full((height, width), 60, np.uint8)
    roots = rng.uniform(0, 1, (700, 2)) * (width, height * 1.15)
    tips = roots + rng.normal(0, 1, (700, 2)) * (9, 6) - (0, 26)
    for root, tip, tone in zip(roots, tips, rng.uniform(20, 255, 700), strict=True):
        ends = [tuple(int(v) for v in point) for point in (root, tip)]
        cv2.line(blades, ends[0], ends[1], tone, 2, cv2.LINE_AA)
    return blades.astype(np.float32) / 255


def _bokeh(rng, y, x):
    height, width = y.shape
    lights = np.full((height, width), 20, np.uint8)
    for _ in range(26):
        disc = np.zeros_like(lights)
        centre = (int(rng.integers(width)), int(rng.integers(height)))
        cv2.circle(disc, centre, int(rng.integers(8, 34)), rng.uniform(20, 110), -1, cv2.LINE_AA)
        lights = cv2.add(lights, disc)
    return cv2.GaussianBlur(lights.astype(np.float32) / 255, (0, 0), 2.5)


# Each takes a generator and the grid y, x (H, W) in [-1, 1], and returns (H, W) in about [0, 1].
BACKGROUNDS: tuple[Callable, ...] = (
    _clouds, _gradient, _fabric, _bricks, _wood, _marble, _grass, _bokeh,
)  # fmt: skip


def background(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Return a texture of BACKGROUNDS in two muted colours: (height, width, 3) float32, 0-255."""
    y, x = np.meshgrid(np.linspace(-1, 1, height), np.linspace(-1, 1, width), indexing='ij')
    paint = BACKGROUNDS[rng.integers(len(BACKGROUNDS))]
    weight = np.clip(paint(rng, y, x), 0, 1)[..., None].astype(np.float32)
    light, dark = _tones(rng)
    return dark + (light - dark) * weight


def _warp(image: np.ndarray, pose: np.ndarray, height: int, width: int) -> np.ndarray:
    return cv2.warpPerspective(image, pose, (width, height), flags=cv2.INTER_LINEAR)


def _place(
    rng: np.random.Generator, kind: ObjectClass, coverage: float, height: int, width: int
) -> Placed | None:
    """Return a random pose inside the image with about this coverage; None if it does not fit."""
    shape = outline(kind.shape)
    turn, flip = rng.uniform(-1.2, 1.2), int(rng.choice([-1, 1]))
    stretch, shear = math.exp(rng.uniform(-0.14, 0.14)), rng.uniform(-0.2, 0.2)
    scale = math.sqrt(coverage * height * width / shape.area)
    cos, sin = scale * math.cos(turn), scale * math.sin(turn)
    linear = np.array([[cos, -sin], [sin, cos]]) @ np.array([[1, shear], [0, 1]])
    linear = linear @ np.diag([flip * stretch, 1 / stretch])
    pose = np.eye(3)
    pose[:2, :2] = linear
    pose[2, :2] = rng.uniform(-0.0009, 0.0009, 2)  # perspective
    pose = pose @ np.array([[1, 0, -SPRITE / 2], [0, 1, -SPRITE / 2], [0, 0, 1]])
    hull = cv2.perspectiveTransform(shape.hull, pose)[:, 0]
    low, high = 1.5 - hull.min(axis=0), (width - 1.5, height - 1.5) - hull.max(axis=0)
    if (low > high).any():
        return None
    shift = np.eye(3)
    shift[:2, 2] = rng.uniform(low, high)
    return Placed(kind, shift @ pose, turn, flip)


def _arrange(
    rng: np.random.Generator, kinds: list[ObjectClass], height: int, width: int
) -> list[Placed]:
    """Place the objects from back to front, each visible enough. (height, width) in px.

    After each failure all sizes are drawn again, a little smaller for all objects alike.
    """
    low, high = _PLANNED_COVERAGE
    for attempt in range(400):
        most = max(min(high, 0.56 / len(kinds)) * 0.985**attempt, low * 1.02)
        placed, sizes, seen = [], [], []
        for kind in kinds:
            new = _place(rng, kind, rng.uniform(low, most), height, width)
            if new is None:
                break
            cover = _warp(outline(kind.shape).alpha, new.pose, height, width) > 0.5
            left = [old & ~cover for old in seen]
            if any(v.sum() < _PLANNED_VISIBLE * s for v, s in zip(left, sizes, strict=True)):
                break
            placed.append(new)
            sizes.append(cover.sum())
            seen = [*left, cover]
        if len(placed) == len(kinds):
            return placed
    raise RuntimeError(f'{len(kinds)} objects find no room in {width} x {height} px: enlarge size')


def _shrink(image: np.ndarray) -> np.ndarray:
    height, width = image.shape[0] // FINE, image.shape[1] // FINE
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)


def _light_up(rng: np.random.Generator, image: np.ndarray, angle: float) -> np.ndarray:
    """Brighten the image towards the light and darken it away from it, with a little grain."""
    height, width = image.shape[:2]
    x, y = np.linspace(-1, 1, width), np.linspace(-1, 1, height)[:, None]
    ramp = rng.uniform(0.05, 0.25) * (x * math.cos(angle) + y * math.sin(angle))
    gain = (rng.uniform(0.78, 1.12) * (1 + ramp))[..., None]
    grain = rng.normal(0, rng.uniform(1, 4), image.shape)
    return np.clip(image * gain + grain, 0, 255).round().astype(np.uint8)


def render(
    rng: np.random.Generator,
    shared: ObjectClass,
    others: tuple[ObjectClass, ...],
    height: int,
    width: int,
) -> Scene:
    """Draw one image of a group.

    Args:
        rng: source of every choice; the same state gives the same scene.
        shared: class of the object that the mask shows.
        others: classes of the distractors.
        height, width: size of the image, px.

    Raises:
        RuntimeError: the objects do not fit.
    """
    kinds = [shared, *others]
    order = rng.permutation(len(kinds))
    angle = rng.uniform(-math.pi, 0)  # of the light, which comes from above: y points down
    placed = _arrange(rng, [kinds[i] for i in order], height, width)
    tall, wide = height * FINE, width * FINE
    canvas = background(rng, tall, wide)
    softness, strength = rng.uniform(3, 7), rng.uniform(0.35, 0.6)
    throw = np.eye(3)
    throw[:2, 2] = (-9 * math.cos(angle), -9 * math.sin(angle))
    whole = hidden = np.zeros((tall, wide), np.float32)
    for index, item in zip(order, placed, strict=True):
        # Pixel centres: image px u is fine px FINE * u + (FINE - 1) / 2.
        middle = (FINE - 1) / 2
        fine = np.array([[FINE, 0, middle], [0, FINE, middle], [0, 0, 1]]) @ item.pose
        local = item.turn - angle  # the light's direction in the object's frame
        light = (item.flip * math.cos(local), -math.sin(local))
        painted = _warp(sprite(item.kind, light), fine, tall, wide).astype(np.float32)
        alpha = painted[..., 3] / 255
        cast = _warp(outline(item.kind.shape).alpha, throw @ fine, tall, wide)
        canvas *= 1 - strength * cv2.GaussianBlur(cast, (0, 0), softness)[..., None]
        canvas += (painted[..., :3] - canvas) * alpha[..., None]
        if index == 0:
            whole, hidden = alpha, np.zeros_like(alpha)
        else:
            hidden = 1 - (1 - hidden) * (1 - alpha)
    visible = whole * (1 - hidden)
    image = _light_up(rng, _shrink(canvas), angle)
    return Scene(image, _shrink(visible) > 0.5, _shrink(whole) > 0.5)
