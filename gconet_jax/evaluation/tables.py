"""Tables of scores: for the terminal, for papers, and as files for other programs."""

import csv
import io
import json
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from gconet_jax.errors import some
from gconet_jax.evaluation.comparison import MAIN, best_methods, deviation
from gconet_jax.evaluation.paper import TABLE_3
from gconet_jax.evaluation.scores import SetScores
from gconet_jax.whole_file import whole_file

# Set -> method -> its runs (seeds of one method), all on the same images in the same order.
Board = dict[str, dict[str, list[SetScores]]]
Parts = Callable[[SetScores], Iterable[tuple[list[Any], list[int] | None]]]

# Printed names of the metrics of `SetScores.summary`; MAIN, from Table 3, comes first.
METRICS = {
    'max_emeasure': 'max E',
    'smeasure': 'S',
    'max_fmeasure': 'max F',
    'mae': 'MAE',
    'mean_emeasure': 'mean E',
    'adaptive_emeasure': 'adaptive E',
    'mean_fmeasure': 'mean F',
    'adaptive_fmeasure': 'adaptive F',
    'wfmeasure': 'weighted F',
    'max_iou': 'IoU (best)',
    'adaptive_iou': 'IoU (adaptive)',
    'max_dice': 'Dice (best)',
    'adaptive_dice': 'Dice (adaptive)',
    'ap': 'AP',
    'auc': 'AUC',
    'min_ber': 'BER (best)',
    'defined_smeasure': 'S (where defined)',
}
HEAD = ('max E ↑', 'S ↑', 'max F ↑', 'MAE ↓')
PAPER_BEST = ('DUTS_class', 'COCO-SEG')  # the training sets of the best rows of Table 3
SHOWN = 3  # images to list whose S is undefined


def text_table(board: Board, train_sets: Sequence[str] = ()) -> str:
    """Return the terminal's table: max E, S, max F and MAE of each method on each set.

    Args:
        board: what was scored.
        train_sets: training sets of the models, to find the paper's row; if empty, the paper's best
            row is shown.
    """
    label = paper_label(train_sets)
    width = max(map(len, {label, *board}.union(*board.values())))
    lines = []
    for dataset, methods in board.items():
        rows = [(method, cells(runs)) for method, runs in methods.items()]
        published = paper_row(dataset, train_sets)
        if published:
            rows.append((label, [cell(value) for value in published]))
        column = max(7, *(len(text) for _, row in rows for text in row))
        for name, row in [(dataset, [METRICS[metric] for metric in MAIN]), *rows]:
            lines.append('  '.join([f'{name:<{width}}', *(f'{text:>{column}}' for text in row)]))
        lines += [*(f'  {line}' for line in undefined_lines(methods)), '']
    return '\n'.join(lines[:-1])


def write_tables(board: Board, folder: Path, train_sets: Sequence[str] = ()) -> list[Path]:
    """Write scores.json, sets.csv, groups.csv, images.csv, table.md and table.tex.

    The CSV files have 6 decimals and 'nan' for undefined scores; runs are numbered from 1. The JSON
    file has null for undefined scores. Each file is written atomically.

    Args:
        board: what was scored.
        folder: output directory, created if needed.
        train_sets: see `text_table`.

    Returns:
        The files.

    Raises:
        ValueError: the board has several protocols or none.
    """
    texts = {
        'scores.json': _json(board, train_sets),
        'sets.csv': _csv(board, ['images'], lambda run: [([len(run.images)], None)]),
        'groups.csv': _csv(
            board,
            ['group', 'images'],
            lambda run: [([name, len(i)], i) for name, i in run.groups().items()],
        ),
        'images.csv': _csv(
            board,
            ['group', 'name', 'resized'],
            lambda run: [
                ([i.group, i.name, int(i.resized)], [n]) for n, i in enumerate(run.images)
            ],
        ),
        'table.md': _markdown(board, train_sets),
        'table.tex': _latex(board, train_sets),
    }
    for name, text in texts.items():
        write_whole(folder / name, text)
    return [folder / name for name in texts]


def write_whole(path: Path, text: str) -> None:
    """Write UTF-8 text atomically, through a temporary file; create the folder if needed."""
    with whole_file(path) as partial:
        partial.write_bytes(text.encode(errors='backslashreplace'))  # file names need not be UTF-8


def protocol(board: Board) -> str:
    """Return the protocol of everything on the board; ValueError if there are several or none."""
    runs = [run for methods in board.values() for several in methods.values() for run in several]
    names = sorted({run.protocol for run in runs})
    if len(names) != 1:
        raise ValueError(f'a table is of one protocol, not {names}; score all its sets by one')
    return names[0]


def paper_row(dataset: str, train_sets: Sequence[str] = ()) -> tuple[float, ...] | None:
    """Return the paper's max E, S, max F and MAE; its best row if `train_sets` is empty."""
    wanted = set(train_sets or PAPER_BEST)
    return next((rows.get(dataset) for sets, rows in TABLE_3.items() if set(sets) == wanted), None)


def paper_label(train_sets: Sequence[str] = ()) -> str:
    """Return the label of the paper's row."""
    return f'paper{"" if train_sets else ", best"} ({" + ".join(train_sets or PAPER_BEST)})'


