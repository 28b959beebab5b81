"""The cache of decoded images is complete, current and built once, or absent."""

import errno
import multiprocessing
import os
import resource
import shutil
from pathlib import Path

import numpy as np
import pytest
from tiny_data import write_set

from gconet_jax.config import DataConfig
from gconet_jax.input_pipeline import cache as cache_lib
from gconet_jax.input_pipeline.cache import cached
from gconet_jax.input_pipeline.files import DataError
from gconet_jax.input_pipeline.groups import load_groups
from gconet_jax.input_pipeline.pixels import CacheReader, Decoder
from gconet_jax.input_pipeline.sets import training_sets

SIZE = 16


@pytest.fixture
def root(tmp_path):
    write_set(tmp_path, 'tiny', {'ant': 3, 'bee': 2, 'cat': 2})
    return tmp_path


def build(root, **arguments):
    groups = load_groups(root, 'tiny')
    return cached(groups, image_size=SIZE, folder=root / '.cache', **arguments)


def folders(root):
    return sorted(path.name for path in (root / '.cache').iterdir() if path.is_dir())


def assert_holds_the_files(cache):
    reader = CacheReader([(cache.folder, rows) for rows in cache.rows])
    decoder = Decoder(cache.groups, SIZE)
    for g, group in enumerate(cache.groups):
        for i in range(len(group.images)):
            for ours, theirs in zip(reader(g, i), decoder(g, i), strict=True):
                np.testing.assert_array_equal(ours, theirs)


def test_it_holds_what_decoding_gives(root):
    cache = build(root)
    assert [group.name for group in cache.groups] == ['ant', 'bee', 'cat']
    assert_holds_the_files(cache)
    assert folders(root) == [cache.folder.name]


def test_it_is_built_once(root, monkeypatch):
    first = build(root)
    monkeypatch.setattr(cache_lib, 'open_pair', lambda *_: 1 / 0)
    assert build(root).folder == first.folder


@pytest.mark.parametrize('change', ['content', 'time', 'removal'])
def test_a_change_of_the_source_replaces_it(root, change):
    first = build(root).folder
    image = root / 'images/tiny/bee/01.jpg'
    if change == 'content':
        image.write_bytes((root / 'images/tiny/ant/00.jpg').read_bytes())
    elif change == 'time':
        os.utime(image, ns=(0, 0))
    else:
        image.unlink()
    cache = build(root)
    assert cache.folder != first
    assert_holds_the_files(cache)
    assert folders(root) == [cache.folder.name]


def test_another_size_is_another_cache(root):
    build(root)
    cached(load_groups(root, 'tiny'), image_size=32, folder=root / '.cache')
    assert len(folders(root)) == 2


def test_a_set_named_like_the_cache_of_another_keeps_its_own(root):
    write_set(root, f'tiny-{SIZE}', {'dog': 2})
    other = cached(load_groups(root, f'tiny-{SIZE}'), image_size=32, folder=root / '.cache')
    mine = build(root)
    assert folders(root) == sorted([mine.folder.name, other.folder.name])


def test_bad_images_stop_it_or_are_left_out(root):
    (root / 'images/tiny/ant/01.jpg').write_bytes(b'')
    for path in (root / 'images/tiny/cat').iterdir():
        path.write_bytes(b'')
    with pytest.raises(DataError, match=r'3 problems in 7 images:\n.*ant/01\.jpg'):
        build(root)
    assert folders(root) == []
    for _ in range(2):  # first built, then read
        cache = build(root, skip_bad=True)
        assert [[i.stem for i in g.images] for g in cache.groups] == [['00', '02'], ['00', '01']]
        assert_holds_the_files(cache)
    with pytest.raises(DataError, match='3 problems'):  # without skip_bad the error is still raised
        build(root)


def _build_in_a_process(root, barrier, results):
    barrier.wait()
    results.put(build(root).folder)


