"""Errors that the user can fix."""

from collections.abc import Sequence


class InputError(ValueError):
    """A config, data set, checkpoint or file of weights is invalid.

    The message names the field, file, group or entry at fault and says how to fix it. Commands
    print it without a traceback and stop.
    """


class CheckpointError(InputError):
    """A checkpoint or run is missing, broken, or has another config; the message names it."""


def missing_package(error: ImportError) -> str:
    """Return a message for the import error of a dependency that is not installed on Windows."""
    return (
        f'{error}; training and prepared data sets need Linux, macOS or WSL, where '
        'pip install gconet-jax installs all packages'
    )


def some(names: Sequence[str], shown: int) -> str:
    """Join the first `shown` names for a message: 'a, b, ...'."""
    return ', '.join(names[:shown]) + (', ...' if len(names) > shown else '')
