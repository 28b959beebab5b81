"""The sets that a config names: their groups, and the class label of each."""

from gconet_jax.config import DataConfig
from gconet_jax.input_pipeline.groups import Group, load_groups, select

Sets = list[tuple[Group, ...]]


def training_sets(config: DataConfig) -> tuple[Sets, list[tuple[int, ...]]]:
    """Groups and class labels of every entry of `config.train_sets`.

    'A+B' pools two sets into one. Labels number the groups; 'joint' goes on counting from set to
    set, 'per_set' starts each at 0, as the released code does, so that sets share classes.

    Raises:
      DataError: as `load_groups` and `select`.
    """
    sets = []
    for entry in config.train_sets:
        groups = [g for name in entry.split('+') for g in load_groups(config.root, name)]
        sets.append(select(groups, exclude=config.exclude))
    labels, first = [], 0
    for groups in sets:
        labels.append(tuple(range(first, first + len(groups))))
        first += len(groups) if config.labels == 'joint' else 0
    return sets, labels


def evaluation_sets(config: DataConfig, *, with_masks: bool) -> dict[str, tuple[Group, ...]]:
    """The groups to score, by set."""
    return {
        name: select(
            load_groups(config.root, name, with_masks=with_masks), include=config.eval_include
        )
        for name in config.eval_sets
    }
