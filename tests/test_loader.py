"""Batches: contents, padding, and a stream that is independent of the number of workers."""

import itertools

import numpy as np
import pytest
from PIL import Image
from tiny_data import write_set

from gconet_jax.config import DataConfig
from gconet_jax.input_pipeline.files import DataError
from gconet_jax.input_pipeline.groups import load_groups
from gconet_jax.input_pipeline.loader import make_train_iterator
from gconet_jax.input_pipeline.pairs import PairSampler
from gconet_jax.input_pipeline.part import Part
from gconet_jax.input_pipeline.pixels import read_image, read_mask
from gconet_jax.input_pipeline.sets import training_sets

SIZE = 32


@pytest.fixture
def root(tmp_path):
    write_set(tmp_path, 'small', {'ant': 2, 'bee': 3, 'cat': 2}, seed=1)
    write_set(tmp_path, 'large', {'dog': 7, 'elk': 6, 'fox': 5}, size=(20, 30), seed=2)
    return tmp_path


def train_iterator(
    root, *, workers=0, first_step=0, sets=('small', 'large'), cache=False, **arguments
):
    return make_train_iterator(
        training_sets(DataConfig(root=str(root), train_sets=sets, image_size=32, cache=cache)),
        image_size=SIZE,
        max_images=6,
        group_sizes=(4, 8),
        seed=5,
        workers=workers,
        first_step=first_step,
        **arguments,
    )


def take(iterator, count):
    return list(itertools.islice(iterator, count))


def assert_same(batches, others):
    assert len(batches) == len(others)
    for batch, other in zip(batches, others, strict=True):
        assert batch.keys() == other.keys()
        for name in batch:
            np.testing.assert_array_equal(batch[name], other[name], strict=True)


