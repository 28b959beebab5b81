"""The web page: its limits, what it stores, and a session in a real browser."""

import io
import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
import urllib.request
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip('gradio')

from gconet_jax.app import page
from gconet_jax.app.group import (
    PICTURES,
    SIDE,
    Limits,
    Photo,
    encode,
    example,
    find,
    pictures,
    take,
    write_zip,
)

LIMITS = Limits()
SERVER = """
import sys
from gconet_jax.app import page
from tests.test_app import golden

page.serve(golden, port=int(sys.argv[1]))
"""


def golden(images):
    """Return maps of golden pixels, the colour of the ring in the example."""
    return [np.clip((x[..., 0] - x[..., 2].astype(np.float32) - 60) / 60, 0, 1) for x in images]


def photo(path, colour=(240, 170, 20), size=(80, 60)):
    """Write a photo with a square of the given colour."""
    pixels = np.full((size[1], size[0], 3), 90, np.uint8)
    pixels[15:35, 20:40] = colour
    Image.fromarray(pixels).save(path)
    return str(path)


def test_takes_photos_and_deletes_their_files(tmp_path):
    paths = [photo(tmp_path / f'{i}.png') for i in range(3)]
    group, words = take(paths, (), LIMITS)
    assert [each.name for each in group] == ['0.png', '1.png', '2.png']
    assert words == '3 photos are ready.'
    assert not list(tmp_path.iterdir())


def test_photos_join_until_there_are_maps(tmp_path):
    group, _ = take([photo(tmp_path / 'a.png')], (), LIMITS)
    group, words = take([photo(tmp_path / 'b.png')], group, LIMITS)
    assert words == '2 photos are ready.'
    group, _ = take([photo(tmp_path / 'c.png')], find(golden, group), LIMITS)
    assert [each.name for each in group] == ['c.png']


def test_passes_over_what_is_no_photo_and_names_it(tmp_path):
    good = photo(tmp_path / 'good.png')
    svg = tmp_path / 'drawing.svg'
    svg.write_text('<svg xmlns="http://www.w3.org/2000/svg"><image href="/etc/passwd"/></svg>')
    broken = tmp_path / 'broken.png'
    broken.write_bytes(Path(good).read_bytes()[:60])
    empty = tmp_path / 'empty.jpg'
    empty.touch()
    group, words = take([good, *map(str, (svg, broken, empty))], (), LIMITS)
    first, *problems = words.splitlines()
    assert first == '1 photo is ready.'
    assert len(group) == 1
    assert len(problems) == 3
    for name, problem in zip(('drawing.svg', 'broken.png', 'empty.jpg'), problems, strict=True):
        assert problem.startswith(f'Passed over: cannot read {name}: ')
    assert str(tmp_path) not in words
    assert not list(tmp_path.iterdir())


def test_says_so_if_nothing_is_left(tmp_path):
    (tmp_path / 'words.jpg').write_text('no photo')
    group, words = take([str(tmp_path / 'words.jpg')], (), LIMITS)
    assert group == ()
    assert words.startswith('None of these files could be read as a photo.\nPassed over: ')


def test_of_an_animation_takes_the_first_frame(tmp_path):
    frames = [Image.new('RGB', (20, 20), colour) for colour in ('red', 'blue', 'green')]
    path = tmp_path / 'moving.gif'
    frames[0].save(path, save_all=True, append_images=frames[1:])
    (taken,), _ = take([str(path)], (), LIMITS)
    red, _, blue = np.asarray(Image.open(io.BytesIO(taken.pixels)))[10, 10].tolist()
    assert red > 240
    assert blue < 15


