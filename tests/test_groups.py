"""The layout on disk, and the errors when it is wrong."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny_data import write_set

from gconet_jax.config import DataConfig
from gconet_jax.input_pipeline.checks import check_groups
from gconet_jax.input_pipeline.files import DataError, open_image
from gconet_jax.input_pipeline.groups import load_groups, select
from gconet_jax.input_pipeline.layouts import find_sets
from gconet_jax.input_pipeline.sets import evaluation_sets, training_sets


@pytest.fixture
def root(tmp_path):
    write_set(tmp_path, 'tiny', {'cat': 3, 'ant': 2})
    return tmp_path


def test_groups_and_images_are_sorted_and_other_files_skipped(root):
    folder = root / 'images/tiny/cat'
    (folder / 'Thumbs.db').write_bytes(b'')
    (folder / '._00.jpg').write_bytes(b'')
    (folder / 'notes.txt').write_bytes(b'')
    (root / 'images/tiny/.cache').mkdir()
    (folder / '02.jpg').rename(folder / '02.JPEG')
    ant, cat = load_groups(root, 'tiny')
    assert (ant.key, cat.key) == ('tiny/ant', 'tiny/cat')
    assert [path.name for path in cat.images] == ['00.jpg', '01.jpg', '02.JPEG']
    assert [path.name for path in cat.masks] == ['00.png', '01.png', '02.png']
    assert cat.masks[0].parent == root / 'gts/tiny/cat'


def test_masks_are_not_needed_unless_asked_for(root):
    shutil.rmtree(root / 'gts')
    assert [group.masks for group in load_groups(root, 'tiny', with_masks=False)] == [(), ()]
    with pytest.raises(DataError, match="no masks of set 'tiny'"):
        load_groups(root, 'tiny')


def test_missing_root_is_named(tmp_path):
    with pytest.raises(DataError, match=re.escape(f'{tmp_path}/nowhere is not a folder')):
        load_groups(tmp_path / 'nowhere', 'tiny')


def test_unknown_set_lists_the_sets_that_are_there(root):
    write_set(root, 'other', {'cat': 1})
    with pytest.raises(DataError, match=r"no set named 'CoCA' .* there: other, tiny"):
        load_groups(root, 'CoCA')


@pytest.mark.parametrize('name', ['', '.', '..', '../images/tiny', 'tiny/', '..\\tiny', 'tiny\0'])
def test_the_name_of_a_set_never_leads_out_of_a_folder(root, name):
    with pytest.raises(DataError, match=f'{re.escape(repr(name))} cannot be the name of a set'):
        load_groups(root, name)


def test_sets_are_found_whatever_lies_beside_them(root, monkeypatch):
    write_set(root, 'other', {'cat': 1})
    for name in ('.DS_Store', 'notes.txt', '._00.jpg'):
        (root / 'images/tiny' / name).write_bytes(b'')
    assert find_sets(root) == ['other', 'tiny']
    own = root / 'mine'
    shutil.copytree(root / 'images/tiny', own / 'Image')
    (own / 'GT').mkdir()
    (root / 'link').symlink_to(own)
    monkeypatch.chdir(own / 'GT')
    for path, name in ((Path('..'), 'mine'), (root / 'link', 'link')):
        assert find_sets(path) == [name]
        assert len(load_groups(path, name, with_masks=False)) == 2


def test_set_without_groups(root):
    (root / 'images/bare').mkdir()
    with pytest.raises(DataError, match="'bare' has no groups"):
        load_groups(root, 'bare')


def test_empty_group_is_named(root):
    (root / 'images/tiny/bee').mkdir()
    with pytest.raises(DataError, match='images/tiny/bee holds no images'):
        load_groups(root, 'tiny')


def test_group_without_masks_is_named(root):
    shutil.rmtree(root / 'gts/tiny/cat')
    with pytest.raises(DataError, match=r'1 problem .*\n.* without masks: .*gts/tiny/cat is not'):
        load_groups(root, 'tiny')


def test_missing_masks_are_counted_and_named(root):
    for name in ('ant/01.png', 'cat/00.png'):
        (root / 'gts/tiny' / name).unlink()
    with pytest.raises(DataError, match=r'2 problems(.|\n)*ant/01.png is(.|\n)*cat/00.png is'):
        load_groups(root, 'tiny')


def test_a_set_of_which_nothing_can_be_used_is_an_error_all_the_same(root, capsys):
    for path in root.glob('images/tiny/*/*'):
        path.write_bytes(b'no image')
    groups = load_groups(root, 'tiny')
    with pytest.raises(DataError, match=r"no group that can be used in set 'tiny', .*ant/00\.jpg"):
        check_groups(groups, skip_bad=True)
    shutil.rmtree(root / 'gts/tiny')
    (root / 'gts/tiny').mkdir()
    with pytest.raises(DataError, match=r"no group that can be used in set 'tiny', .*images/tiny;"):
        load_groups(root, 'tiny', skip_bad=True)
    assert '2 problems' in capsys.readouterr().out


def test_the_remedy_is_one_that_there_is(root):
    (root / 'gts/tiny/ant/01.png').unlink()
    data = DataConfig(root=str(root), train_sets=('tiny',), eval_sets=('tiny',))
    with pytest.raises(DataError, match=r"Mend them, or leave them out by data\.bad_files='skip'$"):
        training_sets(data)
    with pytest.raises(DataError, match=r'Mend them$'):
        evaluation_sets(data, with_masks=True)


def test_images_that_differ_in_suffix_only_are_named(root):
    shutil.copy(root / 'images/tiny/cat/01.jpg', root / 'images/tiny/cat/01.png')
    with pytest.raises(DataError, match=r'tiny/cat/01.png differs from 01.jpg in suffix'):
        load_groups(root, 'tiny')


def test_masks_that_differ_in_suffix_only_are_named(root):
    shutil.copy(root / 'gts/tiny/cat/01.png', root / 'gts/tiny/cat/01.jpg')
    with pytest.raises(DataError, match=r'gts/tiny/cat/01.png differs from 01.jpg in suffix'):
        load_groups(root, 'tiny')


def test_select_matches_keys(root):
    write_set(root, 'other', {'cat': 1})
    groups = load_groups(root, 'tiny') + load_groups(root, 'other')
    assert [g.key for g in select(groups, include=('*/cat',))] == ['tiny/cat', 'other/cat']
    assert [g.key for g in select(groups, exclude=('tiny/*',))] == ['other/cat']
    with pytest.raises(DataError, match=r"none of 3 groups.*\('dog',\).*such as 'tiny/ant'"):
        select(groups, include=('dog',))


def test_check_passes_good_files(root):
    check_groups(load_groups(root, 'tiny'))
    check_groups(load_groups(root, 'tiny', with_masks=False))


def test_check_lists_every_broken_file(root):
    image = root / 'images/tiny/cat/01.jpg'
    image.write_bytes(image.read_bytes()[:-200])
    (root / 'images/tiny/ant/00.jpg').write_bytes(b'no image')
    (root / 'gts/tiny/cat/00.png').write_bytes(b'')
    Image.fromarray(np.zeros((5, 6), np.uint8)).save(root / 'gts/tiny/cat/02.png')
    with pytest.raises(DataError) as caught:
        check_groups(load_groups(root, 'tiny'))
    message = str(caught.value)
    assert message.startswith('4 problems in 5 images')
    assert re.search(r'cannot read image .*cat/01.jpg: .*truncated', message)
    assert re.search(r'cannot read image .*ant/00.jpg: cannot identify', message)
    assert re.search(r'cannot read image .*cat/00.png', message)
    assert re.search(r'cat/02.png is 6 x 5 pixels and its image .*cat/02.jpg 24 x 20', message)


def test_check_shows_ten_and_counts_the_rest(tmp_path):
    write_set(tmp_path, 'tiny', {'cat': 13})
    for path in (tmp_path / 'images/tiny/cat').iterdir():
        path.write_bytes(b'no image')
    with pytest.raises(DataError, match=r'13 problems(.|\n)*09.jpg.*\n  \.\.\. and 3 more'):
        check_groups(load_groups(tmp_path, 'tiny'))


def test_images_of_implausible_size_are_refused(root, monkeypatch):
    # 480 pixels exceed the limit, where PIL itself only warns, but not twice the limit.
    monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', 400)
    with pytest.raises(DataError, match=r'00\.jpg: 24 x 20 pixels are more than 400'):
        open_image(root / 'images/tiny/cat/00.jpg', 'RGB')
    monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', 100)
    with pytest.raises(DataError, match=r'00\.jpg: .*decompression bomb'):
        open_image(root / 'images/tiny/cat/00.jpg', 'RGB')
