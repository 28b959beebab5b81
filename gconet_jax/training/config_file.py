"""The config of a run in `workdir/config.json`, and the check that a resumed run matches it."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import jax

from gconet_jax.config import Config
from gconet_jax.config_dict import from_config_dict
from gconet_jax.errors import CheckpointError
from gconet_jax.whole_file import whole_file

# Fields that may change when a run resumes, in addition to all of `run`: they say where files are,
# or select between implementations of the same computation.
PLACES = (
    'model.affinity',
    'data.root',
    'data.eval_sets',
    'data.eval_include',
    'data.cache',
    'data.cache_dir',
    'data.workers',
    'train.backbone_weights',
    'train.initial_weights',
)
# With a constant learning rate the length of the run may change as well.
LENGTHS = ('train.steps', 'train.epochs')


def write_config(workdir: Path, config: Config) -> None:
    """Write the run's config to `workdir`, or compare it with the one stored there.

    Raises:
      CheckpointError: `workdir` holds a run with another config; the message names the fields.
    """
    path = workdir / 'config.json'
    if path.is_file():
        noted = _fields(read_config(workdir))
        free = PLACES + (LENGTHS if config.train.schedule == 'constant' else ())
        differ = [
            f'{name} is {noted[name]!r} there and {value!r} here'
            for name, value in _fields(config).items()
            if noted[name] != value and name not in free
        ]
        if differ:
            raise CheckpointError(
                f'{workdir} holds a run of another config: {"; ".join(differ)}. Give another '
                f'--workdir, or the values of {path}'
            )
    if jax.process_index() == 0:
        with whole_file(path) as partial:
            text = json.dumps(dataclasses.asdict(config), indent=2) + '\n'
            partial.write_text(text, encoding='utf-8')


def _fields(config: Config) -> dict[str, Any]:
    """Return every field except those of `run`, keyed by its full name."""
    sections = {name: dataclasses.asdict(section) for name, section in vars(config).items()}
    del sections['run']
    return {f'{a}.{b}': value for a, section in sections.items() for b, value in section.items()}


def read_config(workdir: Path) -> Config:
    """Return the config of the run in `workdir`.

    Raises:
      CheckpointError: the config is missing or broken.
    """
    path = workdir / 'config.json'
    if not path.is_file():
        raise CheckpointError(f'{workdir} holds no run: there is no {path}')
    try:
        return from_config_dict(json.loads(path.read_text(encoding='utf-8')))
    except ValueError as error:
        raise CheckpointError(f'{path} is broken: {error}') from error
