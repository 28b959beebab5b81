"""What stops a run early: signals, and values that are not finite."""

import signal
import threading
from collections.abc import Sequence
from types import FrameType
from typing import Any, Self

import jax
import numpy as np
from jax.experimental import multihost_utils

from gconet_jax.errors import InputError
from gconet_jax.input_pipeline.loader import TrainIterator
from gconet_jax.input_pipeline.sets import TrainingSet
from gconet_jax.training.distributed import wait_for_processes
from gconet_jax.training.progress import say
from gconet_jax.training.state import Skipped


class TrainingError(InputError):
    """Training cannot continue; the message says why and what may help."""


class Interruption:
    """Context in which SIGTERM and SIGINT only set `asked`, so that the step finishes and is saved.

    A second signal has its usual effect. Outside the main thread this does nothing.
    """

    def __init__(self) -> None:
        self.asked = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def asked_at(self, step: int, *, every: int) -> bool:
        """Return True if the run should stop after `step`; all processes get the same answer.

        With several processes this communicates only at multiples of `every`, because it makes them
        wait for their devices.
        """
        if jax.process_count() == 1:
            return self.asked
        if step % every:
            return False
        wait_for_processes(f'the end of step {step}')
        return bool(multihost_utils.process_allgather(np.asarray(self.asked)).any())

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.asked = True
        signal.signal(number, self._before[number])


class SkipWatch:
    """Report skipped updates, and stop the run after too many in a row."""

    def __init__(self, skipped: Skipped, most_in_a_row: int) -> None:
        self._known, self._most = int(skipped.loss) + int(skipped.gradient), most_in_a_row

    def look(
        self, skipped: Skipped, sets: Sequence[TrainingSet], batches: TrainIterator
    ) -> dict[str, float]:
        """Return the counts as scalars; waits for the device.

        Raises:
          TrainingError: too many updates in a row were skipped; the message names the last groups.
        """
        loss, gradient = int(skipped.loss), int(skipped.gradient)
        if loss + gradient > self._known:
            step = int(skipped.last)
            keys = [
                each.groups[index].key
                for each, pair in zip(sets, batches.pairs(step), strict=True)
                for index in pair.groups
            ]
            text = (
                f'{loss + gradient - self._known} updates were skipped, for the loss or its '
                f'gradient was not finite; the last at step {step + 1}, groups {", ".join(keys)}'
            )
            self._known = loss + gradient
            if int(skipped.in_a_row) >= self._most:
                raise TrainingError(
                    f'{text}. That makes {int(skipped.in_a_row)} in a row: lower '
                    'train.learning_rate, or set train.clip_norm'
                )
            say(text)
        return {'skipped_loss': float(loss), 'skipped_gradient': float(gradient)}