def test_a_huge_photo_is_passed_over_by_its_header(tmp_path):
    def chunk(kind, data):
        return (
            struct.pack('>I', len(data)) + kind + data + struct.pack('>I', zlib.crc32(kind + data))
        )

    header = struct.pack('>IIBBBBB', 10_000, 10_000, 8, 2, 0, 0, 0)
    path = tmp_path / 'huge.png'
    path.write_bytes(b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', header) + chunk(b'IDAT', b''))
    group, words = take([str(path)], (), LIMITS)
    assert group == ()
    assert '10000 x 10000 pixels are more than 50,000,000' in words


def test_refuses_too_many_and_too_much_in_words(tmp_path):
    source = Path(photo(tmp_path / 'source.png')).read_bytes()
    paths = [tmp_path / f'{i}.png' for i in range(500)]
    for path in paths:
        path.write_bytes(source)
    before = example()
    group, words = take(list(map(str, paths)), before[:0], LIMITS)
    assert group == ()
    assert words == '500 photos are too many: a group has 60 at most.'
    assert [path.name for path in tmp_path.iterdir()] == ['source.png']

    large = tmp_path / 'large.png'
    large.write_bytes(bytes(2_600_000))
    group, words = take([str(large)], before, Limits(megabytes=2))
    assert group is before
    assert words.startswith('3 MB are too much: 2 MB at most')


def test_stops_reading_when_the_time_is_over(tmp_path):
    _, words = take([photo(tmp_path / 'late.png')], (), Limits(seconds=0))
    assert words.endswith('Passed over: late.png: 0 seconds are over')


def test_a_file_that_another_visitor_took_is_named(tmp_path):
    paths = [photo(tmp_path / 'mine.png'), str(tmp_path / 'gone.png')]
    group, words = take(paths, (), LIMITS)
    assert len(group) == 1
    assert 'gone.png: somebody sent the same file' in words


def test_large_photos_are_shrunk(tmp_path):
    group, _ = take([photo(tmp_path / 'wide.png', size=(3000, 100))], (), LIMITS)
    assert Image.open(io.BytesIO(group[0].pixels)).size == (SIDE, 34)


def test_the_threshold_does_not_call_the_network():
    calls = []

    def counting(images):
        calls.append(len(images))
        return golden(images)

    group, words, *first = page.found(counting, example(), 0)
    assert words == 'What they share is below.'
    assert all(len(gallery) == 4 for gallery in first[:-1])
    page.shown(group, 0.9)
    page.found(counting, group, 0.1)
    assert calls == [4]


def test_the_threshold_sets_the_mask():
    pixels = np.full((10, 10, 3), 200, np.uint8)
    ramp = np.tile(np.linspace(0, 1, 10, dtype=np.float32), (10, 1))
    (each,) = find(lambda _: [ramp], (Photo('x', encode(pixels, 'JPEG')),))
    made = pictures(each, 0.5)
    np.testing.assert_array_equal(made['masks'][0], [0] * 5 + [255] * 5)
    np.testing.assert_array_equal(made['cutouts'][..., 3], made['masks'])
    assert (pictures(each, 0)['masks'] > 0).sum(1).max() == 1  # adaptive: 0.9 of the maximum


def test_one_photo_and_none():
    assert page.found(golden, (), 0)[1].startswith('There are no photos yet')
    assert page.found(golden, example()[:1], 0)[1].startswith('What stands out')
    assert next(page.packed((), 0))[0] == 'There is nothing to pack yet.'


def test_names_in_the_zip_are_no_paths(tmp_path):
    names = ['../../etc/passwd.png', '..', 'a\\..\\b\n.png', 'twice.png', 'twice.png', 'x' * 300]
    pixels = example()[0].pixels
    group = find(golden, tuple(Photo(name, pixels) for name in names))
    write_zip(tmp_path / 'all.zip', group, 0)
    with zipfile.ZipFile(tmp_path / 'all.zip') as archive:
        inside = archive.namelist()
        assert archive.testzip() is None
    assert len(set(inside)) == len(inside) == len(names) * len(PICTURES)
    for path in map(Path, inside):
        assert len(path.parts) == 2
        assert path.parts[0] in PICTURES
        assert path.stem.isprintable()
        assert not set(path.stem) & set('./\\:')
        assert len(path.name) < 80


def test_two_visitors_get_their_own(tmp_path):
    mine, _ = take([photo(tmp_path / 'same.png')], (), LIMITS)
    yours, _ = take([photo(tmp_path / 'same.png', (20, 20, 240))], (), LIMITS)
    mine, yours = find(golden, mine), find(golden, yours)
    assert pictures(mine[0], 0.5)['masks'].any()
    assert not pictures(yours[0], 0.5)['masks'].any()


@pytest.mark.parametrize('before', [None, '/mine'])
def test_the_environment_is_left_as_it_was(monkeypatch, before):
    monkeypatch.delenv('GRADIO_TEMP_DIR', raising=False)
    if before:
        monkeypatch.setenv('GRADIO_TEMP_DIR', before)
    folders = []

    class Page:
        def launch(self, **_):
            folders.append(os.environ['GRADIO_TEMP_DIR'])
            raise OSError('in use')

    monkeypatch.setattr(page, 'build', lambda *_: Page())
    with pytest.raises(OSError, match='in use'):
        page.serve(golden)
    assert os.environ.get('GRADIO_TEMP_DIR') == before
    assert folders[0] != before


@pytest.fixture
def server(tmp_path):
    """The address of a page served by another process, with its files in tmp_path / 'tmp'."""
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    (tmp_path / 'tmp').mkdir()
    root = Path(__file__).parents[1]
    environment = os.environ | {'TMPDIR': str(tmp_path / 'tmp'), 'PYTHONPATH': str(root)}
    with (tmp_path / 'log').open('w') as log:
        process = subprocess.Popen(
            [sys.executable, '-c', SERVER, str(port)],
            stdout=log,
            stderr=log,
            env=environment,
        )
        try:
            _wait(lambda: _listens(port) or process.poll() is not None, seconds=300)
            assert process.poll() is None, (tmp_path / 'log').read_text()
            yield f'http://127.0.0.1:{port}/'
            process.send_signal(signal.SIGTERM)
            process.wait(20)
            assert not list((tmp_path / 'tmp').glob('gconet-jax-*'))  # nothing remains
        finally:
            process.kill()
            process.wait()


@pytest.fixture
def browser(tmp_path):
    """Headless Chromium that downloads to tmp_path / 'downloads'."""
    webdriver = pytest.importorskip('selenium.webdriver')
    chromium, driver = (shutil.which(name) for name in ('chromium', 'chromedriver'))
    if not chromium or not driver:
        pytest.skip('no chromium and chromedriver')
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in (
        'headless',
        'no-sandbox',
        'disable-gpu',
        'disable-quic',
        'no-first-run',
        'disable-background-networking',
        'disable-component-update',
        'disable-sync',
        f'user-data-dir={tmp_path / "chromium"}',
    ):
        options.add_argument(f'--{flag}')
    downloads = {'download.default_directory': str(tmp_path / 'downloads')}
    options.add_experimental_option('prefs', downloads)
    window = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield window
    window.quit()


def _listens(port):
    with socket.socket() as client:
        return client.connect_ex(('127.0.0.1', port)) == 0


def _wait(condition, seconds=60):
    end = time.monotonic() + seconds
    while not (result := condition()):
        assert time.monotonic() < end, 'nothing happened'
        time.sleep(0.1)
    return result


def test_offers_no_api_and_tells_nobody(server):
    def get(path):
        with urllib.request.urlopen(server + path) as reply:
            return json.load(reply)

    assert get('gradio_api/info') == {'named_endpoints': {}, 'unnamed_endpoints': {}}
    assert not get('config')['analytics_enabled']
    assert get('config')['footer_links'] == []


def test_in_a_browser(server, browser, tmp_path):
    def elements(selector):
        return _wait(lambda: browser.find_elements('css selector', selector))

    def says(words):
        _wait(lambda: words in elements('#status textarea')[0].get_property('value'))

    def sources(name):
        return [image.get_property('src') for image in elements(f'#{name} .grid-container img')]

    paths = [photo(tmp_path / f'{name}.png') for name in ('one', 'two', 'three')]
    Image.fromarray(np.zeros((60, 80, 3), np.uint8)).save(tmp_path / 'three.png')
    browser.get(server)
    elements('#drop input[type=file]')[0].send_keys('\n'.join(paths))
    says('3 photos are ready.')
    _wait(lambda: len(sources('photos')) == 3)
    assert not list((tmp_path / 'tmp').rglob('one.png'))
    elements('button#find')[0].click()
    says('What they share is below.')
    _wait(lambda: len(sources('overlays')) == 3)
    before = sources('overlays')

    slider = elements('#threshold input[type=range]')[0]
    slider.send_keys('\ue014' * 70)  # the right arrow key
    _wait(lambda: sources('overlays')[:1] != before[:1])
    elements('button#pack')[0].click()
    says('The zip is packed.')
    elements('#download')[0].click()
    path = tmp_path / 'downloads' / 'shared.zip'
    _wait(path.is_file)
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        mask = np.asarray(Image.open(io.BytesIO(archive.read('masks/01_one.png'))))
    assert len(names) == 3 * len(PICTURES)
    assert mask[25, 30] == 255
    assert mask[50, 70] == 0
    loaded = "return performance.getEntriesByType('resource').map(entry => entry.name)"
    assert all(address.startswith(server) for address in browser.execute_script(loaded))
