"""Unusual image files are read correctly, or rejected by name."""

import struct
import subprocess
import sys
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image
from tiny_data import write_set

from gconet_jax.input_pipeline.checks import check_groups, open_pair
from gconet_jax.input_pipeline.files import DataError, open_image, size_of
from gconet_jax.input_pipeline.groups import load_groups
from gconet_jax.input_pipeline.photos import read_photo

RED = (200, 30, 40)


def picture(size=(24, 20)) -> Image.Image:
    return Image.new('RGB', size, RED)


def disc(size=(24, 20)) -> Image.Image:
    mask = np.zeros(size[::-1], np.uint8)
    mask[4:9, 6:14] = 255
    return Image.fromarray(mask)


@pytest.mark.parametrize(
    ('name', 'mode', 'expected'),
    [
        ('cmyk.jpg', 'CMYK', RED),
        ('palette.png', 'P', RED),
        ('alpha.png', 'RGBA', RED),
        ('grey.jpg', 'L', (82, 82, 82)),
        ('bilevel.png', '1', None),
    ],
)
def test_modes_become_rgb(tmp_path, name, mode, expected):
    image = picture()
    (image.quantize(4) if mode == 'P' else image.convert(mode)).save(tmp_path / name)
    pixels = np.asarray(open_image(tmp_path / name, 'RGB'))
    assert pixels.shape == (20, 24, 3)
    if expected:
        assert np.abs(pixels.astype(int) - expected).max() <= 3
    else:
        assert set(np.unique(pixels)) <= {0, 255}


def test_palette_with_transparency(tmp_path):
    image = picture().quantize(4)
    image.save(tmp_path / 'x.png', transparency=bytes([255, 0]))
    assert np.abs(np.asarray(open_image(tmp_path / 'x.png', 'RGB')).astype(int) - RED).max() <= 3


def test_sixteen_bits_are_scaled(tmp_path):
    values = np.array([[0, 256, 32768, 65535]], np.uint16)
    Image.fromarray(values).save(tmp_path / 'deep.png')
    assert np.asarray(open_image(tmp_path / 'deep.png', 'L')).tolist() == [[0, 1, 128, 255]]


def test_suffix_need_not_tell_the_truth(tmp_path):
    picture().save(tmp_path / 'x.png')
    (tmp_path / 'x.png').rename(tmp_path / 'x.jpg')
    assert size_of(tmp_path / 'x.jpg') == (24, 20)
    assert open_image(tmp_path / 'x.jpg', 'RGB').getpixel((0, 0)) == RED


def test_one_pixel(tmp_path):
    picture((1, 1)).save(tmp_path / 'x.png')
    Image.new('L', (1, 1), 255).save(tmp_path / 'm.png')
    pixels, truth = open_pair(tmp_path / 'x.png', tmp_path / 'm.png')
    assert pixels.size == truth.size == (1, 1)


@pytest.mark.parametrize('content', [b'', b'\xff\xd8\xff', b'no image'])
def test_what_is_no_image_is_named(tmp_path, content):
    (tmp_path / 'x.jpg').write_bytes(content)
    with pytest.raises(DataError, match=r'cannot read image .*x\.jpg'):
        open_image(tmp_path / 'x.jpg', 'RGB')


def test_a_bomb_is_refused_before_it_is_decoded(tmp_path):
    def chunk(kind, data):
        crc = struct.pack('>I', zlib.crc32(kind + data))
        return struct.pack('>I', len(data)) + kind + data + crc

    header = struct.pack('>IIBBBBB', 60_000, 60_000, 8, 2, 0, 0, 0)
    bomb = b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', header) + chunk(b'IDAT', b'') + chunk(b'IEND', b'')
    (tmp_path / 'x.png').write_bytes(bomb)
    with pytest.raises(DataError, match=r'x\.png: .*decompression bomb'):
        open_image(tmp_path / 'x.png', 'RGB')


def test_reading_in_threads_leaves_the_filters_of_warnings_alone(tmp_path):
    picture().save(tmp_path / 'x.png')
    before = list(warnings.filters)
    with ThreadPoolExecutor(8) as pool:
        for read in (size_of, read_photo):
            list(pool.map(read, [tmp_path / 'x.png'] * 400))
    assert list(warnings.filters) == before


