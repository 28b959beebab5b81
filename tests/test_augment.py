"""Every operation matches PIL with the same parameters, to one level."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageEnhance

from gconet_jax.config import AugmentConfig, ConfigError
from gconet_jax.input_pipeline import augment, jigsaw

SIZE = 40
OFF = AugmentConfig.off()
EVERYTHING = AugmentConfig(pepper=0.01, crop=0.1)


def photo(seed=0) -> np.ndarray:
    """Return an image with smooth and rough parts and all levels."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (6, 6, 3), np.uint8))
    smooth = np.asarray(coarse.resize((SIZE, SIZE), Image.Resampling.BICUBIC)).astype(int)
    return np.clip(smooth + rng.integers(-30, 31, smooth.shape), 0, 255).astype(np.uint8)


def batch(count=6):
    images = np.stack([photo(i) for i in range(2 * count)]).reshape(1, 2, count, SIZE, SIZE, 3)
    masks = np.where(images[..., 0] > 128, 255, 0).astype(np.uint8)
    valid = np.ones((1, 2, count), bool)
    valid[..., -1] = False
    images[~valid], masks[~valid] = 0, 0
    batch = {'image': images, 'mask': masks, 'valid': valid, 'label': np.zeros((1, 2), np.int32)}
    return {name: jnp.asarray(value) for name, value in batch.items()}


def assert_within_a_level(ours, pil):
    difference = np.abs(np.asarray(ours).astype(int) - np.asarray(pil).astype(int))
    assert difference.max() <= 1
    assert (difference > 0).mean() < 0.01


@pytest.mark.parametrize('degrees', [-15, -7, -1, 0, 1, 3, 14])
def test_rotation(degrees):
    image = photo()
    ours = jax.jit(augment.rotate)(jnp.float32(image), jnp.float32(degrees))
    pil = Image.fromarray(image).rotate(degrees, Image.Resampling.BICUBIC)
    assert_within_a_level(ours, pil)
    grey = augment.rotate(jnp.float32(image[..., :1]), jnp.float32(degrees))
    pil = Image.fromarray(image[..., 0]).rotate(degrees, Image.Resampling.BICUBIC)
    assert_within_a_level(grey[..., 0], pil)


@pytest.mark.parametrize(
    ('ours', 'pil'),
    [
        (augment.brightness, ImageEnhance.Brightness),
        (augment.contrast, ImageEnhance.Contrast),
        (augment.colour, ImageEnhance.Color),
        (augment.sharpness, ImageEnhance.Sharpness),
    ],
)
def test_enhancement(ours, pil):
    for seed, tenths in enumerate((0, 5, 7, 10, 13, 20, 30)):
        image = photo(seed)
        changed = jax.jit(ours)(jnp.float32(image), jnp.float32(tenths / 10))
        assert_within_a_level(changed, pil(Image.fromarray(image)).enhance(tenths / 10))


def test_flip_moves_image_and_mask_together_in_about_half():
    given = batch(100)
    changed = augment.make_augment(dataclasses.replace(OFF, flip=0.5), 0)(given, 0)
    flipped = (np.asarray(changed['image']) != np.asarray(given['image'])).any((-3, -2, -1))
    mirror = np.where(
        flipped[..., None, None], np.asarray(given['mask'])[..., ::-1], np.asarray(given['mask'])
    )
    np.testing.assert_array_equal(changed['mask'], mirror)
    assert 70 < flipped.sum() < 130


def test_changes_are_a_function_of_seed_step_and_place():
    given = batch()
    first = augment.make_augment(EVERYTHING, 3)(given, 7)
    again = augment.make_augment(EVERYTHING, 3)(given, 7)
    for name in given:
        np.testing.assert_array_equal(first[name], again[name])
    for other in (
        augment.make_augment(EVERYTHING, 4)(given, 7),
        augment.make_augment(EVERYTHING, 3)(given, 8),
    ):
        assert (np.asarray(other['image']) != np.asarray(first['image'])).mean() > 0.5
    assert first['image'].dtype == first['mask'].dtype == jnp.uint8


def test_padding_stays_zero():
    changed = augment.make_augment(EVERYTHING, 3)(batch(), 7)
    assert not np.asarray(changed['image'])[:, :, -1].any()
    assert not np.asarray(changed['mask'])[:, :, -1].any()


def test_nothing_asked_for_is_nothing_done():
    given = batch()
    assert augment.make_augment(OFF, 0)(given, 0) is given


def test_pepper_turns_about_its_part_black_or_white():
    grey = jnp.full((SIZE, SIZE, 3), 100.0)
    values = np.asarray(augment.pepper(jax.random.key(0), grey, 0.05))
    turned = (values != 100).all(-1)
    assert 0.03 < turned.mean() <= 0.05
    assert set(np.unique(values)) == {0, 100, 255}


def test_crop_enlarges_the_middle():
    x = jnp.zeros((SIZE, SIZE, 1)).at[10:30, 10:30].set(255)
    np.testing.assert_array_equal(augment.crop(x, jnp.float32(1)), x)
    assert np.asarray(augment.crop(x, jnp.float32(0.5)) == 255).mean() > 0.9


