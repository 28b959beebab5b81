"""Commands for photos: predict, look, serve."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gconet_jax.cli.arguments import add_model, load_model, split, told
from gconet_jax.cli.compilation import keep_programs
from gconet_jax.errors import InputError


def predict(argv: Sequence[str]) -> int:
    """Segment the object that the photos of each group have in common."""
    parser = argparse.ArgumentParser(prog='gconet-jax predict', description=predict.__doc__)
    parser.add_argument('inputs', nargs='+', type=Path, help='folders of photos, or photos')
    parser.add_argument('out', type=Path, help='folder of what is made')
    add_model(parser)
    parser.add_argument(
        '--save',
        default='maps,overlays,sheets',
        help='of maps, masks, overlays, cutouts, cosegments, thumbnails, sheets (%(default)s)',
    )
    parser.add_argument('--background', default='255,255,255', help='R,G,B behind cosegments')
    parser.add_argument('--thumbnail-size', default='256x256', help='WxH (%(default)s)')
    parser.add_argument('--resume', action='store_true', help='pass over groups that are done')
    parser.add_argument('--process', type=int, default=0, help='this one of --processes, from 0')
    parser.add_argument('--processes', type=int, default=1, help='hosts that share the groups')
    arguments = parser.parse_args(argv[1:])

    def run() -> int:
        from gconet_jax.inference.command import predict as predict_all
        from gconet_jax.inference.options import Options

        options = Options(
            inputs=tuple(arguments.inputs),
            out=arguments.out,
            kinds=split(arguments.save),
            background=_integers('--background', arguments.background, ',', 3, (0, 255)),
            thumbnail_size=_integers(
                '--thumbnail-size', arguments.thumbnail_size, 'x', 2, (1, 8192)
            ),
            resume=arguments.resume,
            share=(arguments.process, arguments.processes),
        )
        for problem in predict_all(_predictors(arguments), options):
            print(f'passed over: {problem}', file=sys.stderr)
        print(f'{", ".join(options.kinds)} are in {options.out}')
        return 0

    return told(run)


def look(argv: Sequence[str]) -> int:
    """Plot intermediate results of the network for groups of photos."""
    parser = argparse.ArgumentParser(prog='gconet-jax look', description=look.__doc__)
    parser.add_argument('inputs', nargs='+', type=Path, help='folders of photos, or photos')
    parser.add_argument('out', type=Path, help='folder of the figures')
    add_model(parser)
    arguments = parser.parse_args(argv[1:])

    def run() -> int:
        from gconet_jax.inference import visualize

        for problem in visualize.look(_predictor(arguments), arguments.inputs, arguments.out):
            print(f'passed over: {problem}', file=sys.stderr)
        print(f'figures are in {arguments.out}')
        return 0

    return told(run)


def serve(argv: Sequence[str]) -> int:
    """Serve a web page that shows what uploaded photos have in common."""
    parser = argparse.ArgumentParser(prog='gconet-jax serve', description=serve.__doc__)
    add_model(parser)
    parser.add_argument(
        '--host', default='127.0.0.1', help='address to listen at (%(default)s: this machine alone)'
    )
    parser.add_argument('--port', type=int, default=7860, help='(%(default)s)')
    arguments = parser.parse_args(argv[1:])

    def run() -> int:
        try:
            from gconet_jax.app import page
        except ModuleNotFoundError as error:
            raise InputError(f"{error}; pip install 'gconet-jax[app]'") from error
        predictor = _predictor(arguments)
        try:
            page.serve(predictor, host=arguments.host, port=arguments.port)
        except OSError as error:
            raise InputError(f'--host={arguments.host} --port={arguments.port}: {error}') from error
        return 0

    return told(run)


def _predictor(arguments: argparse.Namespace) -> Any:
    """Create a predictor on the first device."""
    return _predictors(arguments, most=1)[0]


def _predictors(arguments: argparse.Namespace, most: int | None = None) -> list[Any]:
    """Create a predictor per device, for at most `most` devices, with compilations cached."""
    import jax

    from gconet_jax.inference.predictor import Predictor

    keep_programs()
    model, image_size = load_model(arguments)
    return [
        Predictor(model, image_size=image_size, device=device)
        for device in jax.local_devices()[:most]
    ]


def _integers(flag: str, text: str, between: str, count: int, limits: tuple[int, int]) -> Any:
    """Parse `count` whole numbers, within inclusive limits, from the text of a flag.

    Raises:
        InputError: the text is something else.
    """
    low, high = limits
    parts = text.split(between)
    numbers = tuple(int(part) for part in parts if part.isdecimal())
    if not len(numbers) == len(parts) == count or not all(low <= x <= high for x in numbers):
        raise InputError(
            f'{flag} {text!r}: {count} whole numbers of {low} to {high} with {between!r} between '
            'them'
        )
    return numbers
