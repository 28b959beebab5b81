"""From a downloaded archive to a prepared set, complete or absent."""

import errno
import json
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image
from tiny_data import write_set

from data import cosod, prepare
from gconet_jax.config import DataConfig
from gconet_jax.input_pipeline.files import DataError, open_image, open_prepared
from gconet_jax.input_pipeline.groups import load_groups
from gconet_jax.input_pipeline.layouts import find_prepared, find_sets
from gconet_jax.input_pipeline.sets import training_sets

GROUPS = {'Ähre': 3, 'cat': 2}


@pytest.fixture
def source(tmp_path):
    write_set(tmp_path / 'download', 'CoCA', GROUPS)
    return tmp_path / 'download'


def assert_same_pixels(groups, others):
    for group, other in zip(groups, others, strict=True):
        assert group.key == other.key
        for part, mode in (('images', 'RGB'), ('masks', 'L')):
            for ours, theirs in zip(getattr(group, part), getattr(other, part), strict=True):
                assert ours.stem == theirs.stem
                np.testing.assert_array_equal(
                    np.asarray(open_image(ours, mode)), np.asarray(open_image(theirs, mode))
                )


def test_a_prepared_set_is_the_folder_it_came_from(source, tmp_path, capsys):
    folder = prepare.prepare('CoCA', source, tmp_path / 'sets')
    assert folder == tmp_path / 'sets/coca/1.0.0'
    assert '2 groups, 5 images\n  published: 80 groups, 1295 images' in capsys.readouterr().out
    assert_same_pixels(load_groups(tmp_path / 'sets', 'CoCA'), load_groups(source, 'CoCA'))
    assert [path.name for path in (tmp_path / 'sets').iterdir()] == ['coca']
    assert find_sets(tmp_path / 'sets') == ['coca']
    info = tfds.builder_from_directory(folder).info
    assert info.features['group'].names == ['cat', 'Ähre']
    assert 'zhang2020gicd' in info.citation
    assert info.splits['test'].num_examples == 5


@pytest.mark.parametrize('name', ['../../x', '..', '', 'a\\b', 'a\0b'])
def test_names_of_a_set_from_elsewhere_never_lead_out_of_a_folder(source, tmp_path, name):
    folder = prepare.prepare('CoCA', source, tmp_path / 'sets')
    for groups in ([[name, ['00', '01']]], [['cat', ['00', name]]]):
        (folder / 'metadata.json').write_text(json.dumps({'groups': groups}))
        open_prepared.cache_clear()
        with pytest.raises(
            DataError, match=f'{re.escape(repr(name))} cannot be the name of a group'
        ):
            load_groups(tmp_path / 'sets', 'CoCA')


def test_a_broken_prepared_set_is_named(source, tmp_path):
    folder = prepare.prepare('CoCA', source, tmp_path / 'sets')
    (folder / 'dataset_info.json').write_text('{')
    with pytest.raises(
        DataError, match=r'coca/1\.0\.0 is no prepared set: .*prepare the set again'
    ):
        load_groups(tmp_path / 'sets', 'CoCA')


def test_tfds_reads_it_without_us(source, tmp_path):
    builder = tfds.builder('coca', data_dir=tmp_path / 'sets')
    builder.download_and_prepare(download_config=tfds.download.DownloadConfig(manual_dir=source))
    example = builder.as_data_source('test')[4]
    assert (example['image'].shape, example['mask'].shape) == ((20, 24, 3), (20, 24, 1))
    assert (example['group'], example['name']) == (1, b'02')


def test_odd_files_are_rewritten_for_other_readers(source, tmp_path):
    image, mask = source / 'images/CoCA/cat/00.jpg', source / 'gts/CoCA/cat/00.png'
    Image.open(image).convert('CMYK').save(image)
    Image.open(mask).convert('RGB').save(mask)
    folder = prepare.prepare('CoCA', source, tmp_path / 'sets')
    assert_same_pixels(load_groups(tmp_path / 'sets', 'CoCA'), load_groups(source, 'CoCA'))
    example = tfds.builder_from_directory(folder).as_data_source('test')[0]
    assert (example['image'].shape, example['mask'].shape) == ((20, 24, 3), (20, 24, 1))


def test_names_without_counterpart_are_told(source, tmp_path, capsys):
    shutil.copy(source / 'images/CoCA/cat/00.jpg', source / 'images/CoCA/cat/extra.jpg')
    shutil.copy(source / 'gts/CoCA/cat/00.png', source / 'gts/CoCA/cat/lost.png')
    prepare.prepare('CoCA', source, tmp_path / 'sets', skip_bad=True)
    printed = capsys.readouterr().out
    assert '1 images without a mask: cat/extra' in printed
    assert '1 masks without an image: cat/lost' in printed


