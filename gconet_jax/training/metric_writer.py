"""Scalars of a run, as JSON lines and for TensorBoard, and how fast it goes."""

import contextlib
import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from tensorboardX import SummaryWriter


class MetricWriter:
    """Appends to `workdir/metrics.jsonl` and to a TensorBoard log in `workdir/tensorboard`."""

    def __init__(self, workdir: Path):
        self._lines = (workdir / 'metrics.jsonl').open('a')
        self._tensorboard = SummaryWriter(str(workdir / 'tensorboard'))

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        """Writes the scalars of `step`; a line is on disk when this returns."""
        self._lines.write(json.dumps({'step': step, **scalars}) + '\n')
        self._lines.flush()
        for name, value in scalars.items():
            self._tensorboard.add_scalar(name, value, step)

    def close(self) -> None:
        self._lines.close()
        self._tensorboard.close()


class Pace:
    """How fast the steps since the last report went, and how much of the time data took.

    Attributes:
      steps: to be counted up by the caller.
    """

    def __init__(self):
        self.steps, self._waited, self._since = 0, 0.0, time.perf_counter()

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Counts the time within as waiting for data."""
        start = time.perf_counter()
        yield
        self._waited += time.perf_counter() - start

    def report(self) -> dict[str, float]:
        """`steps_per_second` and `waiting`, a share of the time; begins anew."""
        elapsed = time.perf_counter() - self._since
        scalars = {'steps_per_second': self.steps / elapsed, 'waiting': self._waited / elapsed}
        self.steps, self._waited, self._since = 0, 0.0, time.perf_counter()
        return scalars
