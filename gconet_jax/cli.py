"""`gconet-jax <command>`; `train.py` and `evaluate.py` are two of the commands."""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from absl import flags, logging
from ml_collections import config_flags

from gconet_jax.errors import InputError

USAGE = """usage: gconet-jax COMMAND [FLAGS]

commands:
  train      trains a model:      gconet-jax train --config=configs/duts_coco.py --workdir=DIR
  evaluate   scores runs and maps: gconet-jax evaluate --workdir=DIR --maps=DIR
  predict    maps of your photos: gconet-jax predict PHOTOS... OUT
  look       inside the network:  gconet-jax look PHOTOS... OUT
  serve      a page for photos:   gconet-jax serve
  export     for other programs:  gconet-jax export OUT.onnx --model=DIR
  convert    weights of programs: gconet-jax convert MODEL OUT
  check      looks at the data:   gconet-jax check ROOT [SET ...]

`gconet-jax COMMAND --help` lists the flags of a command."""


def main() -> int:
    """Entry point of the console script."""
    commands: dict[str, Callable[[Sequence[str]], int]] = {
        'train': train,
        'evaluate': evaluate,
        'predict': predict,
        'look': look,
        'serve': serve,
        'export': export,
        'convert': convert,
        'check': check,
    }
    if len(sys.argv) < 2 or sys.argv[1] not in commands:
        print(USAGE)
        return 0 if sys.argv[1:] in (['--help'], ['-h']) else 2
    return commands[sys.argv[1]](sys.argv[1:])


def train(argv: Sequence[str]) -> int:
    """Trains; see the flags for what it takes. Returns the exit status."""
    values = flags.FlagValues()
    config = config_flags.DEFINE_config_file(
        'config',
        None,
        'Config file; its fields are flags too.',
        flag_values=values,
        sys_argv=list(argv),
    )
    workdir = flags.DEFINE_string(
        'workdir', None, 'Folder of the run: checkpoints, metrics. Resumes.', flag_values=values
    )

    coordinator = flags.DEFINE_string(
        'coordinator',
        None,
        "Several processes: 'auto' as Slurm, Open MPI or Kubernetes started them, or HOST:PORT.",
        flag_values=values,
    )
    processes = flags.DEFINE_integer('processes', None, 'Their number.', flag_values=values)
    process = flags.DEFINE_integer('process', None, 'This one, from 0.', flag_values=values)

    def run() -> None:
        from gconet_jax.config_dict import from_config_dict
        from gconet_jax.training import distributed
        from gconet_jax.training.trainer import train

        if config.value is None or workdir.value is None:
            raise InputError('--config and --workdir are needed')
        try:
            settings = from_config_dict(config.value)
        except OSError as error:  # ml_collections' for a file that could not be loaded
            raise InputError(f'--config: {str(error).splitlines()[-1].strip()}') from error
        if (coordinator.value, processes.value, process.value) != (None, None, None):
            distributed.initialize(coordinator.value, processes.value, process.value)
        with distributed.fail_together():
            train(settings, Path(workdir.value))

    return _run(argv, values, run)


def evaluate(argv: Sequence[str]) -> int:
    """Scores checkpoints of runs, and maps of any method. Returns the exit status."""
    values = flags.FlagValues()

    def string(name: str, text: str, default: str | None = None) -> Any:
        return flags.DEFINE_string(name, default, text, flag_values=values)

    workdir = string(
        'workdir', 'Folders of runs, [NAME=]DIR separated by commas; one name: seeds of a method.'
    )
    maps = string('maps', 'Folders of maps, <DIR>/<set>/<group>/<name>.png, in the same form.')
    step = string(
        'step',
        "Checkpoint: its step, 'latest', or 'best' by S on the way; or 'all', or 'last50'.",
        'latest',
    )
    protocol = string('protocol', "'eval-co-sod', the paper's, or 'pysodmetrics'.", 'eval-co-sod')
    root = string('root', 'Folder of the data, instead of the one in the config of the run.')
    sets = string('sets', 'Sets to score, separated by commas; those that are there if not given.')
    include = string('include', 'Patterns of <set>/<group> to score, instead of eval_include.')
    out = string('out', 'Folder of tables and report.')
    workers = flags.DEFINE_integer(
        'workers', os.cpu_count(), 'Processes that write and score.', flag_values=values
    )

    def run() -> None:
        from gconet_jax.evaluation import command

        command.evaluate(
            command.Options(
                runs=tuple(map(command.parse_source, _split(workdir.value))),
                maps=tuple(map(command.parse_source, _split(maps.value))),
                step=step.value,
                protocol=protocol.value,
                root=root.value or '',
                sets=_split(sets.value),
                include=_split(include.value),
                out=Path(out.value) if out.value else None,
                workers=workers.value or 0,
            )
        )

    return _run(argv, values, run)


