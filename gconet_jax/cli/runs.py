"""Commands for data sets: train, evaluate, check."""

import argparse
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from absl import flags, logging
from ml_collections import config_flags

from gconet_jax.cli.arguments import split, told
from gconet_jax.cli.compilation import keep_programs
from gconet_jax.errors import InputError, missing_package
from gconet_jax.host_memory import keep_freed_memory

PACKAGE = Path(__file__).parents[1]  # wheels include the configs here


def train(argv: Sequence[str]) -> int:
    """Train a model; return the exit status."""
    argv = [_installed_config(argument) for argument in argv]
    values = flags.FlagValues()
    config = config_flags.DEFINE_config_file(
        'config',
        None,
        'Config file; its fields are flags too.',
        flag_values=values,
        sys_argv=argv,
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
        keep_freed_memory()
        keep_programs()

        from gconet_jax.config_dict import from_config_dict
        from gconet_jax.training import distributed

        try:
            from gconet_jax.training.trainer import train
        except ModuleNotFoundError as error:
            raise InputError(f'cannot train: {missing_package(error)}') from error

        if config.value is None or workdir.value is None:
            raise InputError('--config and --workdir are needed')
        try:
            settings = from_config_dict(config.value)
        except OSError as error:  # from ml_collections: the file could not be loaded
            raise InputError(f'--config: {str(error).splitlines()[-1].strip()}') from error
        if (coordinator.value, processes.value, process.value) != (None, None, None):
            distributed.initialize(coordinator.value, processes.value, process.value)
        with distributed.fail_together():
            train(settings, Path(workdir.value))

    return _run(argv, values, run)


def _installed_config(argument: str) -> str:
    """Point `--config=configs/NAME.py` to the package's file if there is none here."""
    name, _, value = argument.partition('=')
    file, colon, variant = value.partition(':')
    installed = PACKAGE / file
    if name != '--config' or Path(file).exists() or not installed.is_file():
        return argument
    return f'{name}={installed}{colon}{variant}'


def evaluate(argv: Sequence[str]) -> int:
    """Score checkpoints of runs and maps of any method; return the exit status."""
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
        keep_programs()

        from gconet_jax.evaluation import command

        command.evaluate(
            command.Options(
                runs=tuple(map(command.parse_source, split(workdir.value))),
                maps=tuple(map(command.parse_source, split(maps.value))),
                step=step.value,
                protocol=protocol.value,
                root=root.value or '',
                sets=split(sets.value),
                include=split(include.value),
                out=Path(out.value) if out.value else None,
                workers=workers.value or 0,
            )
        )

    return _run(argv, values, run)


def check(argv: Sequence[str]) -> int:
    """Report what a folder of data sets holds; exit with 1 if training on it would stop."""
    parser = argparse.ArgumentParser(prog='gconet-jax check', description=check.__doc__)
    parser.add_argument('root', type=Path, help='folder of the sets, or of one set')
    parser.add_argument('sets', nargs='*', help='their names; all that are found if not given')
    parser.add_argument('--sheets', type=Path, default=Path('runs/check'), help='contact sheets')
    arguments = parser.parse_args(argv[1:])

    def run() -> int:
        from gconet_jax.input_pipeline.layouts import find_sets
        from gconet_jax.input_pipeline.report import report

        names = arguments.sets or find_sets(arguments.root)
        text, problems = report(arguments.root, names, arguments.sheets)
        print(text)
        return 1 if problems else 0

    return told(run)


def _run(argv: Sequence[str], values: flags.FlagValues, run: Callable[[], None]) -> int:
    """Parse flags and run a command; print errors that the user can fix without a traceback."""
    logging.use_absl_handler()
    logging.set_verbosity(logging.ERROR)  # Orbax logs every step of saving and loading
    flags.FLAGS.mark_as_parsed()  # read by absl logging and Grain
    if any(argument in ('--help', '-h', '--helpfull') for argument in argv):
        print(values.get_help())
        return 0

    def parsed() -> int:
        try:
            _parse(argv, values)
            run()
        except flags.Error as error:  # a config file's error has its traceback: use the last line
            raise InputError(str(error).strip().splitlines()[-1].strip()) from error
        return 0

    return told(parsed)


def _parse(argv: Sequence[str], values: flags.FlagValues) -> None:
    try:
        rest = values(list(argv))
    except (AttributeError, KeyError) as error:  # from ml_collections: no such field
        raise InputError(f'the config has no field {error}') from error
    except (OSError, ValueError) as error:  # no such config file, or it raised the error
        raise InputError(' '.join(str(error).split())) from error
    if rest[1:]:
        raise InputError(f'unexpected arguments: {" ".join(rest[1:])}')
