"""Tables of scores, and the files for other programs."""

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest

from gconet_jax.evaluation.paper import TABLE_3
from gconet_jax.evaluation.scores import ImageScores, ScoredImage, SetScores
from gconet_jax.evaluation.tables import METRICS, text_table, write_tables, write_whole

NOWHERE = Path('nowhere')  # no file is read
CURVES = ('fmeasure', 'emeasure', 'iou', 'dice', 'precision', 'recall', 'false_positive_rate')
GROUPS = ('axe, "small"', '<b>&|_%#', 'çe')
AWKWARD = 'a|b_c & 50% #1, "x"'


def random_run(seed, dataset='CoCA', protocol='eval-co-sod'):
    rng = np.random.default_rng(seed)
    images = tuple(
        ScoredImage(group, f'{i}', None, NOWHERE, NOWHERE, resized=i == 1)
        for group in GROUPS
        for i in range(4)
    )
    shapes = {name: (len(images), 9) for name in CURVES} | {'confidence': (len(images), 256)}
    scores = ImageScores._make(
        rng.uniform(0.1, 0.9, shapes.get(name, len(images))) for name in ImageScores._fields
    )
    return SetScores(dataset, protocol, images, scores)


@pytest.fixture
def board():
    several = {'mine': [random_run(0), random_run(1)], AWKWARD: [random_run(2)]}
    return {'CoCA': several, 'my set': {'mine': [random_run(3, 'my set')]}}


def rows_of(path):
    with path.open(newline='', encoding='utf-8') as file:
        return list(csv.DictReader(file))


def close_to(row, scores):
    for metric in METRICS:
        assert float(row[metric]) == pytest.approx(scores[metric], abs=6e-7, nan_ok=True), metric


def test_metrics_are_all_that_a_summary_has():
    assert set(METRICS) == set(random_run(0).summary())


def test_text(board):
    lines = text_table(board).splitlines()
    assert re.split(r'  +', lines[0]) == ['CoCA', 'max E', 'S', 'max F', 'MAE']
    s = [run.scores.smeasure.mean() for run in board['CoCA']['mine']]
    mae = board['CoCA'][AWKWARD][0].scores.mae.mean()
    assert re.split(r'  +', lines[1])[2] == f'{np.mean(s):.3f} ± {np.std(s, ddof=1):.3f}'
    assert re.split(r'  +', lines[2])[::4] == [AWKWARD, f'{mae:.3f}']
    assert lines[3].startswith('paper, best (DUTS_class + COCO-SEG)')
    assert lines[3].split()[-4:] == ['0.814', '0.738', '0.637', '0.081']
    assert lines[5].startswith('my set')
    assert len(lines) == 7, 'the paper has no row for a set of its own'


def test_row_of_the_paper_is_of_the_training_sets(board):
    text = text_table(board, ('COCO-9k', 'DUTS_class'))  # in any order
    (row,) = (line for line in text.splitlines() if line.startswith('paper (COCO-9k + DUTS_class)'))
    assert [float(v) for v in row.split()[-4:]] == list(TABLE_3['DUTS_class', 'COCO-9k']['CoCA'])
    assert 'paper' not in text_table(board, ('pets',))


def test_undefined_smeasure_is_said(board):
    run = board['CoCA'][AWKWARD][0]
    run.scores.smeasure[[0, 1, 5, 6]] = np.nan
    lines = text_table(board).splitlines()
    assert re.split(r'  +', lines[2])[2] == 'nan'
    assert lines[4] == (
        '  CoCA: S is undefined under eval-co-sod for 4 of 12 images (axe, "small"/0, '
        f'axe, "small"/1, <b>&|_%#/1, ...); over the others: {AWKWARD} '
        f'{np.nanmean(run.scores.smeasure):.3f}'
    )


def refuse(constant):
    raise AssertionError(f'{constant} is not JSON')


def test_json(board, tmp_path):
    board['CoCA']['mine'][1].scores.smeasure[3] = np.nan
    write_tables(board, tmp_path)
    content = json.loads((tmp_path / 'scores.json').read_text(), parse_constant=refuse)
    assert content['protocol'] == 'eval-co-sod'
    mine = content['sets']['CoCA']['mine']
    first, second = (run.summary() for run in board['CoCA']['mine'])
    assert mine['images'] == 12
    assert mine['runs'][0] == first
    assert mine['runs'][1]['smeasure'] is mine['mean']['smeasure'] is None
    assert mine['mean']['ap'] == pytest.approx((first['ap'] + second['ap']) / 2)
    assert mine['deviation']['ap'] == pytest.approx(abs(first['ap'] - second['ap']) / 2**0.5)
    assert content['sets']['my set']['mine']['deviation']['mae'] is None
    assert content['paper']['train_sets'] == ['DUTS_class', 'COCO-SEG']
    assert content['paper']['sets'] == {
        'CoCA': {'max_emeasure': 0.814, 'smeasure': 0.738, 'max_fmeasure': 0.637, 'mae': 0.081}
    }


