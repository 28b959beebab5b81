"""Confidence enhancement module (CEM): differentiable binarisation of the map."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from gconet_jax.models import layers
from gconet_jax.precision import precise

# exp(x) overflows float32 for larger x.
EXP_OVERFLOW = math.log(np.finfo(np.float32).max)


class Binarisation(NamedTuple):
    """Output of the CEM for each pixel."""

    logits: jax.Array  # (B, H, W): k (P - T); the map M is their sigmoid
    prob: jax.Array  # (B, H, W): P
    thresh: jax.Array  # (B, H, W): T
    fell_back: jax.Array  # () bool: k_fallback was used


def binarise(
    prob: jax.Array, thresh: jax.Array, valid: jax.Array, *, k: float, k_fallback: float
) -> Binarisation:
    """Compute the logits of M = 1 / (1 + exp(-k (P - T))) (GCoNet+, equation 3).

    If exp(-k (P - T)) overflows float32 at any pixel of any valid image, `k_fallback` replaces k
    for all images of the pass, as in the released code.

    Args:
      prob: P, (B, H, W) in [0, 1].
      thresh: T, (B, H, W) in [0, 1].
      valid: (B,) bool, False for padding images.
      k: steepness.
      k_fallback: steepness after an overflow.
    """
    difference = prob - thresh
    fell_back = (overflows(difference, k) & valid[:, None, None]).any()
    steepness = jnp.where(fell_back, k_fallback, k).astype(difference.dtype)
    return Binarisation(steepness * difference, prob, thresh, fell_back)


def overflows(difference: Any, k: float) -> Any:
    """Return where exp(-k (P - T)) overflows float32.

    `difference` is P - T, a JAX or numpy array; the result is a bool array of its shape.
    """
    return -k * difference > EXP_OVERFLOW


class Branch(nnx.Module):
    """Two 3x3 convolutions with batch norm and ReLU, then a 1x1 convolution and a sigmoid."""

    def __init__(self, channels: int, *, norm: bool, rngs: nnx.Rngs):
        self.first = layers.conv_norm(channels, channels, 3, norm=norm, rngs=rngs)
        self.second = layers.conv_norm(channels, channels, 3, norm=norm, rngs=rngs)
        self.predict = layers.conv(channels, 1, 1, rngs=rngs)

    def __call__(self, p1: jax.Array, valid: jax.Array) -> jax.Array:
        """Map p1 (B, H, W, C), valid (B,) to P or T, (B, H, W) float32 in [0, 1]."""
        x = nnx.relu(self.first(p1, valid))
        x = nnx.relu(self.second(x, valid))
        return nnx.sigmoid(self.predict(precise(x)))[..., 0]


class ConfidenceEnhancement(layers.Rematerialized):
    """CEM: predicts a probability P and a threshold T for each pixel (section 3.4)."""

    def __init__(self, channels: int, k: float, k_fallback: float, *, norm: bool, rngs: nnx.Rngs):
        self.prob = Branch(channels, norm=norm, rngs=rngs)
        self.thresh = Branch(channels, norm=norm, rngs=rngs)
        self.k, self.k_fallback = k, k_fallback

    def __call__(self, p1: jax.Array, valid: jax.Array) -> Binarisation:
        """Binarise the map of p1 (B, H, W, C), with valid (B,) bool."""
        run = self.rematerialized(Branch.__call__)
        prob, thresh = run(self.prob, p1, valid), run(self.thresh, p1, valid)
        return binarise(prob, thresh, valid, k=self.k, k_fallback=self.k_fallback)
