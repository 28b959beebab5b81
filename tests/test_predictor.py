"""Maps of photos: groups of any size and in any combination give the maps of one whole batch."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from gconet_jax.config import ModelConfig
from gconet_jax.errors import InputError
from gconet_jax.inference import predictor as predictor_module
from gconet_jax.inference.predictor import Predictor, resize_map
from gconet_jax.models.confidence import EXP_OVERFLOW
from gconet_jax.models.gconet_plus import GCoNetPlus, normalize
from gconet_jax.models.layers import BatchNorm, with_running_average

SIZE = 32


def make_model(**changes) -> GCoNetPlus:
    """Return a small model with running statistics like those after training."""
    config = dataclasses.replace(
        ModelConfig(width=1 / 16, num_classes=4, k=5.0, k_fallback=5.0), **changes
    )
    model = GCoNetPlus(config, rngs=nnx.Rngs(0))
    rng = np.random.default_rng(0)
    for _, module in nnx.iter_modules(model):
        if isinstance(module, BatchNorm):
            n = module.mean.shape
            module.mean.set_value(jnp.asarray(0.1 * rng.standard_normal(n), jnp.float32))
            module.var.set_value(jnp.asarray(rng.uniform(0.5, 1.5, n), jnp.float32))
    if model.gam is not None:  # so that the group matters, which it hardly does before training
        model.gam.value.kernel.set_value(1e6 * model.gam.value.kernel[...])
    if model.cem is not None:  # so that T exceeds P in places
        model.cem.thresh.predict.bias.set_value(jnp.asarray([1.5]))
    return model


@pytest.fixture(scope='module')
def model():
    return make_model()


def groups(*counts: int) -> list[np.ndarray]:
    """Return groups of coloured squares."""
    rng = np.random.default_rng(1)
    coarse = [rng.integers(0, 256, (n, 4, 4, 3), np.uint8) for n in counts]
    return [x.repeat(SIZE // 4, axis=1).repeat(SIZE // 4, axis=2) for x in coarse]


def whole_batch(model, group: np.ndarray):
    """Return the maps of the group as one batch of the network as trained."""
    graph, weights = nnx.split(with_running_average(model))
    maps = _segment(graph, weights, normalize(jnp.asarray(group))[None])
    return maps._replace(logits=nnx.sigmoid(maps.logits))


@functools.partial(jax.jit, static_argnums=0)
def _segment(graph, weights, images):
    return nnx.merge(graph, weights).segment(images, jnp.ones(images.shape[:2], bool))


@pytest.mark.parametrize('chunk', [1, 4, 8])
def test_any_group_size_and_chunk_gives_the_whole_batchs_maps(model, chunk):
    several = groups(1, 3, 13, 2)
    predictor = Predictor(model, image_size=SIZE, chunk=chunk)
    for group in several:
        prediction = predictor.predict(group)
        expected = whole_batch(model, group)
        np.testing.assert_allclose(prediction.prob, expected.prob[0], rtol=0, atol=1e-4)
        np.testing.assert_allclose(prediction.thresh, expected.thresh[0], rtol=0, atol=1e-4)
        np.testing.assert_allclose(prediction.maps, expected.logits[0], rtol=0, atol=1e-4)


def test_features_that_do_not_fit_are_computed_again(model, monkeypatch):
    (group,) = groups(11)
    kept = Predictor(model, image_size=SIZE).predict(group)
    monkeypatch.setattr(predictor_module, 'KEPT_BYTES', 0)
    again = Predictor(model, image_size=SIZE).predict(group)
    np.testing.assert_allclose(again.maps, kept.maps, rtol=0, atol=1e-6)


def test_the_smaller_k_is_for_the_whole_group_and_for_it_alone(model):
    (group,) = groups(9)
    found = Predictor(model, image_size=SIZE).predict(group)
    farthest = (found.thresh - found.prob).max(axis=(1, 2))
    last, before = np.argsort(farthest)[[-1, -2]]
    # Only one image of the group requires the smaller k.
    k = EXP_OVERFLOW / farthest[[last, before]].mean()
    model = make_model(k=float(k), k_fallback=2.0)
    predictor = Predictor(model, image_size=SIZE, chunk=4)
    for images, falls_back in (group, True), (groups(2)[0], False):
        each, expected = predictor.predict(images), whole_batch(model, images)
        assert each.fell_back == falls_back
        assert each.fell_back == bool(expected.fell_back)
        k_used = 2.0 if each.fell_back else k
        np.testing.assert_allclose(each.maps, expected.logits[0], rtol=0, atol=1e-5 * k_used)


@pytest.mark.parametrize('changes', [{'cem': False}, {'gam': False, 'gcm': False}])
def test_networks_without_a_module(changes):
    model = make_model(**changes)
    (group,) = groups(3)
    got = Predictor(model, image_size=SIZE).predict(group)
    expected = whole_batch(model, group)
    np.testing.assert_allclose(got.maps, expected.logits[0], rtol=0, atol=1e-4)


def test_photos_of_any_sizes_come_back_at_their_own(model):
    rng = np.random.default_rng(2)
    photos = [
        rng.integers(0, 256, size, np.uint8) for size in ((20, 50, 3), (64, 33, 3), (1, 7, 3))
    ]
    predictor = Predictor(model, image_size=SIZE)
    maps = predictor(photos)
    assert [m.shape for m in maps] == [(20, 50), (64, 33), (1, 7)]
    assert all(m.dtype == np.float32 and m.min() >= 0 and m.max() <= 1 for m in maps)
    one_by_one = list(predictor.groups([photos, photos[:1], photos[1:]]))
    for left, right in zip(one_by_one[0], maps, strict=True):
        np.testing.assert_allclose(left, right, rtol=0, atol=1e-5)
    assert np.abs(one_by_one[1][0] - maps[0]).max() > 1e-3  # the group matters


def test_few_programs_serve_groups_of_every_size(model):
    predictor = Predictor(model, image_size=SIZE, chunk=4)
    jax.clear_caches()  # clear programs of other tests
    compiled = []

    def note(event: str, seconds: float, fun_name: str = '', **_) -> None:
        if event.endswith('jaxpr_trace_duration') and fun_name in (
            '_encode',
            '_consensus',
            '_decode',
        ):
            compiled.append(fun_name)

    jax.monitoring.register_event_duration_secs_listener(note)
    try:
        for group in groups(1, 2, 4, 7, 11, 23, 39):  # padded to 1, 2, 4, 8, 16, 32 and 64
            predictor.predict(group)
        assert [compiled.count(name) for name in ('_encode', '_consensus', '_decode')] == [3, 7, 3]
        for group in groups(3, 5, 6, 9, 20, 32, 38, 64):
            predictor.predict(group)
        assert len(compiled) == 13
    finally:
        jax.monitoring.unregister_event_duration_listener(note)


def test_the_next_group_starts_before_the_maps_of_the_last_are_used(model, monkeypatch):
    events = []
    start = Predictor._start
    monkeypatch.setattr(
        Predictor, '_start', lambda self, images: events.append(len(images)) or start(self, images)
    )
    for maps in Predictor(model, image_size=SIZE).groups(groups(1, 2, 3)):
        events.append(f'maps of {len(maps)}')
    assert events == [1, 2, 'maps of 1', 3, 'maps of 2', 'maps of 3']


def test_bad_images_are_named(model):
    predictor = Predictor(model, image_size=SIZE)
    good = np.zeros((8, 8, 3), np.uint8)
    for bad in (np.zeros((8, 8), np.uint8), np.zeros((8, 8, 3)), np.zeros((0, 8, 3), np.uint8)):
        with pytest.raises(InputError, match='image 1 must be RGB'):
            predictor([good, bad])
    with pytest.raises(InputError, match='group 0 has no images'):
        predictor([])


def test_resize_keeps_corners_and_range():
    pixels = np.array([[0, 1], [0.5, 0.25]], np.float32)
    big = resize_map(pixels, (5, 9))
    np.testing.assert_allclose(big[[0, 0, -1, -1], [0, -1, 0, -1]], [0, 1, 0.5, 0.25])
    assert big[0, 4] == pytest.approx(0.5)
