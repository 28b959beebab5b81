"""Whole groups: contents, padding, and the name of a bad file."""

import numpy as np
import pytest
from tiny_data import write_set

from gconet_jax.input_pipeline.files import DataError
from gconet_jax.input_pipeline.groups import load_groups
from gconet_jax.input_pipeline.pixels import read_image
from gconet_jax.input_pipeline.whole_groups import eval_batches, padded_size

SIZE = 32


@pytest.fixture
def root(tmp_path):
    write_set(tmp_path, 'small', {'ant': 2, 'bee': 3, 'cat': 2}, seed=1)
    write_set(tmp_path, 'large', {'dog': 7, 'elk': 6, 'fox': 5}, size=(20, 30), seed=2)
    return tmp_path


@pytest.mark.parametrize('workers', [0, 2])
def test_eval_batches_hold_whole_groups(root, workers):
    groups = load_groups(root, 'large', with_masks=False)
    batches = list(eval_batches(groups, image_size=SIZE, group_sizes=(2, 5), workers=workers))
    assert [batch.group.name for batch in batches] == ['dog', 'elk', 'fox']
    for batch, n in zip(batches, (10, 10, 5), strict=True):
        assert batch.image.shape == (1, n, SIZE, SIZE, 3)
        assert batch.image.dtype == np.uint8
        assert batch.valid.shape == (1, n)
        images = [read_image(path, SIZE) for path in batch.group.images]
        np.testing.assert_array_equal(batch.image[batch.valid], images)
        assert not batch.image[~batch.valid].any()


def test_eval_names_an_unreadable_image(root):
    groups = load_groups(root, 'small')
    groups[1].images[2].write_bytes(b'no image')
    batches = eval_batches(groups, image_size=SIZE, group_sizes=(4,), workers=2)
    assert next(batches).group.name == 'ant'
    with pytest.raises(DataError, match=r'images/small/bee/02\.jpg'):
        next(batches)


def test_eval_of_no_groups_is_empty():
    assert list(eval_batches([], image_size=SIZE, group_sizes=(4,), workers=1)) == []


def test_padded_size():
    assert [padded_size(n, (4, 10)) for n in (1, 4, 5, 10, 11, 30)] == [4, 4, 10, 10, 20, 30]
