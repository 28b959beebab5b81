"""Weights converted to every format and back, and training from them."""

import json

import jax.numpy as jnp
import numpy as np
import pytest
from golden_cases import GOLDEN
from test_predictor import SIZE, groups, make_model

from gconet_jax import cli
from gconet_jax.config import ModelConfig
from gconet_jax.errors import InputError
from gconet_jax.inference.predictor import Predictor
from gconet_jax.models.gconet_plus import abstract_model, normalize
from gconet_jax.weights import pretrained
from gconet_jax.weights.folder import save_folder
from gconet_jax.weights.pretrained import BOX, load_pretrained
from gconet_jax.weights.torch_file import read_state_dict, write_state_dict
from gconet_jax.weights.torch_gconet import (
    WeightsError,
    copy_weights,
    released_state_dict,
    save_state_dict,
    variables,
)


@pytest.fixture(scope='module')
def model():
    return make_model(racm_mask='conv', k=300.0, k_fallback=50.0)  # as released, except width


@pytest.fixture
def source(model, tmp_path):
    save_folder(model, tmp_path / 'source', image_size=SIZE, card='')
    return tmp_path / 'source'


def convert(*arguments):
    return cli.convert(['convert', *map(str, arguments)])


def maps(model):
    return Predictor(model, image_size=SIZE).predict(groups(3)[0]).maps


@pytest.mark.parametrize('way', [[], ['--orbax']])
def test_folders_keep_every_bit(source, model, tmp_path, way):
    assert convert(source, tmp_path / 'there', *way) == 0
    assert convert(tmp_path / 'there', tmp_path / 'back') == 0
    back, image_size = load_pretrained(tmp_path / 'back')
    assert (back.config, image_size) == (model.config, SIZE)
    np.testing.assert_array_equal(maps(back), maps(model))
    first, second = ((tmp_path / x / 'model.safetensors').read_bytes() for x in ('source', 'back'))
    assert first == second


def test_whoever_reads_the_config_may_read_the_weights(source):
    modes = {file.stat().st_mode for file in source.iterdir()}
    assert len(modes) == 1


def test_pth_keeps_every_bit(source, model, tmp_path):
    assert convert(source, tmp_path / 'm.pth') == 0
    weights = read_state_dict(tmp_path / 'm.pth')
    for name, value in save_state_dict(model).items():
        np.testing.assert_array_equal(weights[name], value)


def test_the_released_code_finds_all_that_it_has():
    wanted = json.loads((GOLDEN / 'state_dict.json').read_text())
    for mask in ('conv', 'output'):
        model = abstract_model(ModelConfig(racm_mask=mask))
        for variable in variables(model).values():
            variable.set_value(jnp.zeros(variable.shape))
        written = {name: list(x.shape) for name, x in released_state_dict(model).items()}
        assert written == wanted


def test_a_pth_of_full_width_round_trips(tmp_path):
    rng = np.random.default_rng(0)
    weights = {
        name: rng.standard_normal(shape).astype(
            np.int64 if name.endswith('tracked') else np.float32
        )
        for name, shape in json.loads((GOLDEN / 'state_dict.json').read_text()).items()
    }
    write_state_dict(tmp_path / 'a.pth', weights)
    assert convert(tmp_path / 'a.pth', tmp_path / 'b.pth') == 0
    again = read_state_dict(tmp_path / 'b.pth')
    assert set(again) == set(weights)
    for name in weights:
        if not name.startswith(('co_x5.conv_', 'co_x5.fc_', 'conv_out1')) and 'tracked' not in name:
            np.testing.assert_array_equal(again[name], weights[name])


@pytest.mark.filterwarnings('ignore::DeprecationWarning')
def test_the_released_network_in_torch_loads_it_strictly_and_gives_the_same(tmp_path):
    torch = pytest.importorskip('torch')
    from benchmarks import torch_peer

    assert cli.convert(['convert', str(BOX), str(tmp_path / 'box.pth')]) == 0
    weights = torch.load(tmp_path / 'box.pth', weights_only=True)
    peer = torch_peer.build({name: x.numpy() for name, x in weights.items()}, masked_pass=False)
    model, size = load_pretrained(BOX)
    images = np.random.default_rng(0).integers(0, 256, (3, size, size, 3), np.uint8)
    ours = Predictor(model, image_size=size).predict(images)
    with torch.inference_mode():
        theirs = peer(torch_peer.as_nchw(np.asarray(normalize(jnp.asarray(images)))))
    np.testing.assert_allclose(theirs.prob[:, 0], ours.prob, atol=1e-4)
    np.testing.assert_allclose(theirs.thresh[:, 0], ours.thresh, atol=1e-4)


