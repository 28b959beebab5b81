"""Measure whether the tests notice wrong code: apply each change of mutations.toml, run tests.

    .venv/bin/python tests/mutations.py [--jobs 2] [--only TEXT]

Each change is applied to a copy of the repository. It is caught if a test fails. If the tests pass
it has survived: a test is missing, or the change has no effect. Prints a table; exits with 1 if
less than 90 % of the changes are caught.
"""

import argparse
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple, TypeVar

ROOT = Path(__file__).parent.parent
COPIED = ('gconet_jax', 'tests', 'configs', 'data', 'pyproject.toml')
PACKAGE = 'gconet_jax'
LEAST = 0.9  # fraction of the changes that must be caught
TIMEOUT = 900  # seconds
PASSED, FAILED = 0, 1  # pytest's exit codes; others mean that no test could run
WIDTH = 48  # characters to show of a change

T = TypeVar('T')
R = TypeVar('R')


class Mutation(NamedTuple):
    """A change at one place in a file, and the tests that should notice it."""

    file: str  # in the package
    old: str  # occurs once in the file
    new: str
    tests: str  # pytest's arguments, in tests/


class Outcome(NamedTuple):
    """Result of a change: 'caught', 'SURVIVED', or 'NO TESTS' if none could run."""

    verdict: str
    test: str  # the first failing test
    seconds: float


def main(arguments: Sequence[str]) -> int:
    """Return the exit code."""
    parser = argparse.ArgumentParser(description='Do the tests notice small wrong changes?')
    parser.add_argument('--jobs', type=int, default=2, help='copies that run side by side')
    parser.add_argument('--only', default='', help='changes whose file or text holds this')
    options = parser.parse_args(arguments)
    mutations = [m for m in load() if any(options.only in text for text in m)]
    with tempfile.TemporaryDirectory() as folder:
        copies = [Path(folder, str(i)) for i in range(options.jobs)]
        for copy in copies:
            copy_tree(copy)
        each(copies, check_unchanged, dict.fromkeys(mutation.tests for mutation in mutations))
        outcomes = each(copies, attempt, mutations)
    caught = sum(outcome.verdict == 'caught' for outcome in outcomes)
    print(f'\n{caught} of {len(mutations)} caught')
    for mutation, outcome in zip(mutations, outcomes, strict=True):
        if outcome.verdict != 'caught':
            print(row(mutation, outcome))
    return int(caught < LEAST * len(mutations))


def load() -> list[Mutation]:
    """Return the listed changes.

    Raises:
        SystemExit: a text to change does not occur exactly once in its file, which is named.
    """
    listed = tomllib.loads(Path(__file__).with_suffix('.toml').read_text())['mutation']
    mutations = [Mutation(**each) for each in listed]
    for file, old, *_ in mutations:
        count = (ROOT / PACKAGE / file).read_text().count(old)
        if count != 1:
            raise SystemExit(f'{PACKAGE}/{file}: {old!r} occurs {count} times, not once')
    return mutations


def copy_tree(to: Path) -> None:
    """Copy the parts of the repository that the tests need."""
    to.mkdir()
    for name in COPIED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, to / name, ignore=shutil.ignore_patterns('__pycache__'))
        else:
            shutil.copy(ROOT / name, to)


def each(copies: Sequence[Path], function: Callable[[Path, T], R], items: Iterable[T]) -> list[R]:
    """Apply `function` to each item, with a copy of the repository that no other call uses."""
    spare = list(copies)

    def call(item: T) -> R:
        copy = spare.pop()
        try:
            return function(copy, item)
        finally:
            spare.append(copy)

    with ThreadPoolExecutor(len(copies)) as pool:
        return list(pool.map(call, items))


def check_unchanged(copy: Path, tests: str) -> None:
    """Check that the tests pass without a change; otherwise every change would seem caught.

    Raises:
        SystemExit: they fail, or the arguments are wrong.
    """
    code, output = run_tests(copy, tests)
    if code != PASSED:
        raise SystemExit(f'without any change, pytest {tests} exits with {code}:\n{output}')


def attempt(copy: Path, mutation: Mutation) -> Outcome:
    """Apply the change, run its tests, revert it and return the outcome."""
    path = copy / PACKAGE / mutation.file
    text = path.read_text()
    start = time.monotonic()
    path.write_text(text.replace(mutation.old, mutation.new))
    try:
        code, output = run_tests(copy, mutation.tests)
    finally:
        path.write_text(text)
    verdict = {PASSED: 'SURVIVED', FAILED: 'caught'}.get(code, 'NO TESTS')
    failed = re.findall(r'^(?:FAILED|ERROR) (\S+)', output, re.MULTILINE)
    outcome = Outcome(verdict, failed[0] if failed else '', time.monotonic() - start)
    print(row(mutation, outcome), flush=True)
    return outcome


def run_tests(copy: Path, tests: str) -> tuple[int, str]:
    """Run pytest in the copy up to the first failure; return exit code (-1: hangs) and output."""
    command = [sys.executable, '-B', '-m', 'pytest', '-x', '-q', '-p', 'no:cacheprovider']
    try:
        done = subprocess.run(
            [*command, *shlex.split(tests)],
            cwd=copy / 'tests',
            env=os.environ | {'PYTHONPATH': str(copy)},
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
        )
    except subprocess.TimeoutExpired:
        return -1, 'no end'
    return done.returncode, done.stdout + done.stderr


def row(mutation: Mutation, outcome: Outcome) -> str:
    """Format a line of the table: verdict, seconds, file, change, test."""
    old, new = (text if len(text) <= WIDTH else f'{text[: WIDTH - 3]}...' for text in mutation[1:3])
    change = f'{mutation.file}: {old}  ->  {new}'
    return f'{outcome.verdict:<8} {outcome.seconds:5.0f} s  {change}  {outcome.test}'


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
