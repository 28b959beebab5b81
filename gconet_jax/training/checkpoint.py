"""Checkpoints of a run, written by Orbax to `workdir/checkpoints/<step>`.

A checkpoint stores these parts separately:

- `model`: parameters and running statistics, all that inference reads;
- `ema`: their moving averages, if the run keeps them;
- `optimizer`;
- `data`: the position in the stream of batches.

No part depends on the number of devices or processes.
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
    """The checkpoints of a run in training. Saves run in the background."""

    def __init__(self, workdir: Path, config: RunConfig):
        self._directory = workdir / 'checkpoints'
        self._saving: tuple[int, ocp.AsyncResponse] | None = None
        self._failed_steps: list[int] = []  # since the last save that started without an error
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
            # Orbax annotates its policies with a wider type than its own arguments accept.
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
        """Save if the interval is due, `smeasure` is given, or `last` is set.

        A failed save is reported and retried at the next save; a failed last save raises.

        Args:
          step: step of `state`. Reading it from `state` would wait for the device.
          state: what to save.
          batches: the stream of batches, whose position is saved too.
          last: whether this is the last save of the run; waits until it is written.
          smeasure: score to rank the checkpoint by, in [0, 1].

        Raises:
          CheckpointError: the last save failed; the message names the latest complete step.
        """
        latest = self._checkpointer.latest
        if latest is not None and latest.step == step:
            return
        if not (last or smeasure is not None or self._checkpointer.should_save(step)):
            return
        self.wait()
        wait_for_processes(f'saving step {step}')
        # The next step donates the state's buffers, which a save on a CPU may still be reading.
        parts = jax.tree.map(jnp.copy, saved_parts(state)) | {'data': batches.get_state()}
        metrics: Any = None if smeasure is None else {'smeasure': smeasure}
        try:
            response = self._start(step, parts, metrics)
        except Exception as error:  # Orbax raises many types on a full or broken disk
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
        except Exception:  # Orbax first re-raises the error of the previous save
            return save()

    def wait(self, *, last: bool = False) -> None:
        """Wait for the save in progress."""
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
        """Return the latest checkpoint as `state` and move `batches` to it, or return `state`."""
        latest = self._checkpointer.latest
        if latest is None:
            return state
        form = saved_parts(state) | {'data': batches.get_state()}
        wait_for_processes(f'loading step {latest.step}')
        parts = load_parts(self._checkpointer, self._directory, latest.step, form)
        batches.set_state(parts['data'])
        return with_parts(state, parts)

    def close(self) -> None:
        """Wait for saves in progress and close Orbax."""
        self.wait()
        try:
            self._checkpointer.close()
        except Exception:  # Orbax raises the error of a failed save again
            if not self._failed_steps:
                raise
        self._sweep()

    def _sweep(self) -> None:
        """Delete the partial files of failed saves, which would otherwise fill the disk."""
        if jax.process_index() == 0 and self._failed_steps:
            for _ in range(10):  # pending writes of the failed save may still create folders
                for step in self._failed_steps:
                    for left in self._directory.glob(f'{step}.orbax-checkpoint-tmp*'):
                        shutil.rmtree(left, ignore_errors=True)
                time.sleep(0.1)
        self._failed_steps = []
