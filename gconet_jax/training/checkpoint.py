"""Checkpoints of a run, by Orbax: `workdir/checkpoints/<step>` and `workdir/config.json`.

A checkpoint holds three things apart: `model` (parameters and running statistics, all that
inference reads), `optimizer`, and `data` (the position in the stream of batches).
"""

import dataclasses
import json
from pathlib import Path
from typing import Any

import grain
import jax
import jax.numpy as jnp
from flax import nnx
from orbax.checkpoint import v1 as ocp

from gconet_jax.config import Config, from_config_dict
from gconet_jax.errors import InputError
from gconet_jax.models.gconet_plus import GCoNetPlus
from gconet_jax.training.state import TrainState, Tree

policies = ocp.training.save_decision_policies
preservation = ocp.training.preservation_policies


class CheckpointError(InputError):
    """A checkpoint is missing, broken, or of another model; the message names it."""


def write_config(workdir: Path, config: Config) -> None:
    """Notes the run's config in `workdir`, or compares it with the one that is there.

    Raises:
      CheckpointError: `workdir` holds a run of another architecture; the fields are named.
    """
    path = workdir / 'config.json'
    if path.is_file():
        noted = dataclasses.asdict(read_config(workdir).model)
        wanted = dataclasses.asdict(config.model)
        differ = [f'model.{n}: {noted[n]!r} there' for n in noted if noted[n] != wanted[n]]
        if differ:
            raise CheckpointError(
                f'{workdir} holds a run of another architecture ({"; ".join(differ)}); '
                'give another --workdir, or these values'
            )
    workdir.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix('.json.part')
    partial.write_text(json.dumps(dataclasses.asdict(config), indent=2) + '\n')
    partial.rename(path)


def read_config(workdir: Path) -> Config:
    """The config of the run in `workdir`.

    Raises:
      CheckpointError: there is none, or it is broken.
    """
    path = workdir / 'config.json'
    if not path.is_file():
        raise CheckpointError(f'{workdir} holds no run: there is no {path}')
    try:
        return from_config_dict(json.loads(path.read_text()))
    except ValueError as error:
        raise CheckpointError(f'{path} is broken: {error}') from error


class Checkpoints:
    """The checkpoints of one run, while it trains. Saves go on in the background."""

    def __init__(self, workdir: Path, *, every: int, keep: int):
        self._directory = workdir / 'checkpoints'
        self._checkpointer = ocp.training.Checkpointer(
            str(self._directory.absolute()),
            # Orbax's policies are of a wider type than the arguments that they are made for.
            save_decision_policy=policies.FixedIntervalPolicy(every),  # pyright: ignore
            preservation_policy=preservation.LatestN(keep),  # pyright: ignore
            cleanup_tmp_directories=True,
        )

    def save(
        self, step: int, state: TrainState, batches: grain.DatasetIterator, *, force: bool
    ) -> None:
        """Saves if the interval says so, or if forced and the step is not saved yet.

        `step` is that of `state`, which is not asked for it: that would wait for the device.
        """
        latest = self._checkpointer.latest
        if latest is not None and latest.step == step:
            return
        if force or self._checkpointer.should_save(step):
            # The next step consumes the state's buffers, which a save on a CPU may still read.
            model, optimizer = jax.tree.map(jnp.copy, _parts(state))
            parts = {'model': model, 'optimizer': optimizer, 'data': batches}
            self._checkpointer.save_checkpointables_async(step, parts, force=force)

    def restore(self, state: TrainState, batches: grain.DatasetIterator) -> TrainState:
        """The latest checkpoint in the form of `state`, with `batches` moved on; or `state`."""
        latest = self._checkpointer.latest
        if latest is None:
            return state
        model, optimizer = _parts(state)
        parts = _load(
            self._checkpointer,
            self._directory,
            latest.step,
            {'model': model, 'optimizer': optimizer, 'data': batches},
        )
        params = parts['model']['params']
        return TrainState(
            step=jnp.asarray(parts['optimizer']['step']),
            params=_like(state.params, params),
            frozen=_like(state.frozen, params),
            batch_stats=parts['model']['batch_stats'],
            opt_state=parts['optimizer']['opt_state'],
            skipped=parts['optimizer']['skipped'],
        )

    def close(self) -> None:
        """Waits for saves in progress."""
        self._checkpointer.close()


def load_model(workdir: Path, step: int | None = None) -> tuple[Config, GCoNetPlus, int]:
    """The config, the model and the step of a run's checkpoint, the latest by default.

    Raises:
      CheckpointError: as its message says.
    """
    config = read_config(workdir)
    directory = workdir / 'checkpoints'
    if not directory.is_dir():
        raise CheckpointError(f'{workdir} holds no checkpoints yet')
    checkpointer = ocp.training.Checkpointer(str(directory.absolute()))
    steps = [checkpoint.step for checkpoint in checkpointer.checkpoints]
    if not steps:
        raise CheckpointError(f'{directory} holds no finished checkpoint')
    step = max(steps) if step is None else step
    if step not in steps:
        raise CheckpointError(f'{directory} holds no step {step}; it has {sorted(steps)}')

    abstract = nnx.eval_shape(lambda: GCoNetPlus(config.model, rngs=nnx.Rngs(0)))
    graph, params, batch_stats = nnx.split(abstract, nnx.Param, nnx.BatchStat)
    form = {'params': nnx.to_pure_dict(params), 'batch_stats': nnx.to_pure_dict(batch_stats)}
    device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    form = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=device), form)
    model = _load(checkpointer, directory, step, {'model': form})['model']
    checkpointer.close()
    return config, nnx.merge(graph, model['params'], model['batch_stats']), step


def _parts(state: TrainState) -> tuple[Tree, Tree]:
    """The state as it is saved: what the model is, and what only training needs.

    Whether a parameter is frozen is a matter of the run and not of the model.
    """
    params = _join(state.params, state.frozen)
    model = {'params': params, 'batch_stats': state.batch_stats}
    rest = {'step': state.step, 'opt_state': state.opt_state, 'skipped': state.skipped}
    return model, rest


def _load(
    checkpointer: ocp.training.Checkpointer, directory: Path, step: int, parts: dict[str, Any]
) -> dict[str, Any]:
    """Loads `parts`, given in their expected form."""
    path = directory / str(step)
    try:
        saved = checkpointer.checkpointables_metadata(step).metadata['model']
    except Exception as error:  # whatever a broken folder makes Orbax raise
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


def _join(left: Tree, right: Tree) -> Tree:
    """Two nested dicts with different leaves as one."""
    joined = dict(left)
    for name, child in right.items():
        joined[name] = _join(left[name], child) if name in left else child
    return joined


def _like(form: Tree, values: Tree) -> Tree:
    """The part of `values` that `form` has."""
    return {
        name: _like(child, values[name]) if isinstance(child, dict) else values[name]
        for name, child in form.items()
    }
