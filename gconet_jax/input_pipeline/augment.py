"""Random changes to images and masks, on the accelerator, over uint8 batches.

Each operation matches PIL with the same parameters to one level in 255: flips and rotations
(bicubic, black corners) as in `PIL.Image`; brightness, contrast, colour and sharpness as in
`PIL.ImageEnhance`. The released code applies them before resizing, this module after.

Shapes are those of one image: image (S, S, 3) and mask (S, S), uint8 values stored as float32.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.scipy.ndimage import map_coordinates

from gconet_jax.config import AugmentConfig
from gconet_jax.input_pipeline.jigsaw import intruders, jigsaws

Batch = dict[str, jax.Array]
# Weights of red, green and blue in PIL's grey, in units of 2^-16.
GREY = (19595, 38470, 7471)
# PIL's ImageFilter.SMOOTH.
SMOOTH = ((1, 1, 1), (1, 5, 1), (1, 1, 1))


def make_augment(config: AugmentConfig, seed: int) -> Callable[[Batch, Any], Batch]:
    """Return the jitted function (batch, step) -> batch; the identity if `config` changes nothing.

    The changes to an image depend only on (seed, step, its position in the batch), on any mesh.
    """
    if config == AugmentConfig.off():
        return lambda batch, step: batch

    def of_image(key: jax.Array, place: jax.Array, image: jax.Array, mask: jax.Array):
        return change(jax.random.fold_in(key, place), image, mask, config)

    of_batch = of_image
    for _ in ('pair', 'group', 'image'):
        of_batch = jax.vmap(of_batch, (None, 0, 0, 0))

    @jax.jit
    def augment(batch: Batch, step: jax.Array) -> Batch:
        valid = batch['valid']
        key = jax.random.fold_in(jax.random.key(seed), step)
        places = jnp.arange(valid.size).reshape(valid.shape)
        image, mask = of_batch(key, places, batch['image'], batch['mask'])
        if config.jigsaw:
            image, mask = jigsaws(key, image, mask, valid, config.jigsaw)
        if config.intruder:
            image, mask = intruders(key, image, mask, valid, config.intruder)
        seen = valid[..., None, None]
        return batch | {
            'image': jnp.where(seen[..., None], image, 0),
            'mask': jnp.where(seen, mask, 0),
        }

    return lambda batch, step: augment(batch, jnp.asarray(step, jnp.uint32))


def change(
    key: jax.Array, image: jax.Array, mask: jax.Array, config: AugmentConfig
) -> tuple[jax.Array, jax.Array]:
    """Apply the random changes of `config` to one uint8 image and its mask, in this order."""
    keys = iter(jax.random.split(key, 12))
    x, y = image.astype(jnp.float32), mask.astype(jnp.float32)[..., None]

    def chance(probability: float) -> jax.Array:
        return jax.random.bernoulli(next(keys), probability)

    if config.flip:
        mirrored = chance(config.flip)
        x, y = (jnp.where(mirrored, v[:, ::-1], v) for v in (x, y))
    if config.crop:
        side = 1 - jax.random.uniform(next(keys), maxval=config.crop)
        x, y = crop(x, side), crop(y, side)
    if config.rotate:
        turned = chance(config.rotate)
        low, high = config.degrees
        degrees = jax.random.randint(next(keys), (), low, high + 1)
        degrees = jnp.where(turned, degrees, 0).astype(jnp.float32)
        both = rotate(jnp.concatenate([x, y], axis=-1), degrees)
        x, y = both[..., :3], both[..., 3:]
    for enhance, bounds in (
        (brightness, config.brightness),
        (contrast, config.contrast),
        (colour, config.colour),
        (sharpness, config.sharpness),
    ):
        if bounds != (1.0, 1.0):
            tenths = [round(10 * bound) for bound in bounds]
            factor = jax.random.randint(next(keys), (), tenths[0], tenths[1] + 1)
            x = enhance(x, factor.astype(jnp.float32) / 10)
    if config.pepper:
        x = pepper(next(keys), x, config.pepper)
    return x.astype(jnp.uint8), y[..., 0].astype(jnp.uint8)


def rotate(x: jax.Array, degrees: jax.Array) -> jax.Array:
    """Rotate x (S, S, C) anticlockwise about its centre, as `Image.rotate(degrees, BICUBIC)`."""
    size = x.shape[0]
    sin, cos = jnp.sin(jnp.radians(degrees)), jnp.cos(jnp.radians(degrees))
    across, down = _from_centre(size)[None, :], _from_centre(size)[:, None]
    # Source position of each pixel, in [0, size]; the centre of pixel 0 is at 0.5.
    source_x = cos * across - sin * down + size / 2
    source_y = sin * across + cos * down + size / 2
    inside = (source_x >= 0) & (source_x < size) & (source_y >= 0) & (source_y < size)
    left, weights_x = _cubic(source_x - 0.5)
    top, weights_y = _cubic(source_y - 0.5)
    total = jnp.zeros_like(x)
    for i in range(4):
        row = jnp.clip(top + i, 0, size - 1)
        line = jnp.zeros_like(x)
        for j in range(4):
            column = jnp.clip(left + j, 0, size - 1)
            line += weights_x[j][..., None] * x[row, column]
        total += weights_y[i][..., None] * line
    # Without a rotation only rounding error remains; it must not lower a level.
    rotated = jnp.floor(jnp.clip(total + 1e-3, 0, 255))
    return jnp.where(inside[..., None], rotated, 0)


def _from_centre(size: int) -> jax.Array:
    """Return pixel centres relative to the image centre: (size,) float32."""
    return jnp.arange(size, dtype=jnp.float32) + (0.5 - size / 2)


def _cubic(position: jax.Array) -> tuple[jax.Array, list[jax.Array]]:
    """Return the first of a position's four neighbours, and their weights (cubic, a = -1)."""
    first = jnp.floor(position)
    d = position - first
    weights = [
        d * (-1 + d * (2 - d)),
        1 + d * d * (d - 2),
        d * (1 + d * (1 - d)),
        d * d * (d - 1),
    ]
    return first.astype(jnp.int32) - 1, weights


