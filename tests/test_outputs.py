"""The outputs for a photo and its map: pictures, co-segmentation, thumbnails, atomic files."""

import cv2
import numpy as np
import pytest
from PIL import Image

from gconet_jax.inference import outputs
from gconet_jax.inference.cosegment import cosegment, on_background
from gconet_jax.inference.thumbnail import Box, crop_box, object_box, thumbnail


def disc(height, width, y, x, radius):
    yy, xx = np.mgrid[:height, :width]
    return (np.hypot(yy - y, xx - x) < radius).astype(np.float32)


def photo_of(mask):
    """Return a noisy photo with a red object on green."""
    noise = np.random.default_rng(0).integers(0, 40, (*mask.shape, 3))
    return (np.where(mask[..., None] > 0, [200, 20, 20], [20, 200, 20]) + noise).astype(np.uint8)


def test_grey_cuts_off():
    values = np.array([[0, 0.999 / 255, 1 / 255, 0.5, 1]], np.float32)
    assert outputs.grey(values).tolist() == [[0, 0, 1, 127, 255]]


def test_adaptive_mask():
    small = np.zeros((10, 10), np.float32)
    small[2:4, 2:7] = [0.5, 0.5, 0.5, 0.1, 0.9]  # twice the mean is 0.1
    assert outputs.adaptive_mask(small).sum() == 10
    small[0, 0] = 0.09
    assert not outputs.adaptive_mask(small)[0, 0]
    large = disc(20, 20, 10, 10, 12) * np.linspace(0.95, 1, 20, dtype=np.float32)
    np.testing.assert_array_equal(outputs.adaptive_mask(large), large > 0)  # no specks
    assert not outputs.adaptive_mask(np.zeros((4, 4), np.float32)).any()
    assert outputs.adaptive_mask(np.ones((4, 4), np.float32)).all()


def test_overlay_dims_what_is_not_the_object():
    mask = disc(40, 60, 20, 30, 10)
    photo = photo_of(mask)
    picture = outputs.overlay(photo, mask)
    np.testing.assert_array_equal(picture[20, 30], photo[20, 30])
    np.testing.assert_array_equal(picture[0, 0], (photo[0, 0] * outputs.DIMMED).astype(np.uint8))
    outlined = (picture == outputs.OUTLINE).all(axis=-1)
    edge = np.abs(np.hypot(*(np.mgrid[:40, :60] - np.array([[[20]], [[30]]]))) - 10) < 2
    assert outlined.any()
    assert not (outlined & ~edge).any()


def test_cutout_has_the_map_as_alpha():
    mask = disc(40, 60, 20, 30, 10) * 0.7
    cut = outputs.cutout(photo_of(mask), mask)
    np.testing.assert_array_equal(cut[..., 3], outputs.grey(mask))
    np.testing.assert_array_equal(cut[..., :3], photo_of(mask))


@pytest.mark.parametrize('n', [1, 5, 30])
def test_contact_sheet_of_any_number_and_shape(n):
    rng = np.random.default_rng(0)
    photos = [rng.integers(0, 256, (*rng.integers(3, 90, 2), 3), np.uint8) for _ in range(n)]
    tiles = [outputs.tile(p, np.zeros(p.shape[:2], np.float32)) for p in photos]
    sheet = outputs.contact_sheet(tiles)
    assert sheet.height == -(-n // outputs.COLUMNS) * (outputs.TILE + outputs.GAP)
    np.testing.assert_array_equal(
        np.asarray(sheet)[: outputs.TILE, : tiles[0].width], np.asarray(tiles[0])
    )


def test_files_are_whole_or_not_there(tmp_path):
    path = tmp_path / 'new' / 'a.png'
    outputs.write_whole(path, Image.new('L', (4, 3), 7))
    with Image.open(path) as image:
        assert image.getpixel((0, 0)) == 7
    with pytest.raises(OSError, match='RGBA'):
        outputs.write_whole(tmp_path / 'b.jpg', Image.new('RGBA', (4, 3)))
    assert [p.name for p in tmp_path.iterdir()] == ['new']
    assert [p.name for p in path.parent.iterdir()] == ['a.png']


# --- Co-segmentation.


def test_grabcut_finds_the_edge_that_the_map_blurs():
    mask = disc(120, 160, 60, 80, 35)
    rough = cv2.GaussianBlur(disc(120, 160, 63, 83, 35), (0, 0), 5) * 0.8  # off by 4 pixels
    found = cosegment(photo_of(mask), rough)
    before, after = (np.mean(m != (mask > 0)) for m in (outputs.adaptive_mask(rough), found))
    assert after < before / 3
    np.testing.assert_array_equal(found, cosegment(photo_of(mask), rough))


def test_large_photos_are_cut_at_a_bounded_size():
    mask = disc(900, 1300, 450, 650, 250)
    found = cosegment(photo_of(mask), mask)
    assert found.shape == mask.shape
    assert np.mean(found != (mask > 0)) < 0.01


@pytest.mark.parametrize('value', [0, 1e-6, 0.5, 1])
def test_constant_maps_do_not_break_it(value):
    constant = np.full((30, 40), value, np.float32)
    found = cosegment(photo_of(constant), constant)
    assert found.all() if value else not found.any()


def test_background():
    mask = disc(40, 60, 20, 30, 10) > 0
    picture = on_background(photo_of(mask), mask, (1, 2, 3))
    assert picture[0, 0].tolist() == [1, 2, 3]
    np.testing.assert_array_equal(picture[20, 30], photo_of(mask)[20, 30])


# --- Thumbnails.


def test_box_is_tight_and_passes_over_specks():
    mask = np.zeros((50, 60), bool)
    mask[10:30, 20:45] = True
    mask[40, 5] = True
    assert object_box(mask) == Box(20, 10, 45, 30)
    assert object_box(mask & False) is None


def test_objects_fill_the_thumbnails_of_a_collection_alike():
    shares = []
    for radius, (height, width) in ((16, (100, 160)), (20, (120, 90)), (30, (300, 400))):
        mask = disc(height, width, height // 2, width // 2, radius)
        picture = thumbnail(photo_of(mask), mask, (64, 64))
        assert picture.shape == (64, 64, 3)
        shares.append(np.mean(picture[..., 0] > 120))
    np.testing.assert_allclose(shares, np.pi / 4 / 1.2**2, atol=0.04)


def test_a_crop_stays_in_the_photo_where_it_fits():
    assert crop_box((100, 100), Box(0, 0, 20, 20), (50, 50)) == Box(0, 0, 24, 24)
    wide = crop_box((100, 300, 3), Box(100, 40, 140, 60), (200, 100))
    assert (wide.right - wide.left) / (wide.bottom - wide.top) == pytest.approx(2)
    beyond = crop_box((20, 200), Box(50, 5, 150, 15), (50, 50))
    assert beyond == Box(40, -50, 160, 70)


def test_without_an_object_the_middle_is_shown():
    assert crop_box((100, 200), None, (50, 50)) == Box(50, 0, 150, 100)
    black = np.zeros((40, 60), np.float32)
    assert thumbnail(photo_of(black), black, (30, 20)).shape == (20, 30, 3)
