"""The platform that a program is traced for, where an operation has a form of its own for CPUs."""

import contextlib
import contextvars
from collections.abc import Iterator

import jax

ANY = 'any'  # for programs that leave this process

_named: contextvars.ContextVar[str | None] = contextvars.ContextVar('target', default=None)


def target() -> str:
    """'cpu', 'gpu' or 'tpu': JAX's default backend, unless `tracing_for` names another."""
    return _named.get() or jax.default_backend()


@contextlib.contextmanager
def tracing_for(platform: str) -> Iterator[None]:
    """What is traced within is for `platform`: 'cpu', 'gpu', 'tpu' or `ANY`.

    For programs that are compiled or exported here and run elsewhere. Functions that were traced
    before keep the forms that they have.
    """
    token = _named.set(platform)
    try:
        yield
    finally:
        _named.reset(token)
