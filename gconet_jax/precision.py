"""Casts for what is always computed in float32 or better: sums, softmax, logits."""

from typing import Any

import jax
import jax.numpy as jnp


def precise(x: jax.Array) -> jax.Array:
    """Cast x to float32 unless it is at least as precise."""
    return x.astype(precise_type(x.dtype))


def precise_type(dtype: Any) -> Any:
    """Return float32, or `dtype` if it is at least as precise."""
    return jnp.float32 if jnp.finfo(dtype).bits < 32 else dtype
