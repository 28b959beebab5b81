"""What the commands share."""

import argparse
import sys
from collections.abc import Callable
from typing import Any

from absl import logging

from gconet_jax.cli.startup import check_environment
from gconet_jax.errors import InputError


def add_model(parser: argparse.ArgumentParser) -> None:
    """Flags that name a network, which may be the one in the package."""
    parser.add_argument(
        '--model', help='run, folder, .pth file or hub id; else the model in the package'
    )
    add_checkpoint(parser)


def add_checkpoint(parser: argparse.ArgumentParser) -> None:
    """Flags that say which weights of a run."""
    parser.add_argument('--step', default='latest', help='checkpoint of a run (%(default)s)')
    parser.add_argument('--ema', action='store_true', help="a run's moving averages")


def load_model(arguments: argparse.Namespace) -> tuple[Any, int]:
    """The network that `add_model` or `add_checkpoint` name, and its image size."""
    from gconet_jax.weights.pretrained import load_pretrained

    logging.set_verbosity(logging.ERROR)  # Orbax tells of every step of a load
    return load_pretrained(arguments.model, step=arguments.step, ema=arguments.ema)


def split(value: str | None) -> tuple[str, ...]:
    """A flag's parts between commas; none if it is empty or not given."""
    return tuple(value.split(',')) if value else ()


def told(run: Callable[[], int]) -> int:
    """What `run` returns, or 1 with what the user can mend in a line instead of a traceback."""
    try:
        check_environment()
        return run()
    except InputError as error:
        print(f'error: {error}', file=sys.stderr)
        return 1
