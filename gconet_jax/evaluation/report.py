"""The HTML report on scored maps: scores, worst images, and differences between methods."""

import math
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from string import Template

import numpy as np

from gconet_jax.evaluation import curves, tables
from gconet_jax.evaluation.comparison import MAIN, best_methods, paired_bootstrap
from gconet_jax.evaluation.scores import SetScores
from gconet_jax.evaluation.tables import HEAD, METRICS, Board, cell, cells

WORST, BEST = 10, 5  # visible groups; the table of all groups unfolds
PICTURES = 8  # of the worst images and of the best

PAGE = Template("""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
<style>
body { font: 15px/1.5 system-ui, sans-serif; color: #222; background: #fff;
       max-width: 1200px; margin: 0 auto; padding: 1em; overflow-wrap: anywhere; }
h1, h2, h3 { line-height: 1.25; }
h2 { margin-top: 2.5em; padding-bottom: .2em; border-bottom: 2px solid #222; }
h3 { margin: 2em 0 .5em; }
p, ul { max-width: 50em; }
.scroll { overflow-x: auto; } tr { background: #fff; }
table { border-spacing: 0; font-variant-numeric: tabular-nums; overflow-wrap: normal; }
th, td { padding: .2em .7em; text-align: right; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; white-space: normal; min-width: 7em;
    position: sticky; left: 0; background: inherit; }
thead th { border-bottom: 1px solid #222; }
tbody tr:nth-child(even) { background: #f5f5f5; }
tr.paper td { color: #666; font-style: italic; border-top: 1px solid #aaa; }
summary { cursor: pointer; margin: .7em 0; }
.bar { display: inline-block; width: 6em; margin-right: .6em; background: #ddd; }
.bar i { display: block; height: .7em; background: #0072b2; }
.line { display: inline-block; width: 2em; margin-right: .4em; vertical-align: middle; }
.legend > span { display: inline-block; margin-right: 1.2em; }
.swatch { display: inline-block; width: .8em; height: .8em; border: 1px solid #aaa; }
.plots, .pictures { display: grid; gap: 1em; }
.plots { grid-template-columns: repeat(auto-fill, minmax(min(100%, 270px), 1fr)); }
.pictures { grid-template-columns: repeat(auto-fill, minmax(min(100%, 500px), 1fr)); }
figure { margin: 0; }
figcaption { font-size: .9em; }
img { max-width: 100%; height: auto; }
.plots img { width: 100%; }
.pictures img { border: 1px solid #bbb; }
</style>
</head>
<body>
<h1>$title</h1>
$notes
<p>Scores by the $protocol protocol: $sets. Higher is better, but for MAE.</p>
$body
</body>
</html>
""")

SET = Template("""<h2 id="$anchor">$name</h2>
<p>$images images in $groups groups.</p>
$scores
$undefined
<details><summary>All metrics</summary>
$metrics
</details>
$differences
<h3>Curves</h3>
<p class="legend">$legend</p>
<div class="plots">
$plots
</div>
<p>Curves are averaged over the images$band. $sure</p>
<h3>Groups by S of $first</h3>
$worst_groups
<h3>Worst images by S of $pictured</h3>
<p>Each is image | truth | map | error. Error is map minus truth:
<span class="swatch" style="background: #f00"></span> the map is too high,
<span class="swatch" style="background: #00f"></span> it is too low, white: they agree.</p>
$worst
<h3>Best images by S of $pictured</h3>
$best
""")

DIFFERENCES = Template("""<h3>Differences to $first</h3>
<p>Method minus $first, with the 95 % interval of a paired bootstrap that draws groups.
Where it excludes 0, other groups of this kind would hardly turn the order about; what another
seed of the training would do it does not know.</p>
$table
""")


def write_report(
    board: Board,
    path: Path,
    *,
    title: str,
    notes: Sequence[str] = (),
    train_sets: Sequence[str] = (),
) -> None:
    """Write one self-contained HTML page, atomically.

    Each set shows its scores with the paper's, curves, groups from worst to best, the worst and
    best images of the first method (of its first run, if there are several), and how the other
    methods differ from it. This takes seconds for thousands of images.

    Args:
        board: what was scored; its files are read again for the pictures.
        path: the page to write; its folder is created if needed.
        title: title of the page.
        notes: lines to show at the top.
        train_sets: training sets of the models, to find the paper's row; if empty, the paper's best
            row is shown.

    Raises:
        ValueError: the board has several protocols or none, or the images differ.
        DataError: a file to show cannot be read.
    """
    links = [f'<a href="#set-{i}">{escape(name)}</a>' for i, name in enumerate(board)]
    page = PAGE.substitute(
        title=escape(title),
        notes=_list(notes),
        protocol=escape(tables.protocol(board)),
        sets=', '.join(links),
        body='\n'.join(_set(board, name, f'set-{i}', train_sets) for i, name in enumerate(board)),
    )
    tables.write_whole(path, page)


