"""Checkpoints of a run, by Orbax: `workdir/checkpoints/<step>`.

A checkpoint holds these apart: `model` (parameters and running statistics, all that inference
reads), `ema` (the same as moving averages, if the run keeps them), `optimizer`, and `data` (the
position in the stream of batches). None depends on the number of devices or processes.
"""

import functools
import shutil
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from orbax.checkpoint import v1 as ocp

from gconet_jax.config import RunConfig
from gconet_jax.errors import CheckpointError
from gconet_jax.input_pipeline.loader import TrainIterator
from gconet_jax.training.distributed import wait_for_processes
from gconet_jax.training.progress import say
from gconet_jax.training.restore import load_parts
from gconet_jax.training.state import TrainState, saved_parts, with_parts

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
        wait_for_processes('opening the checkpoints')
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
        wait_for_processes(f'saving step {step}')
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
        wait_for_processes(f'loading step {latest.step}')
        parts = load_parts(self._checkpointer, self._directory, latest.step, form)
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
