"""Windows and macOS, simulated on Linux by removing what they lack."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from test_predictor import SIZE, make_model
from tiny_data import write_maps, write_set

from gconet_jax import cli
from gconet_jax.app.group import example
from gconet_jax.evaluation import evaluator, scoring
from gconet_jax.inference.predictor import Predictor
from gconet_jax.input_pipeline.files import DataError, open_prepared
from gconet_jax.input_pipeline.groups import load_groups
from gconet_jax.training import programs
from gconet_jax.weights.folder import save_folder
from gconet_jax.weights.formats import save_run

ROOT = Path(__file__).parent.parent
# Runs commands as on Windows: without the packages and functions that it lacks, and with an error
# for each of our text files whose encoding would be the system's.
DRIVER = """
import json, os, sys, warnings
import asyncio  # its own form for Linux needs what is removed here

for name in ('array_record', 'grain', 'importlib_resources', 'tensorflow_datasets'):
    sys.modules[name] = None
for name in ('grp', 'pwd', 'resource', 'termios'):
    sys.modules[name] = None
for name in ('getuid', 'killpg', 'posix_fallocate', 'sysconf'):
    delattr(os, name)
warnings.filterwarnings('ignore', category=EncodingWarning)
warnings.filterwarnings('error', category=EncodingWarning, module='gconet_jax')

from gconet_jax import cli

for command in json.loads(sys.argv[1]):
    sys.argv = command
    try:
        status = cli.main()
    except SystemExit as stopped:
        status = stopped.code
    print('status', command[1], status)
