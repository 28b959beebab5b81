"""Commands and configs: what they reject, and the wording of the errors."""

import dataclasses
import json
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
import test_training

import gconet_jax.app
from gconet_jax import cli
from gconet_jax.cli import runs
from gconet_jax.config import Config, ConfigError, released
from gconet_jax.config_dict import as_config_dict, from_config_dict
from gconet_jax.errors import InputError


@pytest.fixture(scope='module')
def root(tmp_path_factory):
    return test_training.make_sets(tmp_path_factory.mktemp('data'))


@pytest.mark.parametrize(
    ('flag', 'message'),
    [
        ('--config.data.root=/nowhere', '/nowhere'),
        ("--config.data.train_sets=('C',)", "'C'"),
        ('--config.data.image_size=50', 'config.data.image_size'),
        ('--config.train.learning_rate=-1.0', 'config.train.learning_rate'),
        ('--config.model.backbone=vgg19', 'config.model.backbone'),
        ('--config.train.learning_rate=fast', 'learning_rate'),
        ('--config.train.momentum=0.9', 'momentum'),
        ("--config.data.exclude=('A/cat','A/dog')", 'at least two groups'),
        ('--config.train.backbone_weights=/none.npz', '/none.npz'),
        ('stray', 'stray'),
    ],
)
def test_bad_values_are_errors_that_name_the_culprit(tmp_path, root, capsys, flag, message):
    assert cli.train(test_training.command(tmp_path, root, flag)) == 1
    error = capsys.readouterr().err
    assert error.startswith('error: ')
    assert message in error


@pytest.mark.parametrize(
    ('name', 'message'),
    [
        ('none.py', "No such file or directory: 'configs/none.py'"),
        ('duts.py:other', 'takes 0 positional arguments'),
        ('ablations.py:t9_9', "row 't9_9' is none of t1_1"),
    ],
)
def test_a_bad_config_file_is_one_line(tmp_path, monkeypatch, capsys, name, message):
    monkeypatch.chdir(Path(__file__).parent.parent)
    assert cli.train(['train', f'--config=configs/{name}', f'--workdir={tmp_path}']) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith('error: ')
    assert message in line


def test_config_round_trip_and_released_differences():
    for original in (Config(), released(Config())):
        assert from_config_dict(as_config_dict(original)) == original
        assert from_config_dict(json.loads(json.dumps(dataclasses.asdict(original)))) == original
    with pytest.raises(ConfigError, match=r'config\.model\.depth: no such field'):
        from_config_dict({'model': {'depth': 3}})
    with pytest.raises(ConfigError, match=r"config\.loss\.gst: 'much' is not of type float"):
        from_config_dict({'loss': {'gst': 'much'}})
    assert issubclass(ConfigError, InputError)


def test_command_without_arguments_shows_usage(monkeypatch, capsys):
    monkeypatch.setattr('sys.argv', ['gconet-jax'])
    assert cli.main() == 2
    assert 'gconet-jax train' in capsys.readouterr().out


def test_serve_without_gradio_names_the_remedy(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, 'gradio', None)
    monkeypatch.delitem(sys.modules, 'gconet_jax.app.page', raising=False)
    monkeypatch.delattr(gconet_jax.app, 'page', raising=False)  # from an earlier import
    assert cli.serve(['serve']) == 1
    assert "pip install 'gconet-jax[app]'" in capsys.readouterr().err


def test_serve_says_that_a_port_is_taken(monkeypatch, capsys):
    page = pytest.importorskip('gconet_jax.app.page')
    monkeypatch.setattr(page, 'serve', _in_use)
    monkeypatch.setattr(cli.photos, '_predictor', lambda _: None)
    assert cli.serve(['serve', '--port=80']) == 1
    assert '--host=127.0.0.1 --port=80: in use' in capsys.readouterr().err


def _in_use(*_, **__):
    raise OSError('in use')


def test_version(monkeypatch, capsys):
    monkeypatch.setattr('sys.argv', ['gconet-jax', '--version'])
    assert cli.main() == 0
    assert capsys.readouterr().out.strip() == version('gconet-jax')


def test_an_installed_package_has_the_configs(tmp_path, monkeypatch, capsys):
    source = Path(__file__).parent.parent
    monkeypatch.setattr(runs, 'PACKAGE', source)  # where a wheel would have `configs`
    monkeypatch.chdir(tmp_path)
    command = ['train', '--config=configs/duts_coco.py:other', f'--workdir={tmp_path}/run']
    assert cli.train(command) == 1
    assert "variant 'other'" in capsys.readouterr().err
    (tmp_path / 'configs').mkdir()
    (tmp_path / 'configs' / 'duts_coco.py').write_text('raise ValueError("mine comes first")')
    assert cli.train(command) == 1
    assert 'mine comes first' in capsys.readouterr().err