def undefined_lines(methods: Mapping[str, Sequence[SetScores]]) -> list[str]:
    """List the images of a set whose S is undefined, with the mean S of the others."""
    found: dict[tuple[str, ...], list[str]] = {}
    for method, runs in methods.items():
        names = {f'{image.group}/{image.name}': 0 for run in runs for image in run.undefined()}
        value = cell(deviation(runs)['defined_smeasure'][0])
        found.setdefault(tuple(names), []).append(f'{method} {value}')
    first = next(iter(methods.values()))[0]
    return [
        f'{first.dataset}: S is undefined under {first.protocol} for {len(names)} of '
        f'{len(first.images)} images ({some(names, SHOWN)}); '
        f'over the others: {", ".join(values)}'
        for names, values in found.items()
        if names
    ]


def cells(runs: Sequence[SetScores], metrics: Iterable[str] = MAIN) -> list[str]:
    """Format the mean of each metric, with its deviation if there are several runs."""
    numbers = deviation(runs)
    return [cell(*numbers[metric]) for metric in metrics]


def cell(value: float, spread: float = float('nan')) -> str:
    """Format a value: `0.814`, `0.814 ± 0.003` or `nan`."""
    return f'{value:.3f}' if math.isnan(spread) else f'{value:.3f} ± {spread:.3f}'


def _json(board: Board, train_sets: Sequence[str]) -> str:
    def of_method(runs: Sequence[SetScores]) -> dict[str, Any]:
        numbers = deviation(runs)
        return {
            'images': len(runs[0].images),
            'mean': {metric: _null(numbers[metric][0]) for metric in METRICS},
            'deviation': {metric: _null(numbers[metric][1]) for metric in METRICS},
            'runs': [{m: _null(value) for m, value in run.summary().items()} for run in runs],
        }

    rows = {dataset: paper_row(dataset, train_sets) for dataset in board}
    found = {dataset: dict(zip(MAIN, row, strict=True)) for dataset, row in rows.items() if row}
    content = {
        'protocol': protocol(board),
        'sets': {
            dataset: {method: of_method(runs) for method, runs in methods.items()}
            for dataset, methods in board.items()
        },
        'paper': {'train_sets': list(train_sets or PAPER_BEST), 'sets': found},
    }
    return json.dumps(content, indent=2, allow_nan=False) + '\n'


def _null(value: float) -> float | None:
    return None if math.isnan(value) else value


def _csv(board: Board, columns: Sequence[str], parts: Parts) -> str:
    """Return CSV with a line for each part of each run: labels, scores (None: all images)."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator='\n')
    writer.writerow(['set', 'method', 'run', *columns, *METRICS])
    for dataset, methods in board.items():
        for method, runs in methods.items():
            for i, run in enumerate(runs):
                for labels, images in parts(run):
                    numbers = run.summary(images)
                    decimals = (f'{numbers[metric]:.6f}' for metric in METRICS)
                    writer.writerow([dataset, method, i + 1, *labels, *decimals])
    return text.getvalue()


def _rows(
    board: Board, train_sets: Sequence[str], escape: Callable[[str], str], bold: str
) -> list[list[str]]:
    """Return a row per method and one for the paper: name, then max E, S, max F, MAE per set."""
    rows = {method: [escape(method)] for methods in board.values() for method in methods}
    paper = [escape(paper_label(train_sets))]
    for dataset, methods in board.items():
        best = best_methods(methods)
        for method, row in rows.items():
            texts = cells(methods[method]) if method in methods else ['-'] * len(MAIN)
            for text, winners in zip(texts, best, strict=True):
                row.append(bold.format(text) if method in winners else text)
        published = paper_row(dataset, train_sets)
        paper += [cell(value) for value in published] if published else ['-'] * len(MAIN)
    return [*rows.values(), *([paper] if set(paper[1:]) != {'-'} else [])]


def _markdown(board: Board, train_sets: Sequence[str]) -> str:
    def escape(text: str) -> str:
        return re.sub(r'([\\|*_`<&$~\[\]])', r'\\\1', ' '.join(text.split()))

    head = ['method', *(f'{escape(name)} {column}' for name in board for column in HEAD)]
    rows = [head, ['---', *['---:'] * (len(head) - 1)], *_rows(board, train_sets, escape, '**{}**')]
    notes = [escape(line) for methods in board.values() for line in undefined_lines(methods)]
    return '\n'.join([*(f'| {" | ".join(row)} |' for row in rows), *(f'\n{n}' for n in notes), ''])


def _latex(board: Board, train_sets: Sequence[str]) -> str:
    special = {'\\': r'\textbackslash{}', '~': r'\textasciitilde{}', '^': r'\textasciicircum{}'}
    special |= {character: f'\\{character}' for character in '&%$#_{}'}

    def escape(text: str) -> str:
        return ''.join(special.get(character, character) for character in ' '.join(text.split()))

    n = len(MAIN)
    sets = [rf'\multicolumn{{{n}}}{{c}}{{{escape(name)}}}' for name in board]
    rules = [rf'\cmidrule(lr){{{n * i + 2}-{n * i + n + 1}}}' for i in range(len(board))]
    head = ['', *HEAD * len(board)]
    body = [['', *sets], head, *_rows(board, train_sets, escape, r'\textbf{{{}}}')]
    signs = str.maketrans({'±': r'$\pm$', '↑': r'$\uparrow$', '↓': r'$\downarrow$'})
    rows = [' & '.join(row).translate(signs) + r' \\' for row in body]
    begin = ['% needs \\usepackage{booktabs}', rf'\begin{{tabular}}{{l{"c" * n * len(board)}}}']
    top = [r'\toprule', rows[0], ' '.join(rules), rows[1], r'\midrule']
    return '\n'.join([*begin, *top, *rows[2:], r'\bottomrule', r'\end{tabular}', ''])
