"""The implementation of `evaluate.py`: score runs and folders of maps into tables and a report."""

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from gconet_jax.config import Config, DataConfig
from gconet_jax.device_memory import memory_errors
from gconet_jax.errors import InputError
from gconet_jax.evaluation import evaluator, pictures
from gconet_jax.evaluation.report import write_report
from gconet_jax.evaluation.scores import SetScores, mean_smeasure
from gconet_jax.evaluation.scoring import PROTOCOLS, find_maps, score_maps
from gconet_jax.evaluation.tables import Board, text_table, write_tables
from gconet_jax.input_pipeline.groups import Group
from gconet_jax.input_pipeline.layouts import find_folder
from gconet_jax.input_pipeline.sets import evaluation_sets, present_sets
from gconet_jax.training import config_file, restore

Sets = dict[str, tuple[Group, ...]]
Scores = dict[str, SetScores]


class Source(NamedTuple):
    """A run or a folder of maps, with its name in the tables."""

    name: str
    path: Path


@dataclass(frozen=True)
class Options:
    """What to score, and how.

    Attributes:
        runs: folders of runs; runs with the same name are seeds of one method.
        maps: folders of maps, `<set>/<group>/<name>.png`; the same name means the same method.
        step: checkpoints of each run, see `restore.choose_steps`.
        protocol: a key of `scoring.PROTOCOLS`.
        root: folder of the data; '' uses the one in the config of the first run.
        sets: sets to score; () means the available sets of `data.eval_sets`.
        include: patterns of <set>/<group>; () means `data.eval_include`.
        out: output directory of tables and report; None means the folder of the run if there is
            only one source, else `scores`.
        workers: scoring processes.
    """

    runs: tuple[Source, ...]
    maps: tuple[Source, ...]
    step: str
    protocol: str
    root: str
    sets: tuple[str, ...]
    include: tuple[str, ...]
    out: Path | None
    workers: int


def parse_source(text: str) -> Source:
    """Parse 'NAME=PATH', or a path whose last part is the name."""
    name, equals, path = text.partition('=')
    return Source(name, Path(path)) if equals else Source(Path(text).name or text, Path(text))


def evaluate(options: Options) -> None:
    """Score everything, print the table, and write tables and the report.

    Raises:
        InputError: bad arguments or files; what can be checked is checked before scoring.
    """
    if not options.runs and not options.maps:
        raise InputError('give --workdir, --maps or both')
    if options.protocol not in PROTOCOLS:
        raise InputError(f'--protocol {options.protocol!r}: there are {", ".join(PROTOCOLS)}')
    steps = [restore.choose_steps(run.path, options.step) for run in options.runs]
    config = config_file.read_config(options.runs[0].path) if options.runs else Config()
    sets = _sets(config.data, options)
    found = [find_maps(source.path, sets) for source in options.maps]
    board: Board = {name: {} for name in sets}
    notes: list[str] = []
    for run, its_steps in zip(options.runs, steps, strict=True):
        for name, scores in _score_run(run, its_steps, sets, options, notes):
            _add(board, name, scores)
    for source, maps in zip(options.maps, found, strict=True):
        scored = score_maps(maps, protocol=options.protocol, workers=options.workers)
        _add(board, source.name, scored)
    notes += _remarks(board)
    train_sets = config.data.train_sets if options.runs else ()
    out = _out(options, steps)
    write_tables(board, out, train_sets)
    title = ', '.join(dict.fromkeys(source.name for source in (*options.runs, *options.maps)))
    write_report(board, out / 'report.html', title=title, notes=notes, train_sets=train_sets)
    print('\n'.join([f'\n{text_table(board, train_sets)}', *notes]))
    print(f'\nTables are in {out}; {out / "report.html"} shows them with curves and pictures')


def _sets(data: DataConfig, options: Options) -> Sets:
    """Return the groups to score, by set: the requested sets, or else the available ones."""
    root = options.root or data.root
    names = options.sets or present_sets(root, data.eval_sets)
    if not options.sets and options.maps and not options.runs:
        with_maps = [
            name
            for name in names
            if any(s.path.is_dir() and find_folder(s.path, name) is not None for s in options.maps)
        ]
        names = tuple(with_maps) or names
    include = options.include or data.eval_include
    return evaluation_sets(
        replace(data, root=root, eval_sets=names, eval_include=include), with_masks=True
    )


