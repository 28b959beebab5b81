"""Readable errors for a device that runs out of memory."""

import contextlib
from collections.abc import Iterator

import jax

from gconet_jax.errors import InputError

INFERENCE_ADVICE = (
    'the device does not have enough memory: close other programs that use it, or run on the CPU '
    'with the environment variable JAX_PLATFORMS=cpu'
)


@contextlib.contextmanager
def memory_errors(
    advice: str = INFERENCE_ADVICE, error_type: type[InputError] = InputError
) -> Iterator[None]:
    """Turn JAX's RESOURCE_EXHAUSTED errors into a one-line error.

    Works as a context manager and as a decorator.

    Args:
        advice: start of the message: what is wrong and what to change.
        error_type: type of the error to raise.

    Raises:
        InputError: a device ran out of memory in the block; of type `error_type`.
    """
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if 'RESOURCE_EXHAUSTED' not in str(error):
            raise
        first_line = str(error).splitlines()[0][:300]
        raise error_type(f'{advice} ({first_line})') from error
