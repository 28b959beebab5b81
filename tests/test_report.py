"""What `gconet-jax check` reports about a folder."""

import shutil

import numpy as np
import pytest
from PIL import Image
from tiny_data import write_set

from gconet_jax import cli
from gconet_jax.input_pipeline.report import ROWS


@pytest.fixture
def root(tmp_path):
    write_set(tmp_path, 'train', {'ant': 3, 'bee': 2}, seed=1)
    write_set(tmp_path, 'test', {'cat': 1, 'dog': 4}, seed=2)
    return tmp_path


def run(root, *sets):
    return cli.check(['check', str(root), *sets, f'--sheets={root / "sheets"}'])


def test_a_good_folder(root, capsys):
    assert run(root) == 0
    printed = capsys.readouterr().out
    assert 'train: 2 groups, 5 images\n  images of a group: 2 to 3, median 2' in printed
    assert 'pixels: 24 to 24 wide, 20 to 20 high' in printed
    assert '1 groups of one image:\n    test/cat' in printed
    assert 'cannot be used' not in printed
    assert 'images are' not in printed
    for name in ('train', 'test'):
        with Image.open(root / 'sheets' / f'{name}.jpg') as sheet:
            assert sheet.size == (12 * 96, 2 * 108)


def test_problems_are_named_and_fail(root, capsys):
    (root / 'images/train/ant/00.jpg').write_bytes(b'')
    (root / 'gts/train/ant/01.png').unlink()
    Image.fromarray(np.zeros((20, 24), np.uint8)).save(root / 'gts/train/bee/00.png')
    assert run(root, 'train') == 1
    printed = capsys.readouterr().out
    assert 'ant/01.png is missing' in printed
    assert '1 cannot be used:\n' in printed
    assert 'ant/00.jpg' in printed
    assert '1 masks are empty:\n    train/bee/00' in printed


def test_a_set_of_no_use_does_not_hide_the_others(root, capsys):
    shutil.rmtree(root / 'gts/train')
    (root / 'gts/train').mkdir()
    assert run(root, 'train', 'nowhere', 'test') == 1
    printed = capsys.readouterr().out
    assert "train: no group that can be used in set 'train'" in printed
    assert "nowhere: no set named 'nowhere'" in printed
    assert 'test: 2 groups, 5 images' in printed


def test_duplicates_within_and_between_sets(root, capsys):
    shutil.copy(root / 'images/train/ant/00.jpg', root / 'images/train/bee/01.jpg')
    shutil.copy(root / 'images/train/ant/02.jpg', root / 'images/test/dog/03.jpg')
    assert run(root) == 0
    printed = capsys.readouterr().out
    assert '1 images are in several sets:\n    test/dog/03 = train/ant/02' in printed
    assert '1 images are twice in a set:\n    train/ant/00 = train/bee/01' in printed


def test_a_set_in_another_layout_is_found(root, capsys):
    other = root / 'other'
    shutil.copytree(root / 'images/train', other / 'mine/Image')
    shutil.copytree(root / 'gts/train', other / 'mine/GT')
    assert run(other) == 0
    assert run(other / 'mine') == 0
    assert capsys.readouterr().out.count('mine: 2 groups, 5 images') == 2


def test_many_groups_are_shown_on_several_sheets(root, capsys, monkeypatch):
    assert ROWS * 108 <= 65_500
    monkeypatch.setattr('gconet_jax.input_pipeline.report.ROWS', 2)
    write_set(root, 'many', {f'{i}': 1 for i in range(5)})
    assert run(root, 'many') == 0
    heights = {}
    for path in (root / 'sheets').iterdir():
        with Image.open(path) as sheet:
            heights[path.name] = sheet.height
    assert capsys.readouterr().out.count('contact sheet: ') == 3
    assert heights == {'many.jpg': 216, 'many-2.jpg': 216, 'many-3.jpg': 108}


def test_a_folder_without_sets(tmp_path, capsys):
    assert run(tmp_path) == 1
    assert run(tmp_path / 'nowhere') == 1
    assert 'error: no sets in' in capsys.readouterr().err