def crop(x: jax.Array, side: jax.Array) -> jax.Array:
    """Crop the central `side` of x (S, S, C) along both axes and enlarge it to S (bilinear)."""
    size = x.shape[0]
    position = _from_centre(size) * side + (size / 2 - 0.5)
    rows, columns = jnp.meshgrid(position, position, indexing='ij')

    def sample(channel: jax.Array) -> jax.Array:
        return map_coordinates(channel, [rows, columns], order=1, mode='nearest')

    return jnp.floor(jax.vmap(sample, -1, -1)(x) + 0.5)


def brightness(image: jax.Array, factor: jax.Array) -> jax.Array:
    """Apply `ImageEnhance.Brightness`: factor 0 gives black, 1 the image."""
    return _blend(jnp.zeros_like(image), image, factor)


def contrast(image: jax.Array, factor: jax.Array) -> jax.Array:
    """Apply `ImageEnhance.Contrast`: factor 0 gives the mean grey, 1 the image."""
    grey = _grey(image).astype(jnp.int32)
    mean = (2 * grey.sum() + grey.size) // (2 * grey.size)
    return _blend(jnp.full_like(image, mean), image, factor)


def colour(image: jax.Array, factor: jax.Array) -> jax.Array:
    """Apply `ImageEnhance.Color`: factor 0 gives the grey image, 1 the image."""
    return _blend(jnp.broadcast_to(_grey(image), image.shape), image, factor)


def sharpness(image: jax.Array, factor: jax.Array) -> jax.Array:
    """Apply `ImageEnhance.Sharpness`: factor 0 gives the smoothed image, 1 the image."""
    inner = image.shape[0] - 2
    total = sum(
        weight * image[i : i + inner, j : j + inner]
        for i, row in enumerate(SMOOTH)
        for j, weight in enumerate(row)
    )
    smooth = jnp.floor(jnp.asarray(total) / 13 + 0.5)
    return _blend(image.at[1:-1, 1:-1].set(smooth), image, factor)  # PIL keeps the border


def pepper(key: jax.Array, image: jax.Array, part: float) -> jax.Array:
    """Turn `part` of the pixels black or white, like the released option of the same name."""
    size = image.shape[0]
    where, what = jax.random.split(key)
    rows, columns = jax.random.randint(where, (2, round(part * size * size)), 0, size)
    value = jnp.where(jax.random.bernoulli(what, 0.5, rows.shape), 255.0, 0.0)
    return image.at[rows, columns].set(value[:, None])


def _grey(image: jax.Array) -> jax.Array:
    """Convert an RGB image to PIL's 'L': (S, S, 1)."""
    levels = jnp.einsum('hwc,c->hw', image.astype(jnp.int32), jnp.array(GREY, jnp.int32))
    return ((levels + 0x8000) >> 16).astype(jnp.float32)[..., None]


def _blend(degenerate: jax.Array, image: jax.Array, factor: jax.Array) -> jax.Array:
    """Blend as `Image.blend` does: clip to 0..255, then round down."""
    return jnp.floor(jnp.clip(degenerate + factor * (image - degenerate), 0, 255))