@pytest.mark.parametrize('prepared', [True, False])
def test_prepared_sets_and_folders_mix(source, tmp_path, prepared):
    root = tmp_path / 'sets'
    prepare.prepare('CoCA', source, root)
    write_set(root, 'mine', {'dog': 2, 'elk': 2})
    data = DataConfig(
        root=str(root), train_sets=('CoCA', 'mine+CoCA'), image_size=32, cache=prepared
    )
    first, pooled = training_sets(data)
    assert [group.key for group in pooled.groups] == [
        'mine/dog', 'mine/elk', 'CoCA/cat', 'CoCA/Ähre',
    ]  # fmt: skip
    for one, other in zip(first.reader(1, 2), pooled.reader(3, 2), strict=True):
        np.testing.assert_array_equal(one, other)


def test_bad_files_stop_it_and_nothing_is_left_that_looks_whole(source, tmp_path):
    image = source / 'images/CoCA/cat/01.jpg'
    image.write_bytes(image.read_bytes()[:-200])
    problem = (
        r'1 problem in 5 images:\n.*cat/01\.jpg: .*truncated(.|\n)*leave .* out by --skip-bad$'
    )
    with pytest.raises(DataError, match=problem):
        prepare.prepare('CoCA', source, tmp_path / 'sets')
    assert find_prepared(tmp_path / 'sets', 'CoCA') is None
    prepare.prepare('CoCA', source, tmp_path / 'sets', skip_bad=True)
    assert [len(g.images) for g in load_groups(tmp_path / 'sets', 'CoCA')] == [1, 3]


def test_an_interrupted_preparation_goes_on(source, tmp_path, monkeypatch):
    sets, opened = tmp_path / 'sets', []
    monkeypatch.setattr(cosod, '_encoded', lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        prepare.prepare('CoCA', source, sets)
    assert find_prepared(sets, 'CoCA') is None
    assert not list(sets.glob('coca/*'))
    monkeypatch.undo()
    monkeypatch.setattr('data.verify.open_pair', lambda *pair: opened.append(pair))
    changed = source / 'images/CoCA/cat/01.jpg'
    changed.touch()
    prepare.prepare('CoCA', source, sets)
    assert [image for image, _ in opened] == [changed]
    assert find_prepared(sets, 'CoCA') is not None


def test_what_could_not_be_read_is_looked_at_again(source, tmp_path, monkeypatch):
    def fail(self):
        raise OSError(errno.EIO, 'Input/output error')

    sets = tmp_path / 'sets'
    with monkeypatch.context() as patch:
        patch.setattr(Path, 'read_bytes', fail)
        for skip_bad, message in ((False, '5 problems in 5 images'), (True, 'Input/output error')):
            with pytest.raises(DataError, match=message):
                prepare.prepare('CoCA', source, sets, skip_bad=skip_bad)
    prepare.prepare('CoCA', source, sets, skip_bad=True)
    assert [len(group.images) for group in load_groups(sets, 'CoCA')] == [2, 3]


def test_a_full_disk_is_said_and_leaves_nothing(source, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, 'No space left on device')

    monkeypatch.setattr(cosod, '_encoded', full)
    arguments = ['--set=CoCA', f'--source={source}', f'--out={tmp_path / "sets"}']
    monkeypatch.setattr(sys, 'argv', ['prepare.py', *arguments])
    assert prepare.main() == 1
    assert not list((tmp_path / 'sets').glob('coca/*'))


def test_a_missing_archive_says_where_it_is(tmp_path):
    with pytest.raises(prepare.InputError, match=re.escape(cosod.DRIVE)):
        prepare.prepare('DUTS_class', tmp_path / 'nowhere', tmp_path / 'sets')
    (tmp_path / 'other/sub').mkdir(parents=True)
    with pytest.raises(DataError, match="no set named 'DUTS_class'"):
        prepare.prepare('DUTS_class', tmp_path / 'other', tmp_path / 'sets')


@pytest.mark.parametrize(
    ('images', 'masks'),
    [
        ('images/CoCA', 'gts/CoCA'),
        ('Images/coca', 'GT/CoCA'),
        ('CoCA/Image', 'CoCA/GroundTruth'),
        ('CoCA/image', 'CoCA/gt'),
        ('COCA/img', 'COCA/ground_truth'),
    ],
)
def test_layouts(source, tmp_path, images, masks):
    other = tmp_path / 'other'
    for old, new in (('images/CoCA', images), ('gts/CoCA', masks)):
        (other / new).parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(source / old, other / new)
    assert_same_pixels(load_groups(other, 'CoCA'), load_groups(source, 'CoCA'))
    if images.startswith(('CoCA', 'COCA')):  # the folder of the set itself also works
        assert load_groups(other / images.split('/')[0], 'CoCA') == load_groups(other, 'CoCA')


def test_every_builder_names_its_archive():
    for dataset, builder in cosod.BUILDERS.items():
        instructions = builder.MANUAL_DOWNLOAD_INSTRUCTIONS.fget(builder)
        assert dataset in instructions
        assert cosod.DRIVE in instructions
        assert builder.HOMEPAGE
        assert builder.CITATION.startswith('@')
