"""From a device program to scores: the stages overlap, and the written maps are scored."""

import threading
import time

import numpy as np
import pytest
from tiny_data import write_set

from gconet_jax.evaluation import evaluator, scoring
from gconet_jax.input_pipeline.groups import load_groups

DEVICE_SECONDS = 0.6  # per group of ten: 17 images per second


@pytest.fixture(scope='module')
def sets(tmp_path_factory):
    """Twenty groups of ten photographs of ordinary size."""
    root = tmp_path_factory.mktemp('data')
    write_set(root, 'A', {f'group{i}': 10 for i in range(20)}, size=(400, 300))
    return {'A': load_groups(root, 'A')}


def blob(images, valid):
    """Replace the network: brightness, as smooth and compressible as real maps."""
    grey = images.mean(axis=-1, dtype=np.float32) / 255
    return np.broadcast_to(grey.mean(axis=-1, keepdims=True), grey.shape)


def test_maps_written_are_the_maps_scored(sets, tmp_path):
    some = {'A': sets['A'][:2]}
    scores = evaluator.evaluate(blob, some, tmp_path, image_size=64, workers=0)['A']
    assert len(scores.images) == 20
    again = scoring.score_maps(scoring.find_maps(tmp_path, some), protocol='eval-co-sod', workers=0)
    for left, right in zip(scores.scores, again['A'].scores, strict=True):
        np.testing.assert_array_equal(left, right)
    assert all(image.map.is_file() and image.image is not None for image in scores.images)


@pytest.mark.slow  # needs both cores for its measurement
def test_stages_overlap(sets, tmp_path):
    """Decoding, writing and scoring run while a slow device computes."""

    def device(images, valid):
        time.sleep(DEVICE_SECONDS)
        return blob(images, valid)

    start = time.perf_counter()
    evaluator.evaluate(device, sets, tmp_path, image_size=256, workers=2)
    assert time.perf_counter() - start <= 1.15 * DEVICE_SECONDS * len(sets['A'])


def test_a_failure_in_the_middle_ends_it(sets, tmp_path):
    calls = 0

    def device(images, valid):
        nonlocal calls
        calls += 1
        if calls == 3:
            raise RuntimeError('out of memory')
        return blob(images, valid)

    threads = threading.active_count()
    with pytest.raises(RuntimeError, match='out of memory'):
        evaluator.evaluate(device, sets, tmp_path, image_size=64, workers=2)
    assert threading.active_count() <= threads + 1