def test_warnings_of_pil_are_not_printed(tmp_path):
    Image.new('1', (10_000, 10_000)).save(tmp_path / 'x.png')  # PIL warns above 89 megapixels
    script = (
        'import pathlib, sys\n'
        'from gconet_jax.input_pipeline.files import DataError, size_of\n'
        'try:\n    size_of(pathlib.Path(sys.argv[1]))\n'
        'except DataError as error:\n    print(error)\n'
    )
    command = [sys.executable, '-c', script, str(tmp_path / 'x.png')]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert '10000 x 10000 pixels are more than 89,478,485' in done.stdout
    assert done.stderr == ''


def test_masks_of_other_modes(tmp_path):
    picture().save(tmp_path / 'x.jpg')
    for mode in ('RGB', '1', 'P', 'RGBA'):
        disc().convert(mode).save(tmp_path / 'm.png')
        _, mask = open_pair(tmp_path / 'x.jpg', tmp_path / 'm.png')
        np.testing.assert_array_equal(np.asarray(mask), np.asarray(disc()))


def test_grey_masks_are_kept_and_masks_of_zeros_and_ones_refused(tmp_path):
    picture().save(tmp_path / 'x.jpg')
    grey = np.asarray(disc()) // 255 * 200
    Image.fromarray(grey.astype(np.uint8)).save(tmp_path / 'm.png')
    assert open_pair(tmp_path / 'x.jpg', tmp_path / 'm.png')[1].getextrema() == (0, 200)
    Image.fromarray((grey > 0).astype(np.uint8)).save(tmp_path / 'm.png')
    with pytest.raises(DataError, match=r'm\.png has no value above 1; objects must be 255'):
        open_pair(tmp_path / 'x.jpg', tmp_path / 'm.png')


def test_an_image_turned_by_exif_under_an_upright_mask_is_explained(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    picture().save(tmp_path / 'x.jpg', exif=exif)
    disc((20, 24)).save(tmp_path / 'm.png')
    with pytest.raises(DataError, match=r'20 x 24 .* 24 x 20; .*EXIF.*save it upright'):
        open_pair(tmp_path / 'x.jpg', tmp_path / 'm.png')


@pytest.fixture
def mixed(tmp_path):
    """A set in which half of the files are unusual, but only three are invalid."""
    write_set(tmp_path, 'tiny', {'a group': 4, 'größe': 3, 'one': 1})
    for junk in ('images/tiny/__MACOSX', 'images/tiny/.cache'):
        (tmp_path / junk).mkdir()
    (tmp_path / 'images/tiny/a group/.DS_Store').write_bytes(b'')
    (tmp_path / 'images/tiny/größe/Thumbs.db').write_bytes(b'')
    elsewhere = tmp_path / 'elsewhere.jpg'
    picture().save(elsewhere)
    (tmp_path / 'images/tiny/größe/02.jpg').unlink()
    (tmp_path / 'images/tiny/größe/02.jpg').symlink_to(elsewhere)
    (tmp_path / 'images/tiny/a group/00.jpg').write_bytes(b'')
    (tmp_path / 'gts/tiny/a group/01.png').unlink()
    disc((9, 9)).save(tmp_path / 'gts/tiny/größe/00.png')
    return tmp_path


def test_what_is_wrong_is_named_and_counted(mixed):
    with pytest.raises(DataError, match=r"1 problem in set 'tiny':\n.*a group/01\.png is missing"):
        load_groups(mixed, 'tiny')
    groups = load_groups(mixed, 'tiny', skip_bad=True)
    with pytest.raises(DataError, match=r'2 problems in 7 images:\n.*00\.jpg(.|\n)*9 x 9'):
        check_groups(groups)


def test_what_is_wrong_can_be_left_out(mixed, capsys):
    groups = check_groups(load_groups(mixed, 'tiny', skip_bad=True), skip_bad=True)
    kept = {group.name: [image.stem for image in group.images] for group in groups}
    assert kept == {'a group': ['02', '03'], 'größe': ['01', '02'], 'one': ['00']}
    assert [len(group.masks) for group in groups] == [2, 2, 1]
    printed = capsys.readouterr().out
    assert "1 problem in set 'tiny', left out:" in printed
    assert '2 problems in 7 images, left out:' in printed