def test_two_processes_at_once_build_one(root):
    context = multiprocessing.get_context('spawn')
    barrier, results = context.Barrier(2), context.Queue()
    processes = [
        context.Process(target=_build_in_a_process, args=(root, barrier, results)) for _ in range(2)
    ]
    for process in processes:
        process.start()
    found = {results.get(timeout=120) for _ in processes}
    for process in processes:
        process.join()
    assert folders(root) == [folder.name for folder in found]
    assert_holds_the_files(build(root))


def test_an_interrupted_build_leaves_nothing(root, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(cache_lib, 'to_square', interrupt)
    with pytest.raises(KeyboardInterrupt):
        build(root)
    assert folders(root) == []


def test_what_killed_builds_left_is_removed(root):
    name = build(root).folder.name
    stale = root / '.cache' / f'.{name}-x1y2z3'
    stale.mkdir()
    (stale / 'images.npy').write_bytes(b'')
    other = root / '.cache' / f'.tiny-32-{name[-16:]}-x1y2z3'  # another process may still use it
    other.mkdir()
    (root / 'images/tiny/bee/01.jpg').touch()
    cache = build(root)
    assert folders(root) == sorted([other.name, cache.folder.name])


def test_sets_of_one_name_in_two_folders_keep_their_caches(root, tmp_path):
    shutil.copytree(root / 'images', tmp_path / 'b/images')
    shutil.copytree(root / 'gts', tmp_path / 'b/gts')
    (first, second) = (
        cached(load_groups(path, 'tiny'), image_size=SIZE, folder=root / '.cache')
        for path in (root, tmp_path / 'b')
    )
    assert folders(root) == sorted([first.folder.name, second.folder.name])
    assert build(root).folder == first.folder


def test_the_spelling_of_the_root_makes_no_other_cache(root, monkeypatch):
    monkeypatch.chdir(root)
    found = set()
    for spelling in (str(root), '.', f'../{root.name}'):
        training_sets(DataConfig(root=spelling, train_sets=('tiny',), image_size=32))
        found |= set(folders(root))
    assert len(found) == 1


def test_what_the_disk_does_not_give_is_not_left_out_for_good(root, monkeypatch):
    def fail(self):
        raise OSError(errno.EIO, 'Input/output error')

    with monkeypatch.context() as patch:
        patch.setattr(Path, 'read_bytes', fail)
        with pytest.raises(DataError, match=r'cannot read .*Input/output error; see to the disk'):
            build(root, skip_bad=True)
        with pytest.raises(DataError, match='7 problems in 7 images'):
            build(root)
    assert [len(group.images) for group in build(root, skip_bad=True).groups] == [3, 2, 2]


@pytest.fixture(params=['as here', 'as on macOS'])
def system(request, monkeypatch):
    """Run the test as is, and without `os.posix_fallocate`, as on macOS."""
    if request.param == 'as on macOS':
        monkeypatch.delattr(os, 'posix_fallocate', raising=False)


def test_room_is_taken_on_every_system(root, system, monkeypatch):
    monkeypatch.setattr(cache_lib, 'BLOCK_BYTES', 100)  # smaller than an array
    cache = build(root)
    assert_holds_the_files(cache)
    array = cache_lib._reserve(root / 'array.npy', (3, 700))
    assert (root / 'array.npy').stat().st_blocks * 512 >= array.nbytes
    assert not np.load(root / 'array.npy').any()


def test_a_full_disk_is_said_before_anything_is_decoded(root, system, monkeypatch):
    monkeypatch.setattr(cache_lib, 'open_pair', lambda *_: pytest.fail('decoded'))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))  # same error path as a full disk
    try:
        with pytest.raises(DataError, match=r'cannot build the cache .*data\.cache=False'):
            build(root)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert folders(root) == []


def test_a_folder_that_cannot_be_made_is_named(root):
    (root / '.cache').write_text('a file')
    with pytest.raises(DataError, match=r'cannot build the cache .*data\.cache_dir'):
        build(root)
