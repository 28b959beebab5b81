"""Commands for weights: export, convert."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from gconet_jax.cli.arguments import add_checkpoint, add_model, load_model, told
from gconet_jax.errors import InputError
from gconet_jax.inference.opsets import DEFAULT_OPSET, OPSETS


def export(argv: Sequence[str]) -> int:
    """Export a network as OUT.onnx, OUT.stablehlo or a safetensors folder."""
    parser = argparse.ArgumentParser(prog='gconet-jax export', description=export.__doc__)
    parser.add_argument('out', type=Path, help='.onnx, .stablehlo, or a folder')
    parser.add_argument(
        '--opset', type=int, choices=OPSETS, help=f'ONNX operator set (default: {DEFAULT_OPSET})'
    )
    add_model(parser)
    arguments = parser.parse_args(argv[1:])

    out: Path = arguments.out

    def run() -> int:
        from gconet_jax.inference.export import export_onnx, export_stablehlo
        from gconet_jax.weights.folder import model_card, save_folder

        if out.suffix not in ('.onnx', '.stablehlo', ''):
            raise InputError(f"{out}: the suffix must be '.onnx', '.stablehlo', or none: a folder")
        if arguments.opset is not None and out.suffix != '.onnx':
            raise InputError(f'--opset: {out} is not an .onnx file. Remove --opset')
        model, size = load_model(arguments)
        if out.suffix == '.onnx':
            opset = DEFAULT_OPSET if arguments.opset is None else arguments.opset
            export_onnx(model, out, image_size=size, opset=opset)
        elif out.suffix == '.stablehlo':
            export_stablehlo(model, out, image_size=size)
        else:
            source = arguments.model or 'the model in the package gconet-jax'
            card = model_card(model, image_size=size, source=source)
            save_folder(model, out, image_size=size, card=card)
        print(f'{out} takes groups of images of {size} x {size} pixels')
        return 0

    return told(run)


def convert(argv: Sequence[str]) -> int:
    """Convert a network to OUT.pth, a safetensors folder, or a run with an Orbax checkpoint.

    With --calibrate, convert a VGG-16 without batch norm to OUT.safetensors of one with batch norm.
    """
    parser = argparse.ArgumentParser(prog='gconet-jax convert', description=convert.__doc__)
    parser.add_argument('model', help='run, folder, .pth file or hub id; or a VGG-16')
    parser.add_argument('out', type=Path, help='.pth, or a folder; or .safetensors of a VGG-16-BN')
    add_checkpoint(parser)
    parser.add_argument('--half', action='store_true', help='safetensors with float16 kernels')
    parser.add_argument('--orbax', action='store_true', help='OUT is the folder of a run')
    parser.add_argument('--calibrate', type=Path, metavar='PHOTOS', help='folder of photos')
    parser.add_argument('--push', metavar='USER/NAME', help='put the folder on the hub, too')
    arguments = parser.parse_args(argv[1:])

    out: Path = arguments.out

    def run() -> int:
        from gconet_jax.weights import formats, hub
        from gconet_jax.weights.calibration import calibrate_file
        from gconet_jax.weights.folder import model_card, save_folder

        _refuse_ignored(arguments)
        if arguments.calibrate:
            used = calibrate_file(arguments.model, arguments.calibrate, out)
            print(f'{out} has the statistics of {used} photos')
            return 0
        model, size = load_model(arguments)
        if out.suffix:
            formats.save_torch(model, out)
        elif arguments.orbax:
            formats.save_run(model, out, image_size=size)
        else:
            card = model_card(model, image_size=size, source=arguments.model)
            save_folder(model, out, image_size=size, card=card, half=arguments.half)
        if arguments.push:
            hub.push(out, arguments.push)
        print(f'{arguments.model} is in {out}')
        return 0

    return told(run)


def _refuse_ignored(arguments: argparse.Namespace) -> None:
    """Check the flags of `convert`.

    Raises:
        InputError: the suffix of OUT is not supported, or a flag would be ignored.
    """
    out: Path = arguments.out
    flags = {
        '--half': arguments.half,
        '--orbax': arguments.orbax,
        '--push': arguments.push is not None,
        '--step': arguments.step != 'latest',
        '--ema': arguments.ema,
    }
    given = [flag for flag, value in flags.items() if value]
    if arguments.calibrate:
        if out.suffix != '.safetensors':
            raise InputError(f'{out}: a calibrated VGG-16 is a .safetensors file')
        if given:
            raise InputError(f'{", ".join(given)}: for GCoNet+, not for a VGG-16 (--calibrate)')
        return
    if out.suffix not in ('.pth', ''):
        raise InputError(f"{out}: the suffix must be '.pth', or none: a folder")
    if arguments.push and (arguments.orbax or out.suffix):
        raise InputError('--push: a safetensors folder goes on the hub, nothing else')
    if arguments.orbax and out.suffix:
        raise InputError(f'--orbax: the folder of a run has no suffix, and {out} has one')
    if arguments.half and (arguments.orbax or out.suffix):
        raise InputError('--half: for a safetensors folder, not for a .pth file or with --orbax')
