"""Prediction of maps for groups of photos, with any number of images of any size."""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from PIL import Image

from gconet_jax.errors import InputError
from gconet_jax.inference.stages import Features, Maps, Stages
from gconet_jax.input_pipeline.pixels import to_square
from gconet_jax.interpolation import interpolation_matrix
from gconet_jax.models.gconet_plus import GCoNetPlus
from gconet_jax.weights.folding import fold
from gconet_jax.weights.pretrained import load_pretrained

CHUNK = 16  # most images in the network at once; on CPUs it is one, which is fastest there
# Limit of the features kept until their group's consensus is known: in bytes on CPUs, as a fraction
# of memory on other devices. Features beyond it are dropped and computed again.
KEPT_BYTES = 1 << 30
KEPT_SHARE = 0.25


class Prediction:
    """The maps of a group of n images, at the network's image size S.

    Attributes:
        maps: float32 (n, S, S), in [0, 1].
        fell_back: True if the binarisation used `k_fallback`.
        prob: P of the CEM, (n, S, S); without CEM, the map. Copied from the device on access.
        thresh: T of the CEM, (n, S, S); without CEM, 0.5. Copied from the device on access.
    """

    def __init__(self, chunks: Sequence[Maps]):
        """Join the maps of `chunks`, which hold the n images in order. Waits for the device."""
        self.fell_back = any(bool(chunk.overflowed) for chunk in chunks)
        self.maps = _join([chunk.fallback if self.fell_back else chunk.steep for chunk in chunks])
        self._prob = [chunk.prob for chunk in chunks]
        self._thresh = [chunk.thresh for chunk in chunks]

    @property
    def prob(self) -> np.ndarray:
        return _join(self._prob)

    @property
    def thresh(self) -> np.ndarray:
        return _join(self._thresh)


class Predictor:
    """A trained network that predicts maps for groups of photos.

    Images are resized to the network's square size, as in training; maps are resized back to the
    size of their images. A group of one image has nothing to compare with: its map shows what
    stands out in the image.

    Groups may have any number of images. Device memory holds a few images in the network, features
    of up to KEPT_BYTES or KEPT_SHARE, and about 2 MB per image at 256 x 256 for the consensus.
    Programs are compiled for one image and, on GPUs, for 2, 4, 8 and 16 images, so that a few
    compilations serve groups of every size.

    Attributes:
        image_size: height and width of images in the network, pixels.
        stages: the compiled parts of the network, with batch norm folded.
    """

    def __init__(
        self,
        model: GCoNetPlus,
        *,
        image_size: int,
        chunk: int | None = None,
        device: Any = None,
    ):
        """Put the network on a device.

        Args:
            model: the network.
            image_size: height and width of images in the network, pixels; a multiple of 16.
            chunk: most images in the network at once; by default the fastest number for the
                device. It affects results only by the rounding of float32 sums.
            device: a JAX device; by default the first local one.
        """
        device = device or jax.local_devices()[0]
        chunk = chunk or (1 if device.platform == 'cpu' else CHUNK)
        memory = (device.memory_stats() or {}).get('bytes_limit')
        self._room = KEPT_BYTES if memory is None else int(KEPT_SHARE * memory)
        self.image_size = image_size
        self.stages = Stages(fold(model), device)
        self._sizes = [2**i for i in range(chunk.bit_length() - 1, -1, -1)]

    @classmethod
    def from_pretrained(
        cls, source: str | Path | None = None, *, step: str = 'latest', ema: bool = False
    ) -> 'Predictor':
        """Load a trained network; see `weights.pretrained.load_pretrained` for the arguments."""
        model, image_size = load_pretrained(source, step=step, ema=ema)
        return cls(model, image_size=image_size)

    def __call__(self, images: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Predict the maps of one group.

        Args:
            images: uint8 (H, W, 3) each, RGB.

        Returns:
            The map of each image, float32 (H, W) in [0, 1].

        Raises:
            InputError: there are no images, or one has another shape or type; the message gives
                its index.
        """
        return next(self.groups([images]))

    def groups(self, groups: Iterable[Sequence[np.ndarray]]) -> Iterator[list[np.ndarray]]:
        """Yield the maps of each group, as `__call__` returns them.

        The device works on a group while the previous group's maps are resized and used, which is
        faster than one call per group.
        """
        waiting: tuple[Sequence[np.ndarray], list[Maps]] | None = None
        for i, group in enumerate(groups):
            if len(group) == 0:
                raise InputError(f'group {i} has no images')
            squares = np.stack([self._square(j, image) for j, image in enumerate(group)])
            before, waiting = waiting, (group, self._start(squares))
            if before is not None:
                yield _at_sizes(*before)
        if waiting is not None:
            yield _at_sizes(*waiting)

    def predict(self, images: np.ndarray) -> Prediction:
        """Predict one group of images of the network's size, uint8 (n, S, S, 3), RGB."""
        return Prediction(self._start(images))

    def _start(self, images: np.ndarray) -> list[Maps]:
        """Dispatch the computation of one group to the device, without waiting for it."""
        chunks = list(_chunks(len(images), self._sizes))
        kept: dict[int, Features] = {}
        x5, room = [], self._room
        for i, chunk in enumerate(chunks):
            features = self.stages.encode(images[chunk])
            x5.append(features[-1])
            room -= sum(x.nbytes for x in features)
            if room > 0:
                kept[i] = features
        shared = self.stages.consensus(x5)
        maps = []
        for i, chunk in enumerate(chunks):
            features = kept.pop(i) if i in kept else self.stages.encode(images[chunk])
            maps.append(self.stages.decode(features, shared))
        return maps

    def _square(self, index: int, image: np.ndarray) -> np.ndarray:
        shape, dtype = np.shape(image), getattr(image, 'dtype', None)
        if dtype != np.uint8 or len(shape) != 3 or shape[2] != 3 or 0 in shape:
            raise InputError(
                f'image {index} must be RGB of shape (H, W, 3) and type uint8, not {shape} of type '
                f'{dtype}; gconet_jax.input_pipeline.photos.read_photo reads files so'
            )
        return to_square(Image.fromarray(image), self.image_size)


def resize_map(pixels: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """Resize a map (S, S) to `size` (H, W), bilinearly with aligned corners, as released."""
    rows, columns = (interpolation_matrix(n, m) for n, m in zip(pixels.shape, size, strict=True))
    return np.clip(rows @ pixels @ columns.T, 0, 1)


def _at_sizes(group: Sequence[np.ndarray], chunks: list[Maps]) -> list[np.ndarray]:
    """Return the map of each image of `group`, at the size of the image."""
    maps = Prediction(chunks).maps
    return [resize_map(x, image.shape[:2]) for x, image in zip(maps, group, strict=True)]


def _join(parts: Sequence[jax.Array]) -> np.ndarray:
    return np.concatenate([np.asarray(part) for part in parts])


def _chunks(n: int, sizes: Sequence[int]) -> Iterator[slice]:
    """Split range(n) into slices of the given sizes, powers of two down to 1: 13 -> 8, 4, 1."""
    start = 0
    for size in itertools.chain.from_iterable(itertools.repeat(s, n // s + 1) for s in sizes):
        if start + size <= n:
            yield slice(start, start + size)
            start += size