def predict(argv: Sequence[str]) -> int:
    """Finds what groups of photos share. Returns 1 if nothing could be done."""
    parser = argparse.ArgumentParser(prog='gconet-jax predict', description=predict.__doc__)
    parser.add_argument('inputs', nargs='+', type=Path, help='folders of photos, or photos')
    parser.add_argument('out', type=Path, help='folder of what is made')
    _model_flags(parser)
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

    from gconet_jax.inference import command

    def run() -> int:
        options = command.Options(
            inputs=tuple(arguments.inputs),
            out=arguments.out,
            kinds=_split(arguments.save),
            background=_integers('--background', arguments.background, ',', 3),
            thumbnail_size=_integers('--thumbnail-size', arguments.thumbnail_size, 'x', 2),
            resume=arguments.resume,
            share=(arguments.process, arguments.processes),
        )
        for problem in command.predict(_predictors(arguments), options):
            print(f'passed over: {problem}', file=sys.stderr)
        print(f'{", ".join(options.kinds)} are in {options.out}')
        return 0

    return _told(run)


def look(argv: Sequence[str]) -> int:
    """Draws what the parts of the network make of groups of photos."""
    parser = argparse.ArgumentParser(prog='gconet-jax look', description=look.__doc__)
    parser.add_argument('inputs', nargs='+', type=Path, help='folders of photos, or photos')
    parser.add_argument('out', type=Path, help='folder of the figures')
    _model_flags(parser)
    arguments = parser.parse_args(argv[1:])

    from gconet_jax.inference import visualize

    def run() -> int:
        for problem in visualize.look(_predictors(arguments)[0], arguments.inputs, arguments.out):
            print(f'passed over: {problem}', file=sys.stderr)
        print(f'figures are in {arguments.out}')
        return 0

    return _told(run)


def serve(argv: Sequence[str]) -> int:
    """Serves a page in which a browser's user drops photos and sees what they share."""
    parser = argparse.ArgumentParser(prog='gconet-jax serve', description=serve.__doc__)
    _model_flags(parser)
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
        predictor = _predictors(arguments)[0]
        try:
            page.serve(predictor, host=arguments.host, port=arguments.port)
        except OSError as error:
            raise InputError(f'--host={arguments.host} --port={arguments.port}: {error}') from error
        return 0

    return _told(run)


def export(argv: Sequence[str]) -> int:
    """Writes a network for other programs: OUT.onnx, OUT.stablehlo, or a safetensors folder."""
    parser = argparse.ArgumentParser(prog='gconet-jax export', description=export.__doc__)
    parser.add_argument('out', type=Path, help='.onnx, .stablehlo, or a folder')
    _model_flags(parser)
    arguments = parser.parse_args(argv[1:])

    from gconet_jax.inference.export import export_onnx, export_stablehlo
    from gconet_jax.weights.folder import model_card, save_folder

    out: Path = arguments.out

    def run() -> int:
        if out.suffix not in ('.onnx', '.stablehlo', ''):
            raise InputError(f"{out}: the suffix must be '.onnx', '.stablehlo', or none: a folder")
        model, size = _model(arguments)
        if out.suffix == '.onnx':
            export_onnx(model, out, image_size=size)
        elif out.suffix == '.stablehlo':
            export_stablehlo(model, out, image_size=size)
        else:
            card = model_card(model, image_size=size, source=str(arguments.model))
            save_folder(model, out, image_size=size, card=card)
        print(f'{out} takes groups of images of {size} x {size} pixels')
        return 0

    return _told(run)


def convert(argv: Sequence[str]) -> int:
    """Stores weights as OUT.pth, as an Orbax checkpoint, or as a safetensors folder."""
    parser = argparse.ArgumentParser(prog='gconet-jax convert', description=convert.__doc__)
    parser.add_argument('model', help='run, folder, .pth file or hub id')
    parser.add_argument('out', type=Path, help='.pth, or a folder')
    _checkpoint_flags(parser)
    parser.add_argument('--half', action='store_true', help='safetensors with float16 kernels')
    parser.add_argument('--orbax', action='store_true', help='OUT is the folder of a run')
    parser.add_argument('--push', metavar='USER/NAME', help='put the folder on the hub, too')
    arguments = parser.parse_args(argv[1:])

    from gconet_jax.weights import formats
    from gconet_jax.weights.folder import model_card, save_folder

    out: Path = arguments.out

    def run() -> int:
        if out.suffix not in ('.pth', ''):
            raise InputError(f"{out}: the suffix must be '.pth', or none: a folder")
        if arguments.push and (arguments.orbax or out.suffix):
            raise InputError('--push: a safetensors folder goes on the hub, nothing else')
        model, size = _model(arguments)
        if out.suffix:
            formats.save_torch(model, out)
        elif arguments.orbax:
            formats.save_run(model, out, image_size=size)
        else:
            card = model_card(model, image_size=size, source=arguments.model)
            save_folder(model, out, image_size=size, card=card, half=arguments.half)
        if arguments.push:
            formats.push_folder(out, arguments.push)
        print(f'{arguments.model} is in {out}')
        return 0

    return _told(run)


