"""Users' photos: upright, of every kind, or rejected with an explanation; and their groups."""

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gconet_jax.input_pipeline.files import DataError
from gconet_jax.input_pipeline.photos import find_groups, output_names, read_photo

# The upright view of a stored image, for each EXIF orientation.
ORIENTATIONS = {
    1: lambda x: x,
    2: lambda x: x[:, ::-1],
    3: lambda x: x[::-1, ::-1],
    4: lambda x: x[::-1],
    5: lambda x: x.swapaxes(0, 1),
    6: lambda x: x.swapaxes(0, 1)[:, ::-1],
    7: lambda x: x[::-1, ::-1].swapaxes(0, 1),
    8: lambda x: x.swapaxes(0, 1)[::-1],
}


def pixels(seed=0, shape=(5, 8, 3)):
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


@pytest.mark.parametrize('orientation', ORIENTATIONS)
def test_photos_are_turned_upright(tmp_path, orientation):
    stored = pixels()
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(stored).save(tmp_path / 'a.png', exif=exif)
    np.testing.assert_array_equal(read_photo(tmp_path / 'a.png'), ORIENTATIONS[orientation](stored))


def test_every_kind_becomes_rgb(tmp_path):
    grey = pixels(shape=(5, 8))
    as_rgb = np.stack([grey] * 3, axis=-1)
    Image.fromarray(grey).save(tmp_path / 'grey.png')
    Image.fromarray(grey.astype(np.uint16) * 257).save(tmp_path / 'deep.png')
    Image.fromarray(as_rgb).convert('P', palette=Image.Palette.ADAPTIVE).save(tmp_path / 'p.gif')
    for name, tolerance in (('grey.png', 0), ('deep.png', 1), ('p.gif', 4)):
        np.testing.assert_allclose(read_photo(tmp_path / name).astype(int), as_rgb, atol=tolerance)
    alpha = np.dstack([as_rgb, np.where(grey > 128, 255, 0)]).astype(np.uint8)
    Image.fromarray(alpha).save(tmp_path / 'alpha.png')
    expected = np.where(grey[..., None] > 128, as_rgb, 255)
    np.testing.assert_array_equal(read_photo(tmp_path / 'alpha.png'), expected)
    Image.fromarray(as_rgb).convert('CMYK').save(tmp_path / 'cmyk.jpg')
    assert read_photo(tmp_path / 'cmyk.jpg').shape == (5, 8, 3)


def test_the_first_frame_of_an_animation(tmp_path):
    frames = [Image.new('RGB', (6, 4), colour) for colour in ('red', 'blue')]
    for name in ('a.gif', 'a.png', 'a.webp'):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:])
        assert tuple(read_photo(tmp_path / name)[2, 2] // 250) == (1, 0, 0)


def png_header(width, height):
    """Return a PNG that claims a size but has almost no pixel data."""
    png = b'\x89PNG\r\n\x1a\n'
    header = struct.pack('>IIBBBBB', width, height, 8, 2, 0, 0, 0)
    for kind, content in ((b'IHDR', header), (b'IDAT', zlib.compress(b'\0' * 9))):
        crc = struct.pack('>I', zlib.crc32(kind + content))
        png += struct.pack('>I', len(content)) + kind + content + crc
    return png


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        (png_header(20_000, 20_000), 'exceeds limit'),
        (png_header(10_000, 10_000), '10000 x 10000 pixels are more than 50,000,000'),
        (png_header(10, 10), 'truncated'),
        (b'', 'it is no picture'),
        (b'<svg xmlns="http://www.w3.org/2000/svg"/>', 'it is no picture'),
        (b'junk' * 100, 'it is no picture'),
        (b'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n', 'no picture'),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path, content, message):
    path = tmp_path / 'photo.png'
    path.write_bytes(content)
    with pytest.raises(DataError, match=message) as error:
        read_photo(path)
    assert 'photo.png' in str(error.value)


def test_the_limit_is_the_callers(tmp_path):
    Image.fromarray(pixels()).save(tmp_path / 'a.png')
    with pytest.raises(DataError, match='8 x 5 pixels are more than 39'):
        read_photo(tmp_path / 'a.png', max_pixels=39)
    assert read_photo(tmp_path / 'a.png', max_pixels=40).shape == (5, 8, 3)


def touch(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b'')


def test_folders_are_groups(tmp_path):
    touch(tmp_path, 'p/b/2.JPG', 'p/b/1.png', 'p/a/x/3.webp', 'p/a/notes.txt', 'p/.hidden/4.jpg')
    touch(tmp_path, 'p/b/.5.jpg', 'other/b/6.jpg', '7.jpg')
    groups = find_groups([tmp_path / 'p'])
    assert {g: [f.name for f in files] for g, files in groups.items()} == {
        'a/x': ['3.webp'],
        'b': ['1.png', '2.JPG'],
    }
    groups = find_groups([tmp_path / 'p' / 'b', tmp_path / 'other' / 'b', tmp_path / '7.jpg'])
    assert list(groups) == [tmp_path.name, 'b', 'b_2']


def test_a_group_is_never_named_as_the_folder_above(tmp_path, monkeypatch):
    touch(tmp_path, 'p/1.jpg', 'p/below/2.jpg')
    monkeypatch.chdir(tmp_path / 'p' / 'below')
    assert list(find_groups([Path('..')])) == ['p', 'below']
    assert list(find_groups([Path('../1.jpg')])) == ['p']


def test_results_of_the_run_before_are_no_photos(tmp_path, monkeypatch):
    touch(tmp_path, 'p/a/1.jpg', 'p/out/maps/a/1.png', 'p/out/sheets/a.jpg')
    monkeypatch.chdir(tmp_path / 'p')
    assert list(find_groups([Path()], leave_out=Path('out'))) == ['a']
    assert list(find_groups([Path('out/maps')], leave_out=Path('out'))) == ['a']  # given directly
    with pytest.raises(DataError, match='a has the photos; name another folder for the results'):
        find_groups([Path('a')], leave_out=tmp_path / 'p' / 'a')


def test_nothing_to_read_is_told(tmp_path):
    with pytest.raises(DataError, match='nowhere is neither a folder nor a file'):
        find_groups([tmp_path / 'nowhere'])
    with pytest.raises(DataError, match='no photos'):
        find_groups([tmp_path])


def test_no_output_overwrites_another():
    files = [Path(name) for name in ('a/1.jpg', 'a/1.png', 'a/2.jpg', 'b/1.jpg')]
    assert output_names(files) == ['1_jpg', '1_png', '2', '1_jpg_2']


def test_names_that_differ_in_case_alone_are_no_two_files_on_every_system(tmp_path):
    files = [Path(name) for name in ('a/IMG.jpg', 'a/img.png', 'b/Img.JPG', 'b/other.jpg')]
    assert output_names(files) == ['IMG_jpg', 'img_png', 'Img_JPG_2', 'other']
    touch(tmp_path, 'a/Cats/1.jpg', 'b/cats/2.jpg')
    assert list(find_groups([tmp_path / 'a', tmp_path / 'b'])) == ['Cats', 'cats_2']


def test_an_input_given_twice_is_taken_once(tmp_path, monkeypatch):
    (tmp_path / 'a').mkdir()
    (tmp_path / 'a' / '1.jpg').touch()
    monkeypatch.chdir(tmp_path)
    assert list(find_groups([tmp_path / 'a', Path('a'), Path('a/../a')])) == ['a']
