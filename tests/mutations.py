"""Do the tests notice? Applies each change of mutations.toml to a copy and runs a few tests there.

    .venv/bin/python tests/mutations.py [--jobs 2] [--only TEXT]

A change is caught if a test fails. One that leaves the tests passing has survived: a test is
missing, or the change is none. Prints a table; exits with 1 if fewer than nine in ten are caught.
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
LEAST = 0.9  # of the changes that must be caught
TIMEOUT = 900  # seconds
PASSED, FAILED = 0, 1  # pytest's exit codes; others say that no test could be run
WIDTH = 48  # characters of a change that are shown

T = TypeVar('T')
R = TypeVar('R')


class Mutation(NamedTuple):
    """A change of one place of a file, and the tests that ought to notice."""

    file: str  # in the package
    old: str  # occurs once in the file
    new: str
    tests: str  # pytest's arguments, in tests/


class Outcome(NamedTuple):
    """What became of a change: 'caught', 'SURVIVED', or 'NO TESTS' if none could be run."""

    verdict: str
    test: str  # the first that failed
    seconds: float


def main(arguments: Sequence[str]) -> int:
    """The exit code."""
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
    """The listed changes.

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
    """What the tests need of the repository."""
    to.mkdir()
    for name in COPIED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, to / name, ignore=shutil.ignore_patterns('__pycache__'))
        else:
            shutil.copy(ROOT / name, to)


def each(copies: Sequence[Path], function: Callable[[Path, T], R], items: Iterable[T]) -> list[R]:
    """`function` of a copy that nobody else uses and of each item."""
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
    """The tests pass without a change: or else every change would seem caught.

    Raises:
      SystemExit: they do not, or the arguments are wrong.
    """
    code, output = run_tests(copy, tests)
    if code != PASSED:
        raise SystemExit(f'without any change, pytest {tests} exits with {code}:\n{output}')


def attempt(copy: Path, mutation: Mutation) -> Outcome:
    """Makes the change, runs its tests, takes it back, says what came of it."""
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
    """Runs pytest in the copy until a test fails; its exit code and output, -1 if it hangs."""
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
    """A line of the table: verdict, seconds, file, the change, the test."""
    old, new = (text if len(text) <= WIDTH else f'{text[: WIDTH - 3]}...' for text in mutation[1:3])
    change = f'{mutation.file}: {old}  ->  {new}'
    return f'{outcome.verdict:<8} {outcome.seconds:5.0f} s  {change}  {outcome.test}'


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
