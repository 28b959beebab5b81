"""Scalars of a run, as JSON lines and for TensorBoard."""

import json
from collections.abc import Mapping
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
