"""Reading what a run has stored: its model, its checkpoint steps, and parts of a checkpoint."""

import re
from pathlib import Path
from typing import Any, cast

import jax
from flax import nnx
from orbax.checkpoint import v1 as ocp

from gconet_jax.config import Config
from gconet_jax.errors import CheckpointError
from gconet_jax.models.gconet_plus import GCoNetPlus
from gconet_jax.training.config_file import read_config
from gconet_jax.training.state import Tree, abstract, averaged, saved_parts, with_parts


def load_model(
    workdir: Path, step: str = 'latest', *, ema: bool = False
) -> tuple[Config, GCoNetPlus, int]:
    """Return the config, the model and the step of a run's checkpoint.

    Args:
      workdir: folder of the run.
      step: as in `choose_steps`; if it matches several steps, the last one is loaded.
      ema: load the moving averages of the weights.

    Raises:
      CheckpointError: the run or the step does not exist, the run has no moving averages, or the
          checkpoint is broken or does not match the architecture in its config.
    """
    config = read_config(workdir)
    if ema and not config.train.ema:
        raise CheckpointError(f'{workdir} has no moving averages (train.ema=0): go without --ema')
    number = choose_steps(workdir, step)[-1]
    directory = workdir / 'checkpoints'
    graph, state = abstract(config)
    device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    form = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=device), saved_parts(state)
    )
    names = ('model', 'ema') if ema else ('model',)
    with ocp.training.Checkpointer(str(directory.absolute())) as checkpointer:
        loaded = load_parts(checkpointer, directory, number, {name: form[name] for name in names})
    state = with_parts(state, loaded)
    if ema:
        state = averaged(state)
    return config, nnx.merge(graph, state.params, state.frozen, state.batch_stats), number


def choose_steps(workdir: Path, which: str) -> list[int]:
    """Return the steps of a run's checkpoints that `which` selects, in ascending order.

    Args:
      workdir: folder of the run.
      which: a step, 'latest', 'best' (by S, among those scored during training), 'all', or 'last'
          and a number, such as 'last50' for the last 50.

    Raises:
      CheckpointError: no checkpoint matches.
    """
    directory = workdir / 'checkpoints'
    if not directory.is_dir():
        raise CheckpointError(f'{workdir} holds no checkpoints yet')
    smeasure: dict[int, float] = {}
    with ocp.training.Checkpointer(str(directory.absolute())) as checkpointer:
        for each in checkpointer.checkpoints:
            metrics = cast(dict[str, float], each.metrics or {})
            smeasure[each.step] = metrics.get('smeasure', -1.0)
    if not smeasure:
        raise CheckpointError(f'{directory} holds no finished checkpoint')
    steps = sorted(smeasure)
    if which == 'best':
        best = max(smeasure, key=smeasure.__getitem__)
        if smeasure[best] < 0:
            raise CheckpointError(f'{directory}: none was scored; see run.evaluate_every')
        return [best]
    last = re.fullmatch(r'last([1-9]\d*)', {'latest': 'last1'}.get(which, which))
    if last or which == 'all':
        return steps[-int(last[1]) :] if last else steps
    if which not in map(str, steps):
        raise CheckpointError(
            f"{directory} holds no step {which!r}; give 'latest', 'best', 'all', 'last50' or one "
            f'of {steps}'
        )
    return [int(which)]


def load_parts(
    checkpointer: ocp.training.Checkpointer, directory: Path, step: int, parts: dict[str, Any]
) -> dict[str, Any]:
    """Return `parts` of checkpoint `step` in `directory`.

    Args:
      checkpointer: the open checkpointer.
      directory: folder of the checkpoints.
      step: step of the checkpoint.
      parts: the parts to load, each in its expected structure.

    Raises:
      CheckpointError: the checkpoint is broken or of another architecture; the message names the
          entries.
    """
    path = directory / str(step)
    try:
        saved = checkpointer.checkpointables_metadata(step).metadata['model']
    except Exception as error:  # Orbax raises many types on a broken folder
        raise _broken(path, error) from error
    if not jax.tree.leaves(saved):
        raise _broken(path, ValueError('its metadata lists no arrays'))
    mismatches = _mismatches(parts['model'], saved)
    if mismatches:
        raise CheckpointError(
            f'{path} is of another architecture than the config; {len(mismatches)} entries '
            'differ:\n  ' + '\n  '.join(mismatches[:20])
        )
    try:
        return checkpointer.load_checkpointables(step, parts)
    except Exception as error:
        raise _broken(path, error) from error


def _broken(path: Path, error: Exception) -> CheckpointError:
    return CheckpointError(
        f'{path} is broken ({type(error).__name__}: {str(error)[:300]}); '
        'remove it to go on from the checkpoint before it'
    )


def _mismatches(wanted: Tree, saved: Any) -> list[str]:
    def shapes(tree):
        leaves = jax.tree_util.tree_leaves_with_path(tree)
        return {'/'.join(_key(k) for k in path): tuple(leaf.shape) for path, leaf in leaves}

    there, here = shapes(saved), shapes(wanted)
    return [
        f'{name}: {there.get(name, "absent")} in the checkpoint, {here.get(name, "absent")} needed'
        for name in sorted(there.keys() | here.keys())
        if there.get(name) != here.get(name)
    ]


def _key(entry: Any) -> str:
    return str(getattr(entry, 'key', getattr(entry, 'name', getattr(entry, 'idx', entry))))
