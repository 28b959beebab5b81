"""Arguments and error handling that the commands share."""

import argparse
import sys
from collections.abc import Callable
from typing import Any

from absl import logging

from gconet_jax.cli.startup import check_environment
from gconet_jax.errors import InputError


def add_model(parser: argparse.ArgumentParser) -> None:
    """Add the flags that select a network; the default is the one in the package."""
    parser.add_argument(
        '--model', help='run, folder, .pth file or hub id; else the model in the package'
    )
    add_checkpoint(parser)


def add_checkpoint(parser: argparse.ArgumentParser) -> None:
    """Add the flags that select a run's checkpoint and weights."""
    parser.add_argument('--step', default='latest', help='checkpoint of a run (%(default)s)')
    parser.add_argument('--ema', action='store_true', help="a run's moving averages")


def load_model(arguments: argparse.Namespace) -> tuple[Any, int]:
    """Load the network that the flags select; return it and its image size, pixels."""
    from gconet_jax.weights.pretrained import load_pretrained

    logging.set_verbosity(logging.ERROR)  # Orbax logs every step of loading
    return load_pretrained(arguments.model, step=arguments.step, ema=arguments.ema)


def split(value: str | None) -> tuple[str, ...]:
    """Split a flag's value at commas; an empty or missing value gives ()."""
    return tuple(value.split(',')) if value else ()


def told(run: Callable[[], int]) -> int:
    """Run a command and return its exit status.

    An InputError is printed in one line, without a traceback, and gives status 1.
    """
    try:
        check_environment()
        return run()
    except InputError as error:
        print(f'error: {error}', file=sys.stderr)
        return 1
