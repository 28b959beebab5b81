"""What is computed in float32 whatever the type of the features: sums, softmax, logits."""

from typing import Any

import jax
import jax.numpy as jnp


def precise(x: jax.Array) -> jax.Array:
    """x in float32, if its type is a smaller one: for sums, softmax, logits."""
    return x.astype(precise_type(x.dtype))


def precise_type(dtype: Any) -> Any:
    """float32, or `dtype` if it is at least as precise."""
    return jnp.float32 if jnp.finfo(dtype).bits < 32 else dtype
