"""Errors of a device that runs out of memory."""

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
    """Replace JAX's RESOURCE_EXHAUSTED by one line; a context manager and a decorator.

    Args:
        advice: what is wrong and what to change.
        error_type: what to raise.

    Raises:
        InputError: of `error_type`, a device ran out of memory in the block.
    """
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if 'RESOURCE_EXHAUSTED' not in str(error):
            raise
        first_line = str(error).splitlines()[0][:300]
        raise error_type(f'{advice} ({first_line})') from error
