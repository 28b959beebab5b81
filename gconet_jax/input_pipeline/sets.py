"""The sets of a config: their groups, class labels and pixel readers."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from gconet_jax.config import DataConfig
from gconet_jax.input_pipeline.cache import cached
from gconet_jax.input_pipeline.checks import check_groups
from gconet_jax.input_pipeline.files import DataError
from gconet_jax.input_pipeline.groups import (
    Group,
    load_groups,
    select,
    skippable_by,
)
from gconet_jax.input_pipeline.layouts import find_layout, find_prepared
from gconet_jax.input_pipeline.pixels import CacheReader, Decoder, Reader


class TrainingSet(NamedTuple):
    """One entry of `config.train_sets`.

    Attributes:
        groups: groups with masks.
        labels: class of each group.
        reader: reads the pixels of (group, image), indices into `groups` and its images.
    """

    groups: tuple[Group, ...]
    labels: tuple[int, ...]
    reader: Reader


def training_sets(config: DataConfig) -> list[TrainingSet]:
    """Load every entry of `config.train_sets`, with its images in caches if the config asks for it.

    'A+B' pools two sets. Labels number the groups. With 'joint' the numbers continue from set to
    set; with 'per_set' they restart at 0, as in the released code, so that sets share classes.

    Every image is decoded now or when its cache is built, so broken files are found here.

    Raises:
      DataError: as in `load_groups`, `select`, `check_groups` and `cached`.
    """
    sets, first = [], 0
    for entry in config.train_sets:
        groups, reader = _with_reader(entry.split('+'), config)
        labels = tuple(range(first, first + len(groups)))
        sets.append(TrainingSet(groups, labels, reader))
        first += len(groups) if config.labels == 'joint' else 0
    return sets


def evaluation_sets(config: DataConfig, *, with_masks: bool) -> dict[str, tuple[Group, ...]]:
    """Return the groups to score, by set."""
    return {
        name: select(
            load_groups(config.root, name, with_masks=with_masks), include=config.eval_include
        )
        for name in config.eval_sets
    }


def present_sets(root: str | Path, names: Sequence[str]) -> tuple[str, ...]:
    """Return the names of the sets that exist in `root`.

    Raises:
      DataError: none of them exists.
    """
    present = tuple(name for name in names if _is_present(Path(root), name))
    if not present:
        find_layout(Path(root), names[0])  # raises an error that lists what exists
    return present


def _is_present(root: Path, name: str) -> bool:
    try:
        return find_prepared(root, name) is not None or bool(find_layout(root, name))
    except DataError:
        return False


@skippable_by("data.bad_files='skip'")
def _with_reader(names: Sequence[str], config: DataConfig) -> tuple[tuple[Group, ...], Reader]:
    skip_bad = config.bad_files == 'skip'
    root = Path(config.root).resolve()  # so that other spellings of the path find the same cache
    loaded = [load_groups(root, name, skip_bad=skip_bad) for name in names]
    if not config.cache:
        groups = select([g for groups in loaded for g in groups], exclude=config.exclude)
        groups = check_groups(groups, skip_bad=skip_bad)
        return groups, Decoder(groups, config.image_size)
    folder = Path(config.cache_dir or root / '.cache')
    places: dict[str, tuple[Path, np.ndarray]] = {}
    whole: list[Group] = []
    for groups in loaded:
        # Cache the whole set, so that changing `exclude` does not need another cache.
        cache = cached(groups, image_size=config.image_size, folder=folder, skip_bad=skip_bad)
        whole += cache.groups
        places |= {
            group.key: (cache.folder, rows)
            for group, rows in zip(cache.groups, cache.rows, strict=True)
        }
    groups = select(whole, exclude=config.exclude)
    return groups, CacheReader([places[group.key] for group in groups])