def test_csv_of_sets_and_groups(board, tmp_path):
    run = board['CoCA']['mine'][1]
    run.scores.smeasure[5] = np.nan
    write_tables(board, tmp_path)
    sets = rows_of(tmp_path / 'sets.csv')
    keys = [('CoCA', 'mine', '1'), ('CoCA', 'mine', '2'), ('CoCA', AWKWARD, '1')]
    assert [(r['set'], r['method'], r['run']) for r in sets] == [*keys, ('my set', 'mine', '1')]
    close_to(sets[1], run.summary())
    groups = rows_of(tmp_path / 'groups.csv')
    assert [row['group'] for row in groups] == list(GROUPS) * 4
    assert {row['images'] for row in groups} == {'4'}
    close_to(groups[4], run.summary([4, 5, 6, 7]))
    assert groups[4]['smeasure'] == 'nan'


def test_csv_of_images(board, tmp_path):
    write_tables(board, tmp_path)
    rows = rows_of(tmp_path / 'images.csv')
    assert len(rows) == 4 * 12
    assert [row['resized'] for row in rows[:4]] == ['0', '1', '0', '0']
    scores = board['CoCA'][AWKWARD][0].scores
    row = rows[24 + 6]
    assert (row['method'], row['group'], row['name']) == (AWKWARD, GROUPS[1], '2')
    assert float(row['mae']) == pytest.approx(scores.mae[6], abs=6e-7)
    assert float(row['max_fmeasure']) == pytest.approx(scores.fmeasure[6].max(), abs=6e-7)
    assert float(row['mean_emeasure']) == pytest.approx(scores.emeasure[6].mean(), abs=6e-7)


def test_markdown(board, tmp_path):
    write_tables(board, tmp_path)
    lines = (tmp_path / 'table.md').read_text(encoding='utf-8').splitlines()
    table = [re.split(r'(?<!\\)\|', line)[1:-1] for line in lines]
    table = [[text.strip() for text in row] for row in table]
    assert [len(row) for row in table] == [9] * 5
    assert table[0][:5] == ['method', 'CoCA max E ↑', 'CoCA S ↑', 'CoCA max F ↑', 'CoCA MAE ↓']
    assert table[3][0] == r'a\|b\_c \& 50% #1, "x"'
    assert table[3][5:] == ['-'] * 4
    assert table[4][4:6] == ['0.081', '-']
    maes = [np.mean([r.scores.mae.mean() for r in runs]) for runs in board['CoCA'].values()]
    assert [row[4].startswith('**') for row in table[2:4]] == [maes[0] < maes[1], maes[1] < maes[0]]
    s = [np.mean([r.scores.smeasure.mean() for r in runs]) for runs in board['CoCA'].values()]
    assert [row[2].startswith('**') for row in table[2:4]] == [s[0] > s[1], s[1] > s[0]]
    assert '**' not in table[2][8], 'one method is not the best of several'


def test_latex(board, tmp_path):
    write_tables({'a_b': board['CoCA'], 'my set': board['my set']}, tmp_path)
    text = (tmp_path / 'table.tex').read_text(encoding='utf-8')
    lines = [line for line in text.splitlines() if line.endswith(r'\\')]
    assert len(lines) == 4, 'the paper has neither set'
    assert [len(re.split(r'(?<!\\)&', line)) for line in lines] == [3, 9, 9, 9]
    assert r'\multicolumn{4}{c}{a\_b}' in lines[0]
    assert r'MAE $\downarrow$' in lines[1]
    assert r' $\pm$ ' in lines[2]
    assert lines[3].startswith(r'a|b\_c \& 50\% \#1, "x" & ')
    assert text.count(r'\textbf{') == 4
    assert not re.search(r'[±↑↓]', text)
    assert text.count('{') - text.count(r'\{') == text.count('}') - text.count(r'\}')


def test_several_protocols_are_refused(board, tmp_path):
    board['other'] = {'mine': [random_run(0, 'other', 'pysodmetrics')]}
    with pytest.raises(ValueError, match=r"\['eval-co-sod', 'pysodmetrics'\]"):
        write_tables(board, tmp_path / 'new')
    assert not (tmp_path / 'new').exists()


def test_files_are_whole_and_nothing_else_is_left(board, tmp_path):
    paths = write_tables(board, tmp_path / 'a' / 'b')
    assert sorted(paths) == sorted((tmp_path / 'a' / 'b').iterdir())
    before = [path.read_bytes() for path in paths]
    assert [path.read_bytes() for path in write_tables(board, tmp_path / 'a' / 'b')] == before


def test_failed_write_leaves_nothing(tmp_path):
    (tmp_path / 'taken').mkdir()
    with pytest.raises(OSError, match='taken'):
        write_whole(tmp_path / 'taken', 'text')
    assert list(tmp_path.iterdir()) == [tmp_path / 'taken']
