"""`predict.py` from folders to files, and networks from any source."""

import errno
import json
import threading

import numpy as np
import pytest
from golden_cases import cases, load, state_dict
from PIL import Image
from test_predictor import SIZE, groups, make_model, whole_batch
from test_torch_file import tensor, write

from gconet_jax import cli
from gconet_jax.errors import InputError
from gconet_jax.inference import command, outputs
from gconet_jax.inference.predictor import Predictor
from gconet_jax.weights import pretrained
from gconet_jax.weights.folder import load_folder, save_folder
from gconet_jax.weights.pretrained import load_pretrained
from gconet_jax.weights.torch_gconet import WeightsError


@pytest.fixture(scope='module')
def model():
    return make_model()


@pytest.fixture(scope='module')
def folder(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp('weights') / 'model'
    save_folder(model, folder, image_size=SIZE, card='# A card')
    return folder


@pytest.fixture
def photos(tmp_path):
    """Two groups; the second has a broken file and a rotated one."""
    rng = np.random.default_rng(0)
    for name, size in (('a/1.jpg', (40, 30)), ('a/2.png', (20, 50)), ('b/3.jpg', (30, 44))):
        path = tmp_path / 'photos' / name
        path.parent.mkdir(parents=True, exist_ok=True)
        exif = Image.Exif()
        exif[0x0112] = 6 if name == 'b/3.jpg' else 1
        image = Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), np.uint8))
        image.save(path, exif=exif)
    (tmp_path / 'photos' / 'b' / 'broken.jpg').write_bytes(b'junk')
    return tmp_path / 'photos'


def predict(photos, folder, *flags):
    arguments = ['predict', str(photos), str(photos.parent / 'out'), f'--model={folder}', *flags]
    return cli.predict(arguments)


ALL = 'maps,masks,overlays,cutouts,cosegments,thumbnails,sheets'


def test_everything_that_can_be_made(photos, folder, model, capsys):
    assert predict(photos, folder, f'--save={ALL}', '--thumbnail-size=24x16') == 0
    out = photos.parent / 'out'
    files = {str(path.relative_to(out)): path for path in out.rglob('*') if path.is_file()}
    names = ('a/1', 'a/2', 'b/3')
    expected = {
        f'{kind}/{n}.png' for kind in ('maps', 'masks', 'cutouts', 'cosegments') for n in names
    }
    expected |= {f'{kind}/{n}.jpg' for kind in ('overlays', 'thumbnails') for n in names}
    assert set(files) == expected | {'sheets/a.jpg', 'sheets/b.jpg'}
    captured = capsys.readouterr()
    assert 'passed over: cannot read' in captured.err
    assert 'broken.jpg' in captured.err
    for name, size in zip(names, ((40, 30), (20, 50), (44, 30)), strict=True):  # upright
        with Image.open(files[f'maps/{name}.png']) as image:
            assert (image.mode, image.size) == ('L', size)
        with Image.open(files[f'thumbnails/{name}.jpg']) as image:
            assert image.size == (24, 16)
    # The maps are those of the group, rounded down to 8 bits.
    pixels = [
        np.asarray(Image.open(photos / name).convert('RGB')) for name in ('a/1.jpg', 'a/2.png')
    ]
    for name, expected_map in zip(
        ('a/1', 'a/2'), Predictor(model, image_size=SIZE)(pixels), strict=True
    ):
        written = np.asarray(Image.open(files[f'maps/{name}.png']), int)
        np.testing.assert_allclose(written, np.floor(expected_map * 255), atol=1)


def test_resume_does_what_is_left(photos, folder, capsys):
    assert predict(photos, folder) == 0
    out = photos.parent / 'out'
    (out / 'maps' / 'a' / '1.png').unlink()
    before = (out / 'maps' / 'b' / '3.png').stat().st_mtime_ns
    assert predict(photos, folder, '--resume') == 0
    assert '1 of 2 groups are done already' in capsys.readouterr().out
    assert (out / 'maps' / 'a' / '1.png').is_file()
    assert (out / 'maps' / 'b' / '3.png').stat().st_mtime_ns == before


@pytest.mark.parametrize('save', ['maps,sheets', 'maps'])
def test_resume_with_a_group_that_cannot_be_read(photos, folder, capsys, save):
    (photos / 'b' / '3.jpg').unlink()
    assert predict(photos / 'b', folder, f'--save={save}', '--resume') == 1
    for flags in ([], ['--resume']):
        assert predict(photos, folder, f'--save={save}', *flags) == 0
        assert 'broken.jpg' in capsys.readouterr().err


def test_processes_share_the_groups(photos, folder):
    assert predict(photos, folder, '--processes=2', '--process=1', '--save=maps') == 0
    assert [path.name for path in (photos.parent / 'out' / 'maps').iterdir()] == ['b']


@pytest.mark.parametrize(
    ('flags', 'message'),
    [
        (['--save=maps,art'], '--save: art unknown; there are maps'),
        (['--save='], '--save is empty: name one or several of maps'),
        (['--processes=2', '--process=2'], '--process=2 --processes=2: they are 0 to N - 1'),
        (['--background=1,2'], "--background '1,2': 3 whole numbers of 0 to 255"),
        (['--background=300,0,0'], "--background '300,0,0': 3 whole numbers of 0 to 255"),
        (['--thumbnail-size=12'], "--thumbnail-size '12': 2 whole numbers of 1 to 8192"),
        (['--thumbnail-size=0x256'], "--thumbnail-size '0x256': 2 whole numbers of 1 to 8192"),
        (['--thumbnail-size=²x2'], "--thumbnail-size '²x2': 2 whole numbers of 1 to 8192"),
    ],
)
def test_bad_flags(photos, folder, flags, message, capsys):
    assert predict(photos, folder, *flags) == 1
    assert message in capsys.readouterr().err
    assert not (photos.parent / 'out').exists()


