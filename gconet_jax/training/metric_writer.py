"""Scalars and pictures of a run: JSON lines, TensorBoard and, optionally, Weights & Biases."""

import hashlib
import importlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from PIL import Image
from tensorboardX import SummaryWriter

from gconet_jax.config import ConfigError


class MetricWriter:
    """Writer to `workdir/metrics.jsonl`, to TensorBoard and, optionally, to Weights & Biases.

    The TensorBoard log is in `workdir/tensorboard`. Only the first process writes. `wandb` names a
    Weights & Biases project; a resumed run continues its log there.

    Raises:
      ConfigError: `wandb` is set but the package is not installed.
    """

    def __init__(self, workdir: Path, *, wandb: str = '', config: Mapping[str, Any] | None = None):
        self._writes = jax.process_index() == 0
        if not self._writes:
            return
        self._wandb = _wandb_run(workdir, wandb, config) if wandb else None
        self._workdir = workdir
        self._lines = (workdir / 'metrics.jsonl').open('a', encoding='utf-8')
        self._tensorboard = SummaryWriter(str(workdir / 'tensorboard'))

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        """Write the scalars of `step`; the JSON line is on disk when this returns."""
        if not self._writes:
            return
        self._lines.write(json.dumps({'step': step, **scalars}) + '\n')
        self._lines.flush()
        for name, value in scalars.items():
            self._tensorboard.add_scalar(name, value, step)
        if self._wandb is not None:
            self._wandb.log(dict(scalars), step=step)

    def picture(self, step: int, picture: Image.Image) -> None:
        """Write `workdir/pictures/<step>.png`, and the picture to the logs that accept pictures."""
        if not self._writes:
            return
        path = self._workdir / 'pictures' / f'{step}.png'
        path.parent.mkdir(exist_ok=True)
        picture.save(path)
        self._tensorboard.add_image('maps', np.asarray(picture), step, dataformats='HWC')
        if self._wandb is not None:
            self._wandb.log({'maps': importlib.import_module('wandb').Image(picture)}, step=step)

    def close(self) -> None:
        """Close the files; everything written is flushed."""
        if not self._writes:
            return
        self._lines.close()
        self._tensorboard.close()
        if self._wandb is not None:
            self._wandb.finish()


def _wandb_run(workdir: Path, project: str, config: Mapping[str, Any] | None) -> Any:
    try:
        wandb = importlib.import_module('wandb')
    except ImportError as error:
        raise ConfigError("config.run.wandb: needs `pip install wandb`, or set it to ''") from error
    place = hashlib.blake2b(str(workdir.absolute()).encode(), digest_size=4).hexdigest()
    name = workdir.absolute().name
    return wandb.init(
        project=project,
        name=name,
        id=f'{name}-{place}',
        dir=str(workdir),
        config=dict(config or {}),
        resume='allow',
    )