def _set(board: Board, name: str, anchor: str, train_sets: Sequence[str]) -> str:
    methods = board[name]
    first, runs = next(iter(methods.items()))
    s = runs[0].scores.smeasure
    order = [int(i) for i in np.argsort(s, kind='stable') if not np.isnan(s[i])]
    shown = min(PICTURES, (len(order) + 1) // 2)
    worst, best = order[:shown], order[shown:][-shown:][::-1]
    several = any(len(runs) > 1 for runs in methods.values())
    everything = [[escape(m), *cells(runs, METRICS)] for m, runs in methods.items()]
    return SET.substitute(
        anchor=anchor,
        name=escape(name),
        images=len(s),
        groups=len(runs[0].groups()),
        scores=_scores(board, name, train_sets),
        undefined=_list(tables.undefined_lines(methods)),
        metrics=_table(['', *METRICS.values()], everything),
        differences=_differences(board, name),
        legend=curves.legend(methods),
        plots='\n'.join(
            f'<figure><figcaption>{t}</figcaption><img alt="{t}" src="{uri}"></figure>'
            for t, uri in curves.plots(methods).items()
        ),
        band='; a band is the deviation over the runs of a method' if several else '',
        sure=curves.sureness(methods),
        first=escape(first),
        pictured=escape(first) + ', run 1' * (len(runs) > 1),
        worst_groups=_groups(board, name),
        worst=_pictures(runs[0], worst),
        best=_pictures(runs[0], best),
    )


def _scores(board: Board, name: str, train_sets: Sequence[str]) -> str:
    best = best_methods(board[name])
    rows = []
    for method, runs in board[name].items():
        texts = zip(cells(runs), best, strict=True)
        marked = (f'<b>{text}</b>' if method in winners else text for text, winners in texts)
        rows.append([escape(method) + f' ({len(runs)} runs)' * (len(runs) > 1), *marked])
    published = tables.paper_row(name, train_sets)
    if published:
        rows.append([escape(tables.paper_label(train_sets)), *(cell(value) for value in published)])
    return _table(['', *HEAD], rows, last='paper' if published else '')


def _differences(board: Board, name: str) -> str:
    (first, runs), *others = board[name].items()
    rows = []
    for method, its_runs in others:
        for metric, difference in paired_bootstrap(runs, its_runs).items():
            better = (difference.value < 0) == (metric == 'mae')
            sure = ('yes, better' if better else 'yes, worse') if difference.excludes_zero else 'no'
            value, low, high = (f'{number:+.3f}' for number in difference)
            once = escape(method) if metric == MAIN[0] else ''
            rows.append([once, METRICS[metric], value, f'{low} to {high}', sure])
    head = ['', 'metric', 'difference', '95 % interval', 'excludes 0']
    return DIFFERENCES.substitute(first=escape(first), table=_table(head, rows)) if others else ''


def _groups(board: Board, name: str) -> str:
    """Return the table of the first method's groups; the full list unfolds below it."""
    (_, runs), *others = board[name].items()
    scored = []
    for group, images in runs[0].groups().items():
        shown = 'defined_smeasure', 'max_fmeasure', 'mae'
        s, f, mae = (_mean(runs, images, metric) for metric in shown)
        bar = '' if math.isnan(s) else f'<span class="bar"><i style="width: {s:.1%}"></i></span>'
        more = (cell(_mean(its_runs, images, 'defined_smeasure')) for _, its_runs in others)
        row = [escape(group), str(len(images)), bar + cell(s), cell(f), cell(mae), *more]
        scored.append((math.inf if math.isnan(s) else s, row))
    rows = [row for _, row in sorted(scored, key=lambda pair: pair[0])]
    head = ['group', 'images', 'S', 'max F', 'MAE', *(f'S of {escape(m)}' for m, _ in others)]
    if len(rows) <= 2 * (WORST + BEST):
        return _table(head, rows)
    between = [f'... {len(rows) - WORST - BEST} between', *[''] * (len(head) - 1)]
    return (
        _table(head, [*rows[:WORST], between, *rows[-BEST:]])
        + f'<details><summary>All {len(rows)} groups</summary>{_table(head, rows)}</details>'
    )


def _mean(runs: Sequence[SetScores], images: Sequence[int], metric: str) -> float:
    return float(np.mean([run.summary(images)[metric] for run in runs]))


def _pictures(run: SetScores, images: Sequence[int]) -> str:
    figures = []
    for i in images:
        image, numbers = run.images[i], run.summary([i])
        name = escape(f'{image.group}/{image.name}')
        texts = (f'{METRICS[metric]} {numbers[metric]:.3f}' for metric in MAIN[1:])
        figures.append(
            f'<figure><img alt="{name}" src="{curves.strip(image)}">'
            f'<figcaption>{name}: {", ".join(texts)}</figcaption></figure>'
        )
    return '<div class="pictures">\n' + '\n'.join(figures) + '\n</div>'


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], last: str = '') -> str:
    """Return a table whose cells are HTML; `last` is the class of the last row."""
    lines = [f'<tr>{"".join(f"<td>{text}</td>" for text in row)}</tr>' for row in rows]
    if last:
        lines[-1] = lines[-1].replace('<tr>', f'<tr class="{last}">')
    top = ''.join(f'<th>{text}</th>' for text in head)
    body = '\n'.join(lines)
    return f"""<div class="scroll"><table>
<thead><tr>{top}</tr></thead>
<tbody>
{body}
</tbody>
</table></div>"""


def _list(texts: Iterable[str]) -> str:
    items = ''.join(f'<li>{escape(text)}</li>' for text in texts)
    return f'<ul>{items}</ul>' if items else ''
