"""What the user can mend."""

from collections.abc import Sequence


class InputError(ValueError):
    """Bad input: a config, a data set, a checkpoint or weights. Commands print it and stop.

    Its message names the culprit (field, file, group or entry) and what to do about it.
    """


class CheckpointError(InputError):
    """A checkpoint or its run is missing, broken, or of another config; the message names it."""


def missing_package(error: ImportError) -> str:
    """Say where to get a package that is installed with this one, but not on Windows."""
    return (
        f'{error}; training and prepared data sets need Linux, macOS or WSL, where '
        'pip install gconet-jax installs all packages'
    )


def some(names: Sequence[str], shown: int) -> str:
    """The first names, for a message that gives their number too: 'a, b, ...'."""
    return ', '.join(names[:shown]) + (', ...' if len(names) > shown else '')
