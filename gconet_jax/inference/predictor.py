"""Maps of groups of photos: any number of groups, of any number of images of any sizes."""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from PIL import Image
from scipy.special import expit

from gconet_jax.errors import InputError
from gconet_jax.inference.stages import Features, Stages
from gconet_jax.input_pipeline.pixels import to_square
from gconet_jax.interpolation import interpolation_matrix
from gconet_jax.models.confidence import overflows
from gconet_jax.models.gconet_plus import GCoNetPlus
from gconet_jax.weights.folding import fold
from gconet_jax.weights.pretrained import load_pretrained

CHUNK = 8  # images in the network at once, at most; on a CPU it is one, which is the fastest there
WAVE = 16  # small groups go together until they have so many images
KEPT_BYTES = 1 << 30  # features that wait for the consensus; what is over is computed twice


class Prediction(NamedTuple):
    """What the network says of a group of n images, at its own size.

    Attributes:
        maps: float32 (n, S, S), in [0, 1].
        prob: P of the CEM, (n, S, S); without CEM, the map.
        thresh: T of the CEM, (n, S, S); without CEM, 0.5.
        fell_back: the binarisation used the smaller k.
    """

    maps: np.ndarray
    prob: np.ndarray
    thresh: np.ndarray
    fell_back: bool


class Predictor:
    """A trained network, ready for photos.

    Images are resized to the network's square, as in training; a map comes back at the size of its
    image. Memory is bounded whatever the size of the group, by a few images and KEPT_BYTES of
    features, 1 GiB, on the device; but for what grows with it, on the host: 0.5 MB of features an
    image at 256 x 256, and maps. Programs are compiled for one image, and
    on GPUs for 2, 4 and 8, so that no group size compiles again. A group of one image has only
    itself to agree with: its map is of what stands out in it.

    Attributes:
        image_size: height and width in the network, pixels.
        stages: the network in parts, batch norm folded.
    """

    def __init__(
        self,
        model: GCoNetPlus,
        *,
        image_size: int,
        chunk: int | None = None,
        device: Any = None,
    ):
        """`chunk` images at most are in the network at once, of `device` or JAX's default one.

        If not given, the fastest number for the device. Results do not depend on it, but for the
        order of float32 sums.
        """
        device = device or jax.local_devices()[0]
        chunk = chunk or (1 if device.platform == 'cpu' else CHUNK)
        self.image_size = image_size
        self.stages = Stages(fold(model), device)
        self._sizes = [2**i for i in range(chunk.bit_length() - 1, -1, -1)]

    @classmethod
    def from_pretrained(
        cls, source: str | Path | None = None, *, step: str = 'latest', ema: bool = False
    ) -> 'Predictor':
        """See `weights.pretrained.load_pretrained`."""
        model, image_size = load_pretrained(source, step=step, ema=ema)
        return cls(model, image_size=image_size)

    def __call__(self, images: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Maps of one group: uint8 (H, W, 3) RGB each -> float32 (H, W) in [0, 1] each.

        Raises:
            InputError: an image has another shape or type; its index is named.
        """
        return next(self.groups([images]))

    def groups(self, groups: Iterable[Sequence[np.ndarray]]) -> Iterator[list[np.ndarray]]:
        """As calling it on each group in turn; small groups go through the network together."""
        for wave in _waves(groups):
            squares = [np.stack([self._square(i, x) for i, x in enumerate(g)]) for g in wave]
            for group, prediction in zip(wave, self.predict(squares), strict=True):
                yield [
                    resize_map(pixels, image.shape[:2])
                    for pixels, image in zip(prediction.maps, group, strict=True)
                ]

    def predict(self, groups: Sequence[np.ndarray]) -> list[Prediction]:
        """Of groups of images that have the network's size already, uint8 (n, S, S, 3) each."""
        ends = np.cumsum([len(group) for group in groups])
        images = np.concatenate(groups)
        chunks = list(_chunks(len(images), self._sizes))
        kept: dict[int, Features] = {}
        x5 = []
        room = KEPT_BYTES
        for i, chunk in enumerate(chunks):
            features = self.stages.encode(images[chunk])
            x5.append(np.asarray(features[-1]))
            room -= sum(x.nbytes for x in features)
            if room > 0:
                kept[i] = features
        of_groups = np.split(np.concatenate(x5), ends[:-1])
        shared = np.concatenate(
            [np.repeat(np.asarray(self.stages.consensus(x))[None], len(x), 0) for x in of_groups]
        )
        decoded = []
        for i, chunk in enumerate(chunks):
            features = kept.pop(i) if i in kept else self.stages.encode(images[chunk])
            decoded.append([np.asarray(x) for x in self.stages.decode(features, shared[chunk])])
        whole = [np.concatenate(part) for part in zip(*decoded, strict=True)]
        parts = zip(*(np.split(part, ends[:-1]) for part in whole), strict=True)
        return [self._binarise(*part) for part in parts]

    def _binarise(self, prob: np.ndarray, thresh: np.ndarray) -> Prediction:
        """`models.confidence.binarise`, whose k depends on the whole group."""
        config = self.stages.config
        if not config.cem:
            return Prediction(prob, prob, thresh, False)
        difference = prob - thresh
        fell_back = bool(overflows(difference, config.k).any())
        k = np.float32(config.k_fallback if fell_back else config.k)
        return Prediction(expit(k * difference), prob, thresh, fell_back)

    def _square(self, index: int, image: np.ndarray) -> np.ndarray:
        shape, dtype = np.shape(image), getattr(image, 'dtype', None)
        if dtype != np.uint8 or len(shape) != 3 or shape[2] != 3 or 0 in shape:
            raise InputError(
                f'image {index} must be RGB of shape (H, W, 3) and type uint8, not {shape} of type '
                f'{dtype}; gconet_jax.input_pipeline.photos.read_photo reads files so'
            )
        return to_square(Image.fromarray(image), self.image_size)


def resize_map(pixels: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """A map (S, S) at `size` (H, W): bilinear with aligned corners, as released."""
    rows, columns = (interpolation_matrix(n, m) for n, m in zip(pixels.shape, size, strict=True))
    return np.clip(rows @ pixels @ columns.T, 0, 1)


def _waves(groups: Iterable[Sequence[np.ndarray]]) -> Iterator[list[Sequence[np.ndarray]]]:
    """Groups that go together, in order."""
    wave: list[Sequence[np.ndarray]] = []
    for i, group in enumerate(groups):
        if len(group) == 0:
            raise InputError(f'group {i} has no images')
        wave.append(group)
        if sum(map(len, wave)) >= WAVE:
            yield wave
            wave = []
    if wave:
        yield wave


def _chunks(n: int, sizes: Sequence[int]) -> Iterator[slice]:
    """n as a sum of `sizes`, which fall by halves to 1: 13 -> 8, 4, 1."""
    start = 0
    for size in itertools.chain.from_iterable(itertools.repeat(s, n // s + 1) for s in sizes):
        if start + size <= n:
            yield slice(start, start + size)
            start += size
