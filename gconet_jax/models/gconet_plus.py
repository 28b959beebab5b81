"""GCoNet+: maps a group of images to a map per image of the object they have in common.

Zheng, Fu, Fan, Fan, Qin, Tai, Tang and Van Gool, "GCoNet+: A Stronger Group Collaborative
Co-Salient Object Detector", TPAMI 2023.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from gconet_jax.config import ModelConfig
from gconet_jax.models import layers
from gconet_jax.models.confidence import Binarisation, ConfidenceEnhancement
from gconet_jax.models.consensus import GroupAffinity, GroupContrast, consensus
from gconet_jax.models.decoder import Decoder
from gconet_jax.models.resize import resize
from gconet_jax.models.resnet import ResNet50
from gconet_jax.models.vgg import VGG16
from gconet_jax.precision import precise

# ImageNet statistics, for RGB in [0, 1].
IMAGE_MEAN = np.array([0.485, 0.456, 0.406], np.float32)
IMAGE_STD = np.array([0.229, 0.224, 0.225], np.float32)


def normalize(images: jax.Array) -> jax.Array:
    """Normalise RGB (..., 3) in [0, 255] for the backbone; returns float32."""
    one_per_channel = (1,) * (images.ndim - 1) + (3,)
    mean, std = IMAGE_MEAN.reshape(one_per_channel), IMAGE_STD.reshape(one_per_channel)
    return (images.astype(jnp.float32) / 255 - mean) / std


class Segmentation(NamedTuple):
    """Maps of G groups of N images; each map is `sigmoid(logits)`."""

    logits: jax.Array  # (G, N, H, W)
    prob: jax.Array  # (G, N, H, W): P of the CEM; without CEM, the map
    thresh: jax.Array  # (G, N, H, W): T of the CEM; without CEM, 0.5
    fell_back: jax.Array  # () bool: the binarisation used k_fallback


class PairOutput(NamedTuple):
    """What the losses need of a pair of groups; None where a module is off."""

    maps: Segmentation
    side_logits: tuple[jax.Array, ...]  # (2, N, h, w) each
    contrast_logits: jax.Array | None  # (2, 2, N, H, W): own, other's consensus
    features: jax.Array  # (2, N, C): mean of x5 over positions
    class_logits: jax.Array | None  # (2, N, classes)
    masked_features: jax.Array | None  # (2, N, C): likewise, of the masked images
    masked_class_logits: jax.Array | None  # (2, N, classes)


class GCoNetPlus(nnx.Module):
    """The whole network.

    `segment` is inference on any number of groups. Calling the module is the training pass on a
    pair of groups. Images are normalised float32 (G, N, H, W, 3); H and W are multiples of 16.
    `valid` (G, N) bool is False for images that pad their group. Padding does not change the
    results of the other images.
    """

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs):
        self.config = config
        self.backbone = _backbone(config, rngs)
        channels = self.backbone.channels[-1]
        norm = config.batch_norm
        self.decoder = Decoder(
            self.backbone.channels,
            max(round(64 * config.width), 1),
            norm=norm,
            block_laterals=config.laterals == 'block',
            block_after_upsampling=config.block_after_upsampling,
            supervised=config.outputs,
            rngs=rngs,
        )
        p1 = self.decoder.channels
        self.gam = (
            GroupAffinity(channels, affinity=config.affinity, rngs=rngs) if config.gam else None
        )
        self.gcm = GroupContrast(channels, rngs=rngs) if config.gcm else None
        self.cem = (
            ConfidenceEnhancement(p1, config.k, config.k_fallback, norm=norm, rngs=rngs)
            if config.cem
            else None
        )
        self.predict = None if config.cem else layers.conv(p1, 1, 1, rngs=rngs)
        classes, init = config.num_classes, layers.kaiming_normal
        self.classifier = (
            nnx.Linear(channels, classes, kernel_init=init, rngs=rngs)
            if config.acm or config.racm
            else None
        )
        own_mask = config.racm and config.racm_mask == 'conv'
        self.mask = layers.conv(p1, 1, 1, rngs=rngs) if own_mask else None

    def segment(self, images: jax.Array, valid: jax.Array) -> Segmentation:
        """Segment G groups, without the parts that only training needs.

        All groups switch to `k_fallback` together. The released code passes one group at a time;
        do the same to reproduce its numbers.

        Args:
          images: (G, N, H, W, 3), normalised.
          valid: (G, N) bool.
        """
        features = self.encode(images, valid)
        weighted, _ = self._consensus(layers.apart(features[-1], valid.shape), valid)
        return self.decode(weighted, features, valid)[0]

    def __call__(
        self, images: jax.Array, valid: jax.Array, marked: jax.Array | None = None
    ) -> PairOutput:
        """Run the training pass on a pair of groups.

        Args:
          images: (2, N, H, W, 3), normalised.
          valid: (2, N) bool.
          marked: (2, N, H, W) in [0, 1]. A group that has marks takes its consensus from the marked
            regions instead of the GAM.
        """
        features = self.encode(images, valid)
        x5 = layers.apart(features[-1], valid.shape)
        weighted, contrasted = self._consensus(x5, valid, marked)
        contrast_logits = None
        if self.gcm is not None:
            both = jnp.concatenate([weighted, contrasted])  # (4, N, ...): own, other's
            coarse = self.gcm(layers.together(both))
            finer = resize(coarse, images.shape[2], images.shape[3])[..., 0]
            finer = layers.apart(finer, both.shape[:2])
            contrast_logits = finer.reshape(2, *valid.shape, *images.shape[2:4])
        maps, side_logits, p1 = self.decode(weighted, features, valid)

        pooled = precise(x5).mean(axis=(2, 3))
        class_logits = masked_features = masked_class_logits = None
        if self.config.acm:
            class_logits = self._classify(pooled)
        if self.config.racm:
            masked = images * self._masks(maps, p1)[..., None]
            masked_x5 = layers.apart(self.encode(masked, valid)[-1], valid.shape)
            masked_features = precise(masked_x5).mean(axis=(2, 3))
            masked_class_logits = self._classify(masked_features)
        return PairOutput(
            maps,
            side_logits,
            contrast_logits,
            pooled,
            class_logits,
            masked_features,
            masked_class_logits,
        )

    def encode(self, images: jax.Array, valid: jax.Array) -> tuple[jax.Array, ...]:
        """Return the backbone's x1 to x5, (N·G, h, w, C) each, in `config.precision`."""
        if self.config.precision == 'bfloat16':
            images = images.astype(jnp.bfloat16)
        return self.backbone(layers.together(images), layers.together(valid))

    def _consensus(
        self, x5: jax.Array, valid: jax.Array, marked: jax.Array | None = None
    ) -> tuple[jax.Array, jax.Array]:
        """Weight x5 by its own group's consensus, and by that of the other group of the pair."""
        if self.gam is None:
            return x5, x5
        shared = consensus(self.gam(x5, valid), valid)
        if marked is not None:
            of_marked, found = self.gam.of_marked(x5, marked)
            shared = jnp.where(found[:, None, None, None, None], of_marked, shared)
        return x5 * shared, x5 * shared[::-1]

    def decode(
        self, weighted: jax.Array, features: tuple[jax.Array, ...], valid: jax.Array
    ) -> tuple[Segmentation, tuple[jax.Array, ...], jax.Array]:
        """Decode weighted features to maps.

        Args:
          weighted: (G, N, h, w, C), x5 weighted by a consensus.
          features: x1 to x5 from `encode`.
          valid: (G, N) bool.

        Returns:
          The maps, the side logits, (G, N, h, w) each, and p1, (N·G, H, W, C).
        """
        groups, flat_valid = valid.shape, layers.together(valid)
        size = image_size(features)
        p1, _, sides = self.decoder(layers.together(weighted), features[:-1], size, flat_valid)
        if self.cem is not None:
            binarised = self.cem(p1, flat_valid)
        else:
            assert self.predict is not None
            logits = self.predict(precise(p1))[..., 0]
            half = jnp.full_like(logits, 0.5)
            binarised = Binarisation(logits, nnx.sigmoid(logits), half, jnp.asarray(False))
        logits, prob, thresh = (layers.apart(x, groups) for x in binarised[:3])
        segmentation = Segmentation(logits, prob, thresh, binarised.fell_back)
        return segmentation, tuple(layers.apart(s[..., 0], groups) for s in sides), p1

    def _masks(self, maps: Segmentation, p1: jax.Array) -> jax.Array:
        """Return the masks that the RACM multiplies the images by, (G, N, H, W) in [0, 1]."""
        if self.mask is None:
            return nnx.sigmoid(maps.logits)
        mask = nnx.sigmoid(self.mask(precise(p1))[..., 0])
        return layers.apart(mask, maps.logits.shape[:2])

    def _classify(self, pooled: jax.Array) -> jax.Array:
        assert self.classifier is not None
        return self.classifier(pooled)


def _backbone(config: ModelConfig, rngs: nnx.Rngs) -> VGG16 | ResNet50:
    if config.backbone == 'resnet50':
        return ResNet50(width=config.width, rngs=rngs)
    return VGG16(batch_norm=config.backbone == 'vgg16_bn', width=config.width, rngs=rngs)


def image_size(features: tuple[jax.Array, ...]) -> tuple[int, int]:
    """Return (height, width) of the images that have these features x1 to x5: 16 times x5's."""
    height, width = features[-1].shape[1:3]
    return 16 * height, 16 * width


def abstract_model(config: ModelConfig) -> GCoNetPlus:
    """Return the network with abstract weights: shapes and types, but no values yet."""
    return nnx.eval_shape(lambda: GCoNetPlus(config, rngs=nnx.Rngs(0)))