def _score_run(
    run: Source, steps: Sequence[int], sets: Sets, options: Options, notes: list[str]
) -> Iterator[tuple[str, Scores]]:
    """Yield the scores of a run and its averages; several checkpoints give the best and last."""
    config = config_file.read_config(run.path)
    for ema in (False, True) if config.train.ema else (False,):
        name = f'{run.name}-ema' if ema else run.name
        sweep = _Sweep(steps, run.path / 'maps')
        for step in steps:
            sweep.add(step, _score_checkpoint(run, step, sets, options, ema=ema), ema=ema)
        if len(steps) == 1:
            yield name, sweep.best
            continue
        notes += sweep.lines(name)
        yield f'{name} step {sweep.best_step} (best of {len(steps)})', sweep.best
        if sweep.best_step != steps[-1]:
            yield f'{name} step {steps[-1]} (last)', sweep.last


class _Sweep:
    """Several checkpoints of a run: S of each, and scores and maps of the best and the last."""

    def __init__(self, steps: Sequence[int], maps: Path):
        self._steps, self._maps = steps, maps
        self._smeasure: dict[int, float] = {}
        self.best: Scores = {}
        self.last: Scores = {}
        self.best_step = steps[0]

    def add(self, step: int, scores: Scores, *, ema: bool) -> None:
        """Add the scores of a checkpoint, and delete maps that are neither best nor last."""
        self._smeasure[step] = mean_smeasure(of.summary() for of in scores.values())
        self.last = scores
        loser = step
        if not self.best or self._smeasure[step] > self._smeasure[self.best_step]:
            loser, self.best, self.best_step = self.best_step, scores, step
        if loser not in (self.best_step, self._steps[-1]):
            shutil.rmtree(self._maps / _version(loser, ema=ema), ignore_errors=True)

    def lines(self, name: str) -> list[str]:
        """Describe the scores of all checkpoints, and how far to trust the best one."""
        listed = ', '.join(f'{step} {value:.3f}' for step, value in self._smeasure.items())
        return [
            f'{name}: mean S of each checkpoint, by step: {listed}.',
            f'{name}: step {self.best_step} was chosen out of {len(self._steps)} by its S on the '
            'sets that it is scored on, as the released code chooses among its last 50. That '
            'flatters: the last step, which nobody chose, is the fair one to compare.',
        ]


@memory_errors()
def _score_checkpoint(run: Source, step: int, sets: Sets, options: Options, *, ema: bool) -> Scores:
    config, model, _ = restore.load_model(run.path, str(step), ema=ema)
    folder = run.path / 'maps' / _version(step, ema=ema)
    print(f'{run.path}, step {_version(step, ema=ema)}: maps go to {folder}')
    scores = evaluator.evaluate(
        evaluator.segment_with(model),
        sets,
        folder,
        image_size=config.data.image_size,
        protocol=options.protocol,
        workers=options.workers,
    )
    for name, groups in sets.items():
        pictures.comparison(folder / name, groups, folder / f'{name}.png')
    return scores


def _version(step: int, *, ema: bool) -> str:
    return f'{step}-ema' if ema else str(step)


def _add(board: Board, name: str, scores: Scores) -> None:
    for dataset, of_set in scores.items():
        board[dataset].setdefault(name, []).append(of_set)


def _remarks(board: Board) -> list[str]:
    return [
        f'{dataset}, {method}: {remark}'
        for dataset, methods in board.items()
        for method, runs in methods.items()
        for run in runs
        for remark in run.remarks
    ]


def _out(options: Options, steps: Sequence[Sequence[int]]) -> Path:
    if options.out is not None:
        return options.out
    if options.maps or len(options.runs) != 1:
        return Path('scores')
    numbers = steps[0]
    name = str(numbers[0]) if len(numbers) == 1 else f'{numbers[0]}-{numbers[-1]}'
    suffix = '' if options.protocol == 'eval-co-sod' else f'-{options.protocol}'
    return options.runs[0].path / 'evaluations' / f'{name}{suffix}'
