"""Checkpoints of a run, by Orbax: `workdir/checkpoints/<step>`.

A checkpoint holds these apart: `model` (parameters and running statistics, all that inference
reads), `ema` (the same as moving averages, if the run keeps them), `optimizer`, and `data` (the
position in the stream of batches). None depends on the number of devices or processes.
"""

import functools
import re
import shutil
import time
from pathlib import Path
from typing import Any, cast

import jax
import jax.numpy as jnp
from flax import nnx
from orbax.checkpoint import v1 as ocp

from gconet_jax.config import Config, RunConfig
from gconet_jax.errors import CheckpointError
from gconet_jax.input_pipeline.loader import TrainIterator
from gconet_jax.models.gconet_plus import GCoNetPlus
from gconet_jax.training.config_file import read_config
from gconet_jax.training.progress import say
from gconet_jax.training.state import TrainState, Tree, abstract, averaged, saved_parts, with_parts

policies = ocp.training.save_decision_policies
preservation = ocp.training.preservation_policies


class Checkpoints:
    """The checkpoints of one run, while it trains. Saves go on in the background."""

    def __init__(self, workdir: Path, config: RunConfig):
        self._directory = workdir / 'checkpoints'
        self._saving: tuple[int, ocp.AsyncResponse] | None = None
        self._failed_steps: list[int] = []  # since the last save that began well
        keep = [
            preservation.LatestN(config.keep_latest),
            preservation.BestN(
                get_metric_fn=lambda metrics: metrics['smeasure'],
                n=config.keep_best,
                keep_checkpoints_without_metrics=False,
            ),
        ]
        if config.keep_every:
            keep.append(preservation.EveryNSteps(config.keep_every))
        self._checkpointer = ocp.training.Checkpointer(
            str(self._directory.absolute()),
            # Orbax's policies are of a wider type than the arguments that they are made for.
            save_decision_policy=policies.FixedIntervalPolicy(config.checkpoint_every),  # pyright: ignore
            preservation_policy=preservation.AnyPreservationPolicy(keep),  # pyright: ignore
            cleanup_tmp_directories=True,
        )

    def save(
        self,
        step: int,
        state: TrainState,
        batches: TrainIterator,
        *,
        last: bool = False,
        smeasure: float | None = None,
    ) -> None:
        """Saves if the interval says so, if there is a score to keep it by, or if it is the last.

        A save that fails is told and tried again at the next one; the last one raises.
        `step` is that of `state`, which is not asked for it: that would wait for the device.

        Raises:
          CheckpointError: the last save failed; what is still there is named.
        """
        latest = self._checkpointer.latest
        if latest is not None and latest.step == step:
            return
        if not (last or smeasure is not None or self._checkpointer.should_save(step)):
            return
        self.wait()
        # The next step consumes the state's buffers, which a save on a CPU may still read.
        parts = jax.tree.map(jnp.copy, saved_parts(state)) | {'data': batches.get_state()}
        metrics: Any = None if smeasure is None else {'smeasure': smeasure}
        try:
            response = self._start(step, parts, metrics)
        except Exception as error:  # whatever a full or broken disk makes Orbax raise
            self._failed(step, error, last=last)
            return
        self._saving = None if response is None else (step, response)
        if last:
            self.wait(last=True)

    def _start(self, step: int, parts: dict[str, Any], metrics: Any) -> Any:
        save = functools.partial(
            self._checkpointer.save_checkpointables_async, step, parts, force=True, metrics=metrics
        )
        if not self._failed_steps:
            return save()
        self._sweep()
        try:
            return save()
        except Exception:  # Orbax begins by raising what the save before raised
            return save()

    def wait(self, *, last: bool = False) -> None:
        """Waits for the save in progress."""
        if self._saving is None:
            return
        (step, response), self._saving = self._saving, None
        try:
            response.result()
        except Exception as error:
            self._failed(step, error, last=last)

    def _failed(self, step: int, error: Exception, *, last: bool) -> None:
        self._failed_steps.append(step)
        latest = self._checkpointer.latest
        kept = 'there is none before it' if latest is None else f'step {latest.step} is whole'
        text = f'Step {step} could not be saved in {self._directory}, {kept}: {str(error)[:300]}'
        if last:
            raise CheckpointError(f'{text}. Make room; the same command goes on from there')
        say(f'{text}. Training goes on')

    def restore(self, state: TrainState, batches: TrainIterator) -> TrainState:
        """The latest checkpoint in the form of `state`, with `batches` moved on; or `state`."""
        latest = self._checkpointer.latest
        if latest is None:
            return state
        form = saved_parts(state) | {'data': batches.get_state()}
        parts = _load(self._checkpointer, self._directory, latest.step, form)
        batches.set_state(parts['data'])
        return with_parts(state, parts)

    def close(self) -> None:
        """Waits for saves in progress."""
        self.wait()
        try:
            self._checkpointer.close()
        except Exception:  # Orbax raises what a failed save raised once more
            if not self._failed_steps:
                raise
        self._sweep()

    def _sweep(self) -> None:
        """Removes what failed saves have written, which would fill the disk for nothing."""
        if jax.process_index() == 0 and self._failed_steps:
            for _ in range(10):  # the save's other writes go on for a moment, and make folders anew
                for step in self._failed_steps:
                    for left in self._directory.glob(f'{step}.orbax-checkpoint-tmp*'):
                        shutil.rmtree(left, ignore_errors=True)
                time.sleep(0.1)
        self._failed_steps = []


def load_model(
    workdir: Path, step: str = 'latest', *, ema: bool = False
) -> tuple[Config, GCoNetPlus, int]:
    """The config, the model and the step of a run's checkpoint.

    `step` is as for `choose_steps`; of several, the last is loaded. With `ema` the model has the
    moving averages of its weights.

    Raises:
      CheckpointError: as its message says.
    """
    config = read_config(workdir)
    number = choose_steps(workdir, step)[-1]
    directory = workdir / 'checkpoints'
    graph, state = abstract(config)
    device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    form = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=device), saved_parts(state)
    )
    names = ('model', 'ema') if ema else ('model',)
    with ocp.training.Checkpointer(str(directory.absolute())) as checkpointer:
        loaded = _load(checkpointer, directory, number, {name: form[name] for name in names})
    state = with_parts(state, loaded)
    if ema:
        state = averaged(state)
    return config, nnx.merge(graph, state.params, state.frozen, state.batch_stats), number


def choose_steps(workdir: Path, which: str) -> list[int]:
    """The steps of a run's checkpoints that `which` means, rising.

    `which` is a step, 'latest', 'best' (by S, of those scored on the way), 'all', or 'last' and a
    number: the last 50 are 'last50'.

    Raises:
      CheckpointError: there is none such.
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
