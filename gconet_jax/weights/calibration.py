"""Conversion of a VGG-16 without batch norm to one with batch norm, using statistics of photos.

Batch norm with mean m and variance v of a convolution's output, scale sqrt(v + eps) and bias m
leaves that output unchanged. So the new network has the same features, and it has the batch norm
layers that training needs.
"""

import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import safetensors.numpy
from flax import nnx
from PIL import Image
from tqdm import tqdm

from gconet_jax.errors import InputError
from gconet_jax.input_pipeline.files import DataError
from gconet_jax.input_pipeline.photos import find_groups, read_photo
from gconet_jax.input_pipeline.pixels import to_square
from gconet_jax.models.gconet_plus import normalize
from gconet_jax.models.layers import BATCH_NORM_EPSILON, halve
from gconet_jax.models.vgg import VGG16
from gconet_jax.weights.backbone import load_backbone
from gconet_jax.weights.torch_names import VGG16_BN_INDICES, to_torch
from gconet_jax.whole_file import whole_file

BATCH = 4  # photos per batch


def calibrate(plain: VGG16, batches: Iterable[np.ndarray]) -> dict[str, np.ndarray]:
    """Compute the weights of a VGG-16-BN that has the same features as `plain`.

    Args:
        plain: a VGG-16 without batch norm.
        batches: batches of photos, uint8 RGB (B, S, S, 3), with the same S. The mean and variance
            of each channel of each convolution are taken over all positions of all photos.

    Returns:
        float32 arrays by torchvision's names.

    Raises:
        InputError: there are no photos.
    """
    graph, weights = nnx.split(plain)
    moments = jax.jit(lambda weights, images: _moments(nnx.merge(graph, weights), images))
    count, sums = 0, []  # per convolution: summed mean and mean square, (2, C)
    for images in batches:
        of_batch = moments(weights, images)
        weighted = [len(images) * np.asarray(pair, np.float64) for pair in of_batch]
        sums = [a + b for a, b in zip(sums, weighted, strict=True)] if sums else weighted
        count += len(images)
    if not sums:
        raise InputError('there are no photos to calibrate with')
    arrays = {}
    layers = itertools.chain.from_iterable(plain.stages)
    indices = itertools.chain.from_iterable(VGG16_BN_INDICES)
    for layer, index, (mean, square) in zip(layers, indices, sums, strict=True):
        mean, square = mean / count, square / count
        variance = np.maximum(square - mean**2, 0)
        arrays[f'features.{index}.weight'] = to_torch(np.asarray(layer.conv.kernel[...]))
        arrays[f'features.{index}.bias'] = np.asarray(layer.conv.bias[...])
        arrays[f'features.{index + 1}.weight'] = np.sqrt(variance + BATCH_NORM_EPSILON)
        arrays[f'features.{index + 1}.bias'] = mean
        arrays[f'features.{index + 1}.running_mean'] = mean
        arrays[f'features.{index + 1}.running_var'] = variance
    return {name: np.ascontiguousarray(x, np.float32) for name, x in arrays.items()}


def calibrate_file(
    weights: str | Path, photos: Path, out: Path, *, image_size: int = 224, limit: int = 200
) -> int:
    """Write a safetensors file of a VGG-16-BN, for `train.backbone_weights`.

    Args:
        weights: weights of a VGG-16 without batch norm; see `load_backbone`.
        photos: folder of photos. Unreadable photos are skipped.
        out: the file, written atomically.
        image_size: height and width that photos are resized to, pixels.
        limit: most photos to use, evenly spread over the folder.

    Returns:
        The number of photos used.

    Raises:
        InputError: the weights do not fit, or no photo can be read.
    """
    plain = VGG16(batch_norm=False, width=1.0, rngs=nnx.Rngs(0))
    load_backbone(plain, weights)
    files = list(itertools.chain.from_iterable(find_groups([photos]).values()))
    chosen = [files[i] for i in np.unique(np.linspace(0, len(files) - 1, limit).astype(int))]
    used = 0

    def batches() -> Iterator[np.ndarray]:
        nonlocal used
        batch, reason = [], None
        for file in tqdm(chosen, unit='photo', leave=None):
            try:
                batch.append(to_square(Image.fromarray(read_photo(file)), image_size))
            except DataError as error:
                reason = error
                continue
            used += 1
            if len(batch) == BATCH:
                yield np.stack(batch)
                batch = []
        if batch:
            yield np.stack(batch)
        if not used:
            raise InputError(f'{photos} has no photo that can be read; of the last: {reason}')

    arrays = calibrate(plain, batches())
    with whole_file(out) as partial:
        partial.write_bytes(safetensors.numpy.save(arrays))
    return used


def _moments(plain: VGG16, images: jax.Array) -> list[tuple[jax.Array, jax.Array]]:
    """Return the mean and mean square per channel of each convolution's output, (C,) each."""
    x, moments = normalize(images), []
    for i, stage in enumerate(plain.stages):
        if i:
            x = halve(x)
        for layer in stage:
            x = layer.conv(x)
            mean, variance = x.mean(axis=(0, 1, 2)), x.var(axis=(0, 1, 2))
            moments.append((mean, variance + jnp.square(mean)))
            x = nnx.relu(x)
    return moments
