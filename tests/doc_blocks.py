"""Extraction of the code and the commands that the documentation shows."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent
PAGES = (ROOT / 'README.md', *sorted((ROOT / 'docs').glob('*.md')))

PROGRAMS = ('python', 'gconet-jax', 'make', 'pip')
ASSIGNMENT = re.compile(r'\w+=\S*')


class Command(NamedTuple):
    """A command of a page, without any text before the program in its line."""

    page: str
    words: tuple[str, ...]

    @property
    def script(self) -> str:
        """The file that it runs, or ''."""
        return self.words[1] if self.words[0] == 'python' else ''

    def __str__(self) -> str:
        return f'{self.page}: {shlex.join(self.words)}'


def blocks(page: Path, language: str) -> list[str]:
    """Return the fenced blocks of a page in one language; '' means no language."""
    fences = re.findall(r'^```(\w*)\n(.*?)^```$', page.read_text(), re.DOTALL | re.MULTILINE)
    return [text for name, text in fences if name == language]


def commands() -> list[Command]:
    """Return every command of the pages, in order, from fenced blocks and inline code."""
    found = []
    for page in PAGES:
        lines = [line for text in blocks(page, '') for line in _lines(text)]
        prose = re.sub(r'^```.*?^```$', '', page.read_text(), flags=re.DOTALL | re.MULTILINE)
        lines += [' '.join(code.split()) for code in re.findall(r'`([^`]+)`', prose)]
        for line in lines:
            words = _words(line)
            if len(words) > 1:
                found.append(Command(page.name, words))
    return list(dict.fromkeys(found))


def _lines(text: str) -> Iterator[str]:
    yield from text.replace('\\\n', ' ').splitlines()


def _words(line: str) -> tuple[str, ...]:
    """Split a line from the program on; () if it runs none of PROGRAMS."""
    try:
        words = shlex.split(line, comments=True)
    except ValueError:  # prose with an apostrophe
        return ()
    launched = words[:1] in (['srun'], ['mpirun'])
    for place, word in enumerate(words):
        if word in PROGRAMS:
            return tuple(words[place:])
        if not launched and not ASSIGNMENT.fullmatch(word):
            return ()
    return ()