"""
COMMANDS = ('train', 'evaluate', 'predict', 'look', 'serve', 'export', 'convert', 'check')


def run_commands(*commands: list[str], **environment: str) -> subprocess.CompletedProcess[str]:
    """Run commands in sequence in a process that `DRIVER` prepares."""
    text = json.dumps([['gconet-jax', *map(str, command)] for command in commands])
    return subprocess.run(
        [sys.executable, '-X', 'warn_default_encoding', '-c', DRIVER, text],
        env={**os.environ, 'PYTHONPATH': str(ROOT), **environment},
        capture_output=True,
        encoding='utf-8',
    )


def statuses(done: subprocess.CompletedProcess[str]) -> list[str]:
    lines = done.stdout.splitlines()
    return [line.removeprefix('status ') for line in lines if line.startswith('status ')]


def test_every_command_has_help():
    done = run_commands(*([command, '--help'] for command in COMMANDS))
    assert statuses(done) == [f'{command} 0' for command in COMMANDS], done.stderr
    assert done.stderr == ''


def test_the_packaged_model_predicts(tmp_path):
    photos, out = tmp_path / 'photos', tmp_path / '共通'
    photos.mkdir()
    for photo in example()[:2]:
        (photos / f'{photo.name}.jpg').write_bytes(photo.pixels)
    command = ['predict', photos, out, '--save=maps']
    done = run_commands(command, PYTHONIOENCODING='ascii')
    assert statuses(done) == ['predict 0'], done.stderr
    assert r'maps are in' in done.stdout
    assert r'\u5171\u901a' in done.stdout
    assert len(list((out / 'maps' / 'photos').glob('*.png'))) == 2


def test_other_commands_need_no_package_of_training(tmp_path):
    model = tmp_path / 'model'
    save_folder(make_model(), model, image_size=SIZE, card='# Modèle')
    write_set(tmp_path / 'data', 'CoCA', {'cat': 2, 'dog': 2})
    write_maps(tmp_path / 'maps' / 'CoCA', load_groups(tmp_path / 'data', 'CoCA'), 0)
    flags = [f'--root={tmp_path / "data"}', '--sets=CoCA', '--workers=0']
    done = run_commands(
        ['evaluate', f'--maps={tmp_path / "maps"}', f'--out={tmp_path / "scores"}', *flags],
        ['convert', model, tmp_path / 'model.pth'],
        ['convert', model, tmp_path / 'run', '--orbax'],
        ['evaluate', f'--workdir={tmp_path / "run"}', *flags],
        ['export', tmp_path / 'model.stablehlo', f'--model={model}'],
        ['look', tmp_path / 'data/images/CoCA/cat', tmp_path / 'figures', f'--model={model}'],
        ['check', tmp_path / 'data', f'--sheets={tmp_path / "sheets"}'],
    )
    assert all(line.endswith(' 0') for line in statuses(done)), done.stdout + done.stderr
    assert len(statuses(done)) == 7
    assert (tmp_path / 'model.stablehlo').stat().st_size > 0
    assert (tmp_path / 'run' / 'evaluations' / '0' / 'scores.json').is_file()


def test_training_says_where_it_can_run(tmp_path):
    config = f'--config={ROOT / "configs" / "synthetic.py"}'
    done = run_commands(['train', config, f'--workdir={tmp_path / "run"}'])
    assert statuses(done) == ['train 1']
    (line,) = done.stderr.splitlines()
    assert line.startswith('error: cannot train: ')
    assert 'grain' in line
    assert 'need Linux, macOS or WSL' in line
    assert not (tmp_path / 'run').exists()


def test_prepared_sets_say_where_they_can_be_read(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, 'tensorflow_datasets', None)
    with pytest.raises(DataError, match=r'cannot be read: .*tensorflow_datasets.*macOS or WSL'):
        open_prepared(str(tmp_path / 'coca'))


def test_preparing_data_says_where_it_can_run():
    code = (
        "import sys; sys.modules['tensorflow_datasets'] = None\n"
        'from data import prepare; sys.exit(prepare.main())'
    )
    done = subprocess.run(
        [sys.executable, '-c', code], cwd=ROOT, capture_output=True, encoding='utf-8'
    )
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith('error: cannot prepare data: ')


def test_memory_of_the_cpu_needs_no_sysconf(monkeypatch):
    (device,) = jax.local_devices()[:1]
    machine = os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE')
    monkeypatch.delattr(os, 'sysconf')
    assert programs.memory_of(device) == pytest.approx(machine / len(jax.local_devices()), rel=0.01)


def test_scoring_uses_no_more_processes_than_windows_allows(monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(sys, 'platform', 'win32')  # Python's own pool rejects more than 61 now
        with scoring.pool(100) as submit:
            assert submit is not scoring._call


# --- A device without enough memory.


def exhaust(*_, **__):
    return jnp.zeros(2**50, np.uint8)


ADVICE = 'the device does not have enough memory: close other programs that use it, or run on the'


def test_prediction_that_does_not_fit_is_one_line(tmp_path, monkeypatch, capsys):
    save_folder(make_model(), tmp_path / 'model', image_size=SIZE, card='')
    (tmp_path / 'photos').mkdir()
    Image.new('RGB', (8, 8)).save(tmp_path / 'photos' / '1.png')
    monkeypatch.setattr(Predictor, 'predict', exhaust)
    places = [str(tmp_path / 'photos'), str(tmp_path / 'out'), f'--model={tmp_path / "model"}']
    for command in (cli.predict, cli.look):
        assert command(['command', *places]) == 1
        last = capsys.readouterr().err.splitlines()[-1]
        assert ADVICE in last
        assert 'RESOURCE_EXHAUSTED: Out of memory allocating' in last


def test_evaluation_that_does_not_fit_is_one_line(tmp_path, monkeypatch, capsys):
    save_run(make_model(), tmp_path / 'run', image_size=SIZE)
    write_set(tmp_path, 'CoCA', {'cat': 2})
    monkeypatch.setattr(evaluator, 'segment_with', lambda _: exhaust)
    flags = [f'--workdir={tmp_path / "run"}', f'--root={tmp_path}', '--sets=CoCA', '--workers=0']
    assert cli.evaluate(['evaluate', *flags]) == 1
    assert capsys.readouterr().err.splitlines()[-1].startswith(f'error: {ADVICE}')
