"""Messages about JAX and its settings before JAX starts."""

import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from gconet_jax import cli
from gconet_jax.cli import startup

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize(
    ('flags', 'message'),
    [
        ('--xla_gpu_of_mine=1', 'Unknown flag in XLA_FLAGS: --xla_gpu_of_mine=1'),
        ('--xla_cpu_enable_fast_math=3.5', "Couldn't interpret value 3.5"),
        ('/nowhere/flags', 'Could not open file "/nowhere/flags"'),
    ],
)
def test_flags_that_xla_rejects_are_one_line(tmp_path, flags, message):
    done = subprocess.run(
        [sys.executable, ROOT / 'predict.py', tmp_path, tmp_path / 'out'],
        env={**os.environ, 'XLA_FLAGS': flags, 'PYTHONPATH': str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith('error: XLA does not accept the environment variable XLA_FLAGS: ')
    assert message in line
    assert line.endswith('correct it, or unset XLA_FLAGS')


def test_other_flags_are_left_alone(monkeypatch):
    startup.check_xla_flags('--xla_backend_optimization_level=0 --xla_gpu_autotune_level=2')
    monkeypatch.setattr(subprocess, 'run', lambda *_, **__: pytest.fail('started a process'))
    startup.check_xla_flags('')


@pytest.fixture
def jax_version(monkeypatch):
    """Set the version of JAX that appears to be installed."""

    def set_version(version, before=metadata.version):
        monkeypatch.setattr(
            metadata, 'version', lambda name: version if name == 'jax' else before(name)
        )

    return set_version


@pytest.mark.parametrize('version', ['0.4.38', '0.10.1'])
def test_an_older_jax_is_an_error(jax_version, tmp_path, capsys, version):
    jax_version(version)
    assert cli.check(['check', str(tmp_path)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f'error: JAX {version} is installed, and gconet-jax needs jax')
    assert '>=0.10.2' in line
    assert "run pip install 'jax" in line


@pytest.mark.parametrize('version', ['0.13.0', '1.2'])
def test_a_newer_jax_is_a_warning(jax_version, capsys, version):
    jax_version(version)
    startup.check_jax_version()
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f'warning: JAX {version} is installed, and gconet-jax needs jax')


@pytest.mark.parametrize('version', ['0.10.2', '0.11.0.dev20260101', '0.12.0.1'])
def test_a_supported_jax_is_silent(jax_version, capsys, version):
    jax_version(version)
    startup.check_jax_version()
    assert capsys.readouterr().err == ''


def test_a_source_tree_that_is_not_installed_is_used_as_it_is(monkeypatch):
    monkeypatch.setattr(startup, 'PACKAGE', 'gconet-jax-of-nobody')
    startup.check_jax_version()


@pytest.fixture
def gpu(monkeypatch, tmp_path):
    """A machine with a GPU's device file, where the user has not selected JAX's platform."""
    (tmp_path / 'nvidia0').touch()
    monkeypatch.setattr(startup, 'GPU_FILES', (f'{tmp_path}/nvidia[0-9]*',))
    monkeypatch.delenv('JAX_PLATFORMS')
    if startup._jax_plugins():
        pytest.skip("JAX's plugin is installed here")


def test_a_gpu_without_plugin_is_a_warning(gpu, capsys):
    startup.check_environment()
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("warning: JAX cannot use this machine's GPU and runs on the CPU: ")
    assert "pip install 'gconet-jax[cuda13]'" in line


def test_a_gpu_with_a_plugin_is_silent(gpu, monkeypatch, tmp_path, capsys):
    (tmp_path / 'jax_plugins' / 'xla_cuda13').mkdir(parents=True)
    (tmp_path / 'jax_plugins' / 'xla_cuda13' / '__init__.py').touch()
    monkeypatch.syspath_prepend(tmp_path)
    startup.check_environment()
    assert capsys.readouterr().err == ''


def test_who_chose_the_cpu_is_not_warned(gpu, monkeypatch, capsys):
    monkeypatch.setenv('JAX_PLATFORMS', 'cpu')
    startup.check_environment()
    assert capsys.readouterr().err == ''


def test_a_machine_without_a_gpu_is_silent(gpu, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(startup, 'GPU_FILES', (f'{tmp_path}/card[0-9]*',))
    startup.check_environment()
    assert capsys.readouterr().err == ''


def test_the_package_declares_a_range_for_jax():
    assert any(text.startswith(('jax<', 'jax>')) for text in metadata.requires(startup.PACKAGE))