def test_image_and_mask_are_resized_as_pil_does(root):
    (bee,) = (group for group in load_groups(root, 'small') if group.name == 'bee')
    image, mask = read_image(bee.images[0], SIZE), read_mask(bee.masks[0], SIZE)
    assert (image.shape, image.dtype) == ((SIZE, SIZE, 3), np.uint8)
    assert (mask.shape, mask.dtype) == ((SIZE, SIZE), np.uint8)
    with Image.open(bee.masks[0]) as raw:
        expected = raw.convert('L').resize((SIZE, SIZE), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(mask, np.asarray(expected))
    assert np.any((mask > 0) & (mask < 255))  # grey edges survive


def test_batch_holds_the_pairs_of_its_step_and_shares_a_bucket(root):
    groups = [load_groups(root, name) for name in ('small', 'large')]
    samplers = [PairSampler(several, 6, 5) for several in groups]
    for step, batch in enumerate(take(train_iterator(root), 4)):
        # Pairs of the small set alone would fit in 4; those of the large one need 8.
        assert {k: (v.shape, v.dtype.name) for k, v in batch.items()} == {
            'image': ((2, 2, 8, SIZE, SIZE, 3), 'uint8'),
            'mask': ((2, 2, 8, SIZE, SIZE), 'uint8'),
            'label': ((2, 2), 'int32'),
            'valid': ((2, 2, 8), 'bool'),
        }
        for p, g in itertools.product(range(2), range(2)):
            pair = samplers[p].pair(step)
            group, chosen = groups[p][pair.groups[g]], pair.images[g]
            assert batch['label'][p, g] == 3 * p + pair.groups[g]
            valid = batch['valid'][p, g]
            np.testing.assert_array_equal(valid, np.arange(8) < len(chosen))
            images = [read_image(group.images[i], SIZE) for i in chosen]
            np.testing.assert_array_equal(batch['image'][p, g][valid], images)
            masks = [read_mask(group.masks[i], SIZE) for i in chosen]
            np.testing.assert_array_equal(batch['mask'][p, g][valid], masks)
            assert not batch['image'][p, g][~valid].any()
            assert not batch['mask'][p, g][~valid].any()


def test_small_pairs_take_the_small_bucket(root):
    (batch,) = take(train_iterator(root, sets=('small',)), 1)
    assert batch['valid'].shape == (1, 2, 4)


def test_starting_at_a_step_is_skipping_to_it(root):
    assert_same(take(train_iterator(root), 7)[4:], take(train_iterator(root, first_step=4), 3))


def test_workers_give_the_same_stream_and_state(root):
    reference = take(train_iterator(root), 8)
    iterator = train_iterator(root, workers=2)
    try:
        assert_same(take(iterator, 4), reference[:4])
        state = iterator.get_state()
        assert_same(take(iterator, 1), reference[4:5])
    finally:
        iterator.close()
    # A stream saved with two workers resumes without workers.
    resumed = train_iterator(root)
    resumed.set_state(state)
    assert_same(take(resumed, 4), reference[4:])


def test_state_goes_on_exactly(root):
    iterator = train_iterator(root, first_step=2)
    take(iterator, 2)
    state = iterator.get_state()
    expected = take(iterator, 3)
    iterator.set_state(state)
    assert iterator.get_state() == state
    assert_same(take(iterator, 3), expected)


@pytest.mark.parametrize('workers', [0, 1, 2, 4])
def test_cached_batches_are_those_of_the_files(root, workers):
    reference = take(train_iterator(root), 5)
    iterator = train_iterator(root, cache=True, workers=workers)
    try:
        assert_same(take(iterator, 5), reference)
    finally:
        iterator.close()


@pytest.mark.parametrize(
    'parts',
    [
        [Part(pair=(0, 2)), Part(pair=(1, 2))],
        [Part(image=(i, 4)) for i in range(4)],
        [Part((p, 2), (i, 2)) for p in range(2) for i in range(2)],
    ],
)
def test_the_parts_of_processes_are_the_whole(root, parts):
    streams = [take(train_iterator(root, part=part), 4) for part in parts]
    for step, whole in enumerate(take(train_iterator(root), 4)):
        images = {part: stream[step] for part, stream in zip(parts, streams, strict=True)}
        pairs = []
        for pair in sorted({part.pair for part in parts}):
            row = [images[part] for part in parts if part.pair == pair]
            pairs.append(
                {n: np.concatenate([b[n] for b in row], 2) for n in ('image', 'mask', 'valid')}
                | {'label': row[0]['label']}
            )
        assert_same([{n: np.concatenate([p[n] for p in pairs]) for n in whole}], [whole])


def test_parts_must_divide(root):
    with pytest.raises(ValueError, match='not divisible by Part'):
        train_iterator(root, part=Part(pair=(0, 3)))
    with pytest.raises(ValueError, match=r'\[4\] images are not'):
        train_iterator(root, part=Part(image=(0, 8)))


@pytest.mark.parametrize('workers', [0, 1])
def test_unreadable_image_is_named(root, workers):
    iterator = train_iterator(root, workers=workers, sets=('small',))
    for path in (root / 'images/small').glob('*/*.jpg'):
        path.write_bytes(path.read_bytes()[:-200])
    try:
        with pytest.raises(DataError, match=r'images/small/.*\.jpg: .*truncated'):
            next(iterator)
    finally:
        iterator.close()


def test_cut_epochs_end_with_the_smallest_set(root):
    write_set(root, 'few', {'gnu': 2, 'hen': 2})
    sets = ('large', 'few')
    cut = train_iterator(root, sets=sets, cut_epochs=True)
    anchors = [[pair.groups[0] for pair in cut.pairs(step)] for step in range(4)]
    for large, few in (anchors[:2], anchors[2:]):
        assert sorted([large[0], few[0]]) == sorted([large[1], few[1]]) == [0, 1]
    whole = train_iterator(root, sets=sets)
    assert sorted(whole.pairs(step)[0].groups[0] for step in range(3)) == [0, 1, 2]


def test_bad_arguments(root):
    def make(**fields):
        data = DataConfig(**{'root': str(root), 'train_sets': ('small',), 'cache': False} | fields)
        make_train_iterator(
            training_sets(data),
            image_size=SIZE,
            max_images=5,
            group_sizes=(4,),
            seed=0,
            workers=0,
        )

    with pytest.raises(ValueError, match='below max_images=5'):
        make()
    with pytest.raises(ValueError, match='no set'):
        make_train_iterator([], image_size=SIZE, max_images=1, group_sizes=(1,), seed=0, workers=0)
