"""The pair of a step is a pure function of (seed, step) with the paper's properties."""

from pathlib import Path

import numpy as np
import pytest

from gconet_jax.input_pipeline.files import DataError
from gconet_jax.input_pipeline.groups import Group
from gconet_jax.input_pipeline.pairs import PairSampler, bucket, check_sizes

COUNTS = (5, 40, 1, 12, 22, 7)


def make_groups(counts, dataset='tiny'):
    return [
        Group(dataset, f'{i}', tuple(Path(f'{j}.jpg') for j in range(count)), ())
        for i, count in enumerate(counts)
    ]


def same(a, b):
    return a.groups == b.groups and all(map(np.array_equal, a.images, b.images))


def test_every_group_is_the_anchor_once_an_epoch_in_an_order_of_its_own():
    sampler = PairSampler(make_groups(COUNTS), 32, 0)
    orders = [
        tuple(sampler.pair(epoch * len(COUNTS) + i).groups[0] for i in range(len(COUNTS)))
        for epoch in range(20)
    ]
    assert all(sorted(order) == list(range(len(COUNTS))) for order in orders)
    assert len(set(orders)) > 10


@pytest.mark.parametrize('max_images', [1, 8, 32])
def test_images_are_distinct_and_n_follows_the_smaller_group(max_images):
    sampler = PairSampler(make_groups(COUNTS), max_images, 3)
    for step in range(200):
        pair = sampler.pair(step)
        a, b = pair.groups
        assert a != b
        n = min(COUNTS[a], COUNTS[b], max_images)
        for group, images in zip(pair.groups, pair.images, strict=True):
            assert images.shape == (n,)
            assert len(set(images.tolist())) == n
            assert images.min() >= 0
            assert images.max() < COUNTS[group]


def test_second_group_is_uniform_over_the_others():
    sampler = PairSampler(make_groups((3, 3, 3, 3)), 32, 0)
    met = np.zeros((4, 4))
    for step in range(2400):
        met[sampler.pair(step).groups] += 1
    others = met[~np.eye(4, dtype=bool)]
    assert np.all(np.diag(met) == 0)
    assert np.all(np.abs(others - 200) < 60)  # 200 expected, sigma about 12


def test_a_step_does_not_depend_on_the_calls_before_it():
    forwards, backwards = (PairSampler(make_groups(COUNTS), 26, 7) for _ in range(2))
    ahead = [forwards.pair(step) for step in range(30)]
    behind = [backwards.pair(step) for step in reversed(range(30))]
    assert all(map(same, ahead, reversed(behind)))


def test_seeds_and_sets_have_streams_of_their_own():
    streams = [
        [PairSampler(make_groups(COUNTS, name), 32, seed).pair(s).groups for s in range(12)]
        for name, seed in (('tiny', 0), ('tiny', 1), ('other', 0))
    ]
    assert streams[0] != streams[1]
    assert streams[0] != streams[2]


def test_the_stream_stays_what_it_was():
    # Changing these numbers would change the batches of every run that resumes.
    pair = PairSampler(make_groups(COUNTS), 4, 0).pair(10)
    assert pair.groups == (0, 4)
    assert [images.tolist() for images in pair.images] == [[3, 2, 1, 4], [18, 12, 16, 4]]


@pytest.mark.parametrize('counts', [(), (4,)])
def test_fewer_than_two_groups_are_an_error_that_names_the_set(counts):
    with pytest.raises(DataError, match=f'gives {len(counts)} group.*at least two groups'):
        PairSampler(make_groups(counts), 32, 0)
    if counts:
        with pytest.raises(DataError, match="'tiny'"):
            PairSampler(make_groups(counts), 32, 0)


def test_arguments_out_of_range():
    with pytest.raises(ValueError, match='max_images=0'):
        PairSampler(make_groups(COUNTS), 0, 0)
    with pytest.raises(ValueError, match='seed=-1'):
        PairSampler(make_groups(COUNTS), 32, -1)


def test_bucket():
    assert [bucket(n, (8, 16, 32)) for n in (1, 8, 9, 32)] == [8, 8, 16, 32]
    with pytest.raises(ValueError, match='33 images'):
        bucket(33, (8, 16, 32))


@pytest.mark.parametrize('sizes', [(), (0, 4), (8, 8), (16, 8), (8, 16)])
def test_bad_sizes(sizes):
    with pytest.raises(ValueError, match='group_sizes'):
        check_sizes(sizes, 32)