@pytest.mark.parametrize(
    'fields',
    [
        {'flip': 1.5},
        {'degrees': (5, -5)},
        {'brightness': (-0.1, 1.0)},
        {'colour': (1.0,)},
        {'contrast': (0.85, 1.2)},
        {'sharpness': (0.0, 1.15)},
    ],
)
def test_bad_strengths_name_the_field(fields):
    with pytest.raises(ConfigError, match=rf'config\.augment\.{next(iter(fields))}'):
        AugmentConfig(**fields)


@pytest.mark.parametrize(
    ('fields', 'ends'),
    [
        ({'rotate': 1.0, 'degrees': (0, 1)}, (0, 1)),
        ({'brightness': (0.9, 1.0)}, (0.9, 1.0)),
    ],
)
def test_both_bounds_of_a_strength_happen(fields, ends):
    config = dataclasses.replace(OFF, **fields)
    image, mask = jnp.asarray(photo()), jnp.zeros((SIZE, SIZE), jnp.uint8)
    of_key = jax.jit(lambda key: augment.change(key, image, mask, config)[0])
    made = {bytes(np.asarray(of_key(jax.random.key(seed)))) for seed in range(20)}
    operation = augment.rotate if 'rotate' in fields else augment.brightness
    expected = [operation(jnp.float32(photo()), jnp.float32(end)) for end in ends]
    assert made == {bytes(np.asarray(x).astype(np.uint8)) for x in expected}


def test_a_join_squeezes_both_images_and_their_masks():
    size = 64
    rows = np.broadcast_to(np.linspace(0, 100, size)[:, None, None], (size, size, 3))
    image, other = rows.astype(np.uint8), (150 + rows).astype(np.uint8)
    mask, other_mask = np.full((size, size), 255, np.uint8), np.zeros((size, size), np.uint8)
    seen = set()
    for seed in range(20):
        arguments = map(jnp.asarray, (image, mask, other, other_mask))
        joined, joined_mask = map(np.asarray, jigsaw.join(jax.random.key(seed), *arguments))
        own = joined[..., 0] < 125
        np.testing.assert_array_equal(joined_mask, np.where(own, 255, 0))
        assert jigsaw.LEAST_OWN - 0.02 < own.mean() < jigsaw.MOST_OWN + 0.02
        across = bool((own == own[:1]).all())
        line = own[0] if across else own[:, 0]
        assert np.count_nonzero(np.diff(line)) == 1  # one joint
        for shown, ends in ((joined[own], (0, 100)), (joined[~own], (150, 250))):
            assert (
                max(abs(int(shown.min()) - ends[0]), abs(int(shown.max()) - ends[1])) <= 4
            )  # the whole image
        seen.add((across, bool(line[0])))
    assert len(seen) == 4  # all four arrangements occur


def test_jigsaws_take_from_the_whole_batch_and_keep_the_masks_of_their_own_group():
    given = batch(count=8)
    images = jnp.concatenate([given['image'], given['image'][:, ::-1]])  # two pairs
    level = np.uint8(10 + 60 * np.arange(4)).reshape(2, 2, 1, 1, 1, 1)  # one per group
    valid = jnp.concatenate([given['valid']] * 2)
    images = jnp.where(valid[..., None, None, None], level, jnp.zeros_like(images))
    masks = jnp.where(images[..., 0] > 0, jnp.uint8(255), jnp.uint8(0))
    given = {'image': images, 'mask': masks, 'valid': valid, 'label': jnp.zeros((2, 2), jnp.int32)}
    changed = augment.make_augment(dataclasses.replace(OFF, jigsaw=1.0), 0)(given, 3)
    x, y = np.asarray(changed['image'])[..., 0], np.asarray(changed['mask'])
    assert not x[:, :, -1].any()  # padding stays black
    own = x[:, :, :-1] == level[..., 0]
    np.testing.assert_array_equal(y[:, :, :-1], np.where(own, 255, 0))
    met = [set(np.unique(x[p, g, :-1])) for p in (0, 1) for g in (0, 1)]
    assert set.union(*met) == {10, 70, 130, 190}
    assert min(len(levels) for levels in met) > 2
    never = augment.make_augment(dataclasses.replace(OFF, jigsaw=0.0, pepper=1e-9), 0)(given, 3)
    np.testing.assert_array_equal(never['image'], images)


def test_intruders_come_from_other_groups_and_have_empty_masks():
    given = batch(count=16)
    level = np.uint8([50, 150]).reshape(1, 2, 1, 1, 1, 1)  # one level for each group's images
    images = jnp.where(given['valid'][..., None, None, None], level, jnp.zeros_like(given['image']))
    given |= {'image': images, 'mask': jnp.where(images[..., 0] > 0, jnp.uint8(255), jnp.uint8(0))}
    changed = augment.make_augment(dataclasses.replace(OFF, intruder=0.9), 0)(given, 3)
    x, y = np.asarray(changed['image'])[..., 0, 0, 0], np.asarray(changed['mask'])
    assert not x[..., -1].any()  # padding stays black
    intruding = (x != level[..., 0, 0, 0]) & np.asarray(given['valid'])
    assert 0 < intruding.sum() < given['valid'].sum()
    assert set(x[0, 0, :-1]) == set(x[0, 1, :-1]) == {50, 150}
    assert not y[intruding].any()
    assert (y[~intruding & np.asarray(given['valid'])] == 255).all()