def _model_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        '--model', help='run, folder, .pth file or hub id; else the model in the package'
    )
    _checkpoint_flags(parser)


def _checkpoint_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('--step', default='latest', help='checkpoint of a run (%(default)s)')
    parser.add_argument('--ema', action='store_true', help="a run's moving averages")


def _model(arguments: argparse.Namespace) -> tuple[Any, int]:
    """The network that `_model_flags` name, and its image size."""
    from gconet_jax.weights.pretrained import load_pretrained

    logging.set_verbosity(logging.ERROR)  # Orbax tells of every step of a load
    return load_pretrained(arguments.model, step=arguments.step, ema=arguments.ema)


def _predictors(arguments: argparse.Namespace) -> list[Any]:
    """One predictor a device, with programs that are compiled once and kept on disk."""
    import jax

    from gconet_jax.inference.predictor import Predictor

    if 'JAX_COMPILATION_CACHE_DIR' not in os.environ:
        cache = Path(os.environ.get('XDG_CACHE_HOME', Path.home() / '.cache')) / 'gconet-jax'
        jax.config.update('jax_compilation_cache_dir', str(cache))
    model, image_size = _model(arguments)
    return [
        Predictor(model, image_size=image_size, device=device) for device in jax.local_devices()
    ]


def _integers(flag: str, text: str, between: str, count: int) -> Any:
    parts = text.split(between)
    if len(parts) != count or not all(part.isdigit() for part in parts):
        raise InputError(f'{flag} {text!r}: {count} whole numbers with {between!r} between them')
    return tuple(map(int, parts))


def check(argv: Sequence[str]) -> int:
    """Says what is in a folder of sets. Returns 1 if training on it would stop."""
    parser = argparse.ArgumentParser(prog='gconet-jax check', description=check.__doc__)
    parser.add_argument('root', type=Path, help='folder of the sets, or of one set')
    parser.add_argument('sets', nargs='*', help='their names; all that are found if not given')
    parser.add_argument('--sheets', type=Path, default=Path('runs/check'), help='contact sheets')
    arguments = parser.parse_args(argv[1:])

    from gconet_jax.input_pipeline.layouts import find_sets
    from gconet_jax.input_pipeline.report import report

    def run() -> int:
        names = arguments.sets or find_sets(arguments.root)
        text, problems = report(arguments.root, names, arguments.sheets)
        print(text)
        return 1 if problems else 0

    return _told(run)


def _told(run: Callable[[], int]) -> int:
    """What `run` returns, or 1 with what the user can mend in a line instead of a traceback."""
    try:
        return run()
    except InputError as error:
        print(f'error: {error}', file=sys.stderr)
        return 1


def _run(argv: Sequence[str], values: flags.FlagValues, run: Callable[[], None]) -> int:
    """Parses flags and runs, printing what the user can mend without a traceback."""
    logging.use_absl_handler()
    logging.set_verbosity(logging.ERROR)  # Orbax tells of every step of every save and load
    flags.FLAGS.mark_as_parsed()  # read by absl logging and Grain
    if any(argument in ('--help', '-h', '--helpfull') for argument in argv):
        print(values.get_help())
        return 0

    def parsed() -> int:
        try:
            _parse(argv, values)
            run()
        except flags.Error as error:  # with a traceback if a config file raised: its last line
            raise InputError(str(error).strip().splitlines()[-1].strip()) from error
        return 0

    return _told(parsed)


def _parse(argv: Sequence[str], values: flags.FlagValues) -> None:
    try:
        rest = values(list(argv))
    except (AttributeError, KeyError) as error:  # ml_collections' for a field that is not there
        raise InputError(f'the config has no field {error}') from error
    except (OSError, ValueError) as error:  # no such config file, or the file itself refuses
        raise InputError(' '.join(str(error).split())) from error
    if rest[1:]:
        raise InputError(f'unexpected arguments: {" ".join(rest[1:])}')


def _split(value: str | None) -> tuple[str, ...]:
    return tuple(value.split(',')) if value else ()