def test_nothing_that_could_be_read(photos, folder, capsys):
    assert predict(photos / 'b' / 'broken.jpg', folder) == 1
    assert 'none of the files could be read' in capsys.readouterr().err


def test_a_place_that_cannot_be_written_is_told_before_the_network_runs(
    photos, folder, capsys, monkeypatch
):
    (photos.parent / 'out').write_text('a file')
    monkeypatch.setattr(Predictor, 'predict', lambda *_: pytest.fail('ran'))
    assert predict(photos, folder) == 1
    assert f'cannot write to {photos.parent / "out"}: ' in capsys.readouterr().err
    arguments = [str(photos), str(photos / 'a' / '1.jpg' / 'out'), f'--model={folder}']
    assert cli.look(['look', *arguments]) == 1
    assert '1.jpg/out: [Errno 20] Not a directory' in capsys.readouterr().err


def test_a_full_disk_is_told(photos, folder, capsys, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, 'No space left on device')

    monkeypatch.setattr(outputs, 'write_whole', full)
    assert predict(photos, folder) == 1
    assert 'out: [Errno 28] No space left on device; OUT' in capsys.readouterr().err


def test_a_photo_that_vanishes_is_passed_over(photos, folder, capsys, monkeypatch):
    def predicted(predictor, groups, before=Predictor.predict):
        (photos / 'a' / '1.jpg').unlink(missing_ok=True)
        return before(predictor, groups)

    monkeypatch.setattr(Predictor, 'predict', predicted)
    assert predict(photos, folder, '--save=maps') == 0
    made = {path.name for path in (photos.parent / 'out').rglob('*.png')}
    assert made == {'2.png', '3.png'}
    assert f'passed over: cannot read {photos / "a" / "1.jpg"}' in capsys.readouterr().err


def test_after_an_interruption_what_was_not_begun_is_dropped():
    go_on = threading.Event()
    futures = []

    def interrupted():
        with command._pool(1) as pool:
            futures.extend(pool.submit(go_on.wait, 5) for _ in range(2))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    go_on.set()
    begun, waiting = futures
    assert begun.result()
    assert waiting.cancelled()


# --- Sources of networks.


def test_a_folder_keeps_every_bit(model, folder):
    loaded, image_size = load_folder(folder)
    assert image_size == SIZE
    assert loaded.config == model.config
    (group,) = groups(2)
    for left, right in zip(whole_batch(loaded, group), whole_batch(model, group), strict=True):
        np.testing.assert_array_equal(left, right)
    assert (folder / 'README.md').read_text() == '# A card'
    with pytest.raises(WeightsError, match='exists already'):
        save_folder(model, folder, image_size=SIZE, card='')


def test_broken_folders_are_told(folder, tmp_path):
    with pytest.raises(WeightsError, match=r'no model: it has no config\.json'):
        load_folder(tmp_path)
    config = json.loads((folder / 'config.json').read_text())
    (tmp_path / 'config.json').write_text(json.dumps(config))
    with pytest.raises(WeightsError, match=r'has no model\.safetensors'):
        load_folder(tmp_path)
    (tmp_path / 'model.safetensors').write_bytes(b'junk' * 10)
    with pytest.raises(WeightsError, match=r'model\.safetensors is broken'):
        load_folder(tmp_path)
    config['model']['width'] = -1
    (tmp_path / 'config.json').write_text(json.dumps(config))
    with pytest.raises(WeightsError, match=r'config\.json is broken: .*width'):
        load_folder(tmp_path)


def test_a_released_file_has_the_released_settings(tmp_path):
    meta, _ = load(cases('eval_n1_128.npz')[0])
    weights = state_dict(meta)
    kinds = {'float32': 'FloatStorage', 'float64': 'DoubleStorage', 'int64': 'LongStorage'}
    content = {
        f'module.{name}': tensor(str(i), value.shape, kind=kinds[str(value.dtype)])
        for i, (name, value) in enumerate(weights.items())
    }
    path = write(
        tmp_path / 'gconet.pth',
        content,
        {str(i): value for i, value in enumerate(weights.values())},
    )
    model, image_size = load_pretrained(path)
    assert image_size == 256
    assert model.config.racm_mask == 'conv'
    assert model.config.num_classes == weights['classifier.weight'].shape[0]
    kernel = model.backbone.stages[0][0].conv.kernel[...]
    np.testing.assert_array_equal(kernel.transpose(3, 2, 0, 1), weights['bb.conv1.0.weight'])


def test_sources_that_are_not_there(tmp_path, monkeypatch):
    monkeypatch.setattr(pretrained, 'BOX', tmp_path / 'none')
    with pytest.raises(InputError, match='has no model of its own'):
        load_pretrained()
    with pytest.raises(InputError, match='neither the folder of a run'):
        load_pretrained(tmp_path / 'nowhere' / 'at' / 'all')
    with pytest.raises(InputError, match='is no model'):
        load_pretrained(tmp_path)


def test_a_hub_id_is_fetched(folder, monkeypatch, model):
    hub = pytest.importorskip('huggingface_hub')
    asked = []
    monkeypatch.setattr(
        hub, 'snapshot_download', lambda name, **_: asked.append(name) or str(folder)
    )
    loaded, _ = load_pretrained('someone/gconet-plus')
    assert asked == ['someone/gconet-plus']
    assert loaded.config == model.config

    def offline(name, **_):
        raise OSError('no network')

    monkeypatch.setattr(hub, 'snapshot_download', offline)
    with pytest.raises(InputError, match='someone/other could not be fetched from the hub'):
        load_pretrained('someone/other')
