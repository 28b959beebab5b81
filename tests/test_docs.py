"""The documentation: its commands exist, its code runs, and its links resolve."""

import argparse
import dataclasses
import importlib
import os
import re
import subprocess
import sys
import tomllib

import doc_blocks
import pytest
import test_configs

from gconet_jax import cli
from gconet_jax.cli import runs
from gconet_jax.config_dict import from_config_dict
from tests import run_docs_commands

ROOT = doc_blocks.ROOT
COMMANDS = doc_blocks.commands()
# Text that pages omit or leave to the reader.
PLACEHOLDERS = {'...': '--config=configs/duts.py', '--config=...': '--config=configs/duts.py'}


class Parsed(Exception):  # noqa: N818
    """Raised once the arguments are parsed, so that the command does not run."""


@pytest.fixture
def parse_only(monkeypatch):
    """Make commands raise `Parsed` where they would start."""
    parse = argparse.ArgumentParser.parse_args

    def parse_args(self, args=None, namespace=None):
        raise Parsed(parse(self, args, namespace))

    def read_flags(argv, values, _):
        runs._parse(argv, values)
        if 'config' in values:
            from_config_dict(values['config'].value)
        raise Parsed

    monkeypatch.setattr(argparse.ArgumentParser, 'parse_args', parse_args)
    monkeypatch.setattr(runs, '_run', read_flags)
    monkeypatch.chdir(ROOT)


def test_commands_are_found():
    programs = {(command.words[0], command.script) for command in COMMANDS}
    assert {('python', f'{name}.py') for name in ('train', 'evaluate', 'predict')} <= programs
    assert {(name, '') for name in ('gconet-jax', 'make', 'pip')} <= programs


@pytest.mark.parametrize('command', COMMANDS, ids=str)
def test_a_command_is_one_there_is(command, parse_only, monkeypatch):
    words = [PLACEHOLDERS.get(word, word) for word in command.words]
    program, *arguments = words
    if program == 'make':
        assert all(f'\n{target}:' in (ROOT / 'Makefile').read_text() for target in arguments)
    elif program == 'pip':
        assert extras(arguments) <= set(project()['optional-dependencies'])
    elif program == 'gconet-jax':
        with pytest.raises(begins(command)):
            getattr(cli, arguments[0])(arguments)
    elif not command.script.endswith('.py'):
        assert command.script in ('-i', '-m')
    else:
        script, *arguments = arguments
        monkeypatch.setattr(sys, 'argv', [script, *arguments])
        start_script(script, begins(command))


def begins(command):
    """Return what ends the command; a page may also name a command without its arguments."""
    return (Parsed, SystemExit) if len(command.words) == 2 else Parsed


def start_script(script, end):
    """Run a script until it has parsed `sys.argv`."""
    text = (ROOT / script).read_text()
    if 'gconet_jax import cli' in text:
        with pytest.raises(end):
            getattr(cli, script.removesuffix('.py'))(sys.argv)
    elif 'argparse' in text:
        if re.search('^import torch|^from .*torch_.* import', text, re.MULTILINE):
            pytest.importorskip('torch', exc_type=ImportError)
        with pytest.raises(end):
            importlib.import_module(script.removesuffix('.py').replace('/', '.')).main()
    else:
        assert sys.argv == [script]


def extras(arguments):
    """Return this project's extras in the arguments of pip."""
    named = re.findall(r'(?:^| )(?:gconet-jax|\.)\[([\w,]+)\]', ' '.join(arguments))
    return {extra for names in named for extra in names.split(',')}


def project():
    return tomllib.loads((ROOT / 'pyproject.toml').read_text())['project']


def test_paper_and_code_has_the_values_of_both_configs():
    paper, released = (test_configs.load(f'duts_coco.py{v}') for v in ('', ':released'))
    page = (ROOT / 'docs' / 'paper_and_code.md').read_text()
    rows = [[cell.strip() for cell in line.split('|')] for line in page.splitlines()]
    shown = {row[4].strip('`'): row[5:7] for row in rows if len(row) == 8}
    for section, values in dataclasses.asdict(paper).items():
        for name, value in values.items():
            other = getattr(getattr(released, section), name)
            if value != other:
                assert_shows(shown[f'{section}.{name}'], value, other)


def assert_shows(cells, *values):
    for cell, value in zip(cells, values, strict=True):
        cell = cell.split(':')[0]
        assert (float(cell) if type(value) is float else cell) == (
            value if type(value) is float else repr(value)
        )


def test_reproduce_has_every_config_and_its_parameters():
    page = (ROOT / 'docs' / 'reproduce.md').read_text()
    for name in test_configs.TERMS:
        if name.startswith('ablations'):
            row = name.split(':')[1]
            parameters = sum(
                size
                for path, size in test_configs.arrays(row).items()
                if not path.endswith(('/mean', '/var'))
            )
            assert re.search(rf'`{row}` \|.*\| {parameters:,} \|', page), row
        elif not name.startswith(('packaged', 'synthetic')):
            assert f'--config=configs/{name} ' in page


def test_the_tutorial_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names = {'__name__': 'tutorial'}
    for block in doc_blocks.blocks(ROOT / 'docs' / 'tutorial.md', 'python'):
        exec(compile(block, 'docs/tutorial.md', 'exec'), names)
    printed = capsys.readouterr().out
    assert 'config.model.gcm: needs model.gam' in printed
    assert 'image uint8 (1, 2, 6, 48, 48, 3)' in printed
    assert 0.4 < names['scores']['smeasure'] < 1


@pytest.mark.slow
def test_the_commands_run_on_small_data():
    assert run_docs_commands.main() == 0


def test_the_site_builds_without_a_broken_link(tmp_path):
    pytest.importorskip('mkdocs')
    done = subprocess.run(
        [sys.executable, '-m', 'mkdocs', 'build', '--quiet', '--strict', f'--site-dir={tmp_path}'],
        cwd=ROOT,
        env=os.environ | {'NO_MKDOCS_2_WARNING': '1'},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    text = (tmp_path / 'index.html').read_text()
    fetched = re.findall(r'<(?:script|link|img)[^>]+(?:src|href)="?(https?:[^ ">]+)', text)
    assert not fetched, 'the site is to load nothing from elsewhere'