def test_folders_that_do_not_fit_are_named(source):
    config = json.loads((source / 'config.json').read_text())
    classes = config['model'] | {'num_classes': 5}
    for key, value, message in (
        ('image_size', -3, r'source/config\.json is broken: .*-3'),
        ('model', classes, r'entries of .*source/model\.safetensors do not fit'),
    ):
        (source / 'config.json').write_text(json.dumps(config | {key: value}))
        with pytest.raises(WeightsError, match=message):
            load_pretrained(source)


@pytest.mark.parametrize(
    'name', ['weights/gconet.pth', '../x.pth', './x', '../x', 'a/b.safetensors']
)
def test_mistyped_files_are_not_asked_of_the_hub(name, monkeypatch):
    monkeypatch.setattr(pretrained, 'fetch', lambda name: pytest.fail(f'{name} is no id'))
    with pytest.raises(InputError, match=r'there is no file|neither the folder'):
        load_pretrained(name)


def test_a_pth_that_does_not_fit_is_named(tmp_path):
    write_state_dict(tmp_path / 'a.pth', {'classifier.weight': np.zeros((2, 3), np.float32)})
    with pytest.raises(WeightsError, match=r'entries of .*a\.pth do not fit'):
        load_pretrained(tmp_path / 'a.pth')


def test_half_is_near(source, tmp_path, capsys):
    assert convert(source, tmp_path / 'large', '--half') == 1  # the tests' GAM is scaled by 1e6
    assert 'co_x5.all_attention.conv6.weight is beyond float16' in capsys.readouterr().err
    soft = make_model(gam=False, gcm=False)
    save_folder(soft, tmp_path / 'whole', image_size=SIZE, card='')
    assert convert(tmp_path / 'whole', tmp_path / 'soft', '--half') == 0
    sizes = [(tmp_path / x / 'model.safetensors').stat().st_size for x in ('whole', 'soft')]
    assert sizes[1] < 0.7 * sizes[0]
    np.testing.assert_allclose(maps(load_pretrained(tmp_path / 'soft')[0]), maps(soft), atol=5e-3)


def test_what_cannot_be_is_told(source, tmp_path, capsys):
    assert convert(source, tmp_path / 'm.bin') == 1
    assert "m.bin: the suffix must be '.pth', or none" in capsys.readouterr().err
    assert convert(source, source, '--orbax') == 1
    assert 'exists already' in capsys.readouterr().err
    assert convert(source, tmp_path / 'm.pth', '--push=a/b') == 1
    assert '--push: a safetensors folder' in capsys.readouterr().err


@pytest.mark.parametrize(
    ('out', 'flags', 'message'),
    [
        ('m.pth', ['--half'], '--half: for a safetensors folder'),
        ('m', ['--half', '--orbax'], '--half: for a safetensors folder'),
        ('m.pth', ['--orbax'], '--orbax: the folder of a run has no suffix'),
        ('v.safetensors', ['--half', '--ema'], '--half, --ema: for GCoNet+, not for a VGG-16'),
        ('v.safetensors', ['--step=3'], '--step: for GCoNet+, not for a VGG-16'),
        ('v.safetensors', ['--push=a/b'], '--push: for GCoNet+, not for a VGG-16'),
    ],
)
def test_no_flag_is_ignored(source, tmp_path, capsys, out, flags, message):
    calibrate = [f'--calibrate={tmp_path}'] if out.startswith('v') else []
    assert convert(source, tmp_path / out, *flags, *calibrate) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / out).exists()


def test_the_card_names_the_model_in_the_package(source, tmp_path, monkeypatch):
    monkeypatch.setattr(pretrained, 'BOX', source)
    assert cli.export(['export', str(tmp_path / 'there')]) == 0
    card = (tmp_path / 'there' / 'README.md').read_text()
    assert 'from `the model in the package gconet-jax`' in card


def test_a_folder_is_put_on_the_hub(source, tmp_path, monkeypatch):
    hub = pytest.importorskip('huggingface_hub')
    calls = []

    class Api:
        def create_repo(self, name, exist_ok):
            calls.append((name, exist_ok))

        def upload_folder(self, repo_id, folder_path):
            calls.append((repo_id, sorted(path.name for path in folder_path.iterdir())))

    monkeypatch.setattr(hub, 'HfApi', Api)
    assert convert(source, tmp_path / 'm', '--push=someone/gconet') == 0
    files = ['README.md', 'config.json', 'model.safetensors']
    assert calls == [('someone/gconet', True), ('someone/gconet', files)]


def test_training_starts_from_other_classes_and_heads(model):
    target = make_model(num_classes=7, racm_mask='output')
    before = np.asarray(target.classifier.kernel[...])
    copy_weights(model, target)
    np.testing.assert_array_equal(target.classifier.kernel[...], before)

    weights, source = save_state_dict(target), save_state_dict(model)
    for name, value in weights.items():
        if not name.startswith('classifier.'):
            np.testing.assert_array_equal(value, source[name])
    with pytest.raises(WeightsError, match=r'missing: co_x5\.all_attention'):
        copy_weights(make_model(gam=False, gcm=False), make_model())
