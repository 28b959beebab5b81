"""The options of `evaluate.py`, and what it rejects before scoring."""

import json

import numpy as np
import pytest
from PIL import Image
from tiny_data import write_maps, write_set

from gconet_jax import cli
from gconet_jax.evaluation import command
from gconet_jax.evaluation.scores import ImageScores, ScoredImage, SetScores
from gconet_jax.input_pipeline.groups import load_groups


@pytest.fixture
def data(tmp_path):
    """Create the sets CoCA and CoSal2015, and maps of CoCA by two methods."""
    write_set(tmp_path, 'CoCA', {'cat': 3, 'dog': 2})
    write_set(tmp_path, 'CoSal2015', {'cow': 2}, seed=1)
    for seed, name in enumerate(('one', 'two')):
        write_maps(tmp_path / name / 'CoCA', load_groups(tmp_path, 'CoCA'), seed)
    return tmp_path


def evaluate(data, *flags):
    flags = (f'--root={data}', f'--out={data / "out"}', '--workers=0', *flags)
    return cli.evaluate(['evaluate', *flags])


def test_methods_side_by_side_on_the_sets_that_are_there(data, capsys):
    one, two = data / 'one', data / 'two'
    assert evaluate(data, f'--maps={one},{two},mine={one},mine={two}') == 0
    printed = capsys.readouterr().out
    content = json.loads((data / 'out' / 'scores.json').read_text())
    assert content['protocol'] == 'eval-co-sod'
    assert list(content['sets']) == ['CoCA']  # CoSal2015 has no maps and was not requested
    methods = content['sets']['CoCA']
    assert list(methods) == ['one', 'two', 'mine']
    both = [methods[name]['mean']['mae'] for name in ('one', 'two')]
    assert [run['mae'] for run in methods['mine']['runs']] == both
    assert methods['mine']['deviation']['mae'] == pytest.approx(np.std(both, ddof=1))
    assert f'{np.mean(both):.3f} ± ' in printed
    assert content['paper']['sets']['CoCA']['smeasure'] == 0.738
    assert 'paper' in printed
    assert {path.name for path in (data / 'out').iterdir()} == {
        'scores.json',
        'sets.csv',
        'groups.csv',
        'images.csv',
        'table.md',
        'table.tex',
        'report.html',
    }


def test_the_other_protocol(data):
    scores = []
    for protocol in ('eval-co-sod', 'pysodmetrics'):
        assert evaluate(data, f'--maps={data / "one"}', f'--protocol={protocol}') == 0
        content = json.loads((data / 'out' / 'scores.json').read_text())
        assert content['protocol'] == protocol
        scores.append(content['sets']['CoCA']['one']['mean']['mae'])
    assert scores[0] != scores[1]


def test_odd_files_are_told_in_the_terminal_and_in_the_report(data, capsys):
    path = data / 'one' / 'CoCA' / 'cat' / '00.png'
    Image.open(path).convert('RGB').resize((60, 50)).save(path)
    Image.new('L', (24, 20)).save(path.with_name('other.png'))
    assert evaluate(data, f'--maps={data / "one"}') == 0
    report = (data / 'out' / 'report.html').read_text()
    printed = capsys.readouterr().out
    for text in ('1 maps of another size', '1 maps not 8-bit grey', '1 maps of no image'):
        assert text in printed
        assert text in report


@pytest.mark.parametrize(
    ('flags', 'message'),
    [
        ([], 'give --workdir, --maps or both'),
        (['--maps={}/nowhere'], 'maps are missing|not a folder'),
        (['--maps={}/one', '--protocol=other'], "--protocol 'other': there are eval-co-sod"),
        (['--maps={}/one', '--sets=CoCA,CoSal2015'], 'has no maps of CoSal2015'),
        (['--maps={}/one', '--sets=None'], "no set named 'None'"),
        (['--maps={}/one,{}/broken'], '4 of 5 maps are missing'),
        (['--workdir={}/one'], 'holds no'),
    ],
)
def test_what_is_wrong_is_told_before_anything_is_scored(data, flags, message, capsys):
    broken = data / 'broken' / 'CoCA' / 'cat'
    broken.mkdir(parents=True)
    Image.new('L', (24, 20)).save(broken / '00.png')
    assert evaluate(data, *(flag.format(data, data) for flag in flags)) == 1
    error = capsys.readouterr().err
    assert error.startswith('error: ')
    assert any(part in error for part in message.split('|'))
    assert not (data / 'out').exists()


def test_a_sweep_keeps_the_maps_of_the_best_and_of_the_last(tmp_path):
    steps = [10, 20, 30, 40]
    sweep = command._Sweep(steps, tmp_path)
    for step, s in zip(steps, (0.4, 0.6, 0.5, 0.55), strict=True):
        (tmp_path / str(step)).mkdir()
        sweep.add(step, {'A': scores(s)}, ema=False)
    assert sweep.best_step == 20
    assert sweep.best['A'].summary()['smeasure'] == 0.6
    assert sweep.last['A'].summary()['smeasure'] == 0.55
    assert sorted(path.name for path in tmp_path.iterdir()) == ['20', '40']
    assert '10 0.400, 20 0.600, 30 0.500, 40 0.550' in sweep.lines('x')[0]
    assert 'flatters' in sweep.lines('x')[1]


def scores(s: float) -> SetScores:
    images = (ScoredImage('g', 'n', None, None, None, resized=False),)
    numbers = [np.full((1, *((2,) if i > 6 else ())), 0.5) for i in range(len(ImageScores._fields))]
    return SetScores(
        'A', 'eval-co-sod', images, ImageScores(*numbers)._replace(smeasure=np.array([s]))
    )
