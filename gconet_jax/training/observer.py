"""Logging, scoring and saving between two steps, each at its own interval."""

import dataclasses
import tempfile
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np
from flax import nnx
from jax.experimental import multihost_utils
from PIL import Image

from gconet_jax.config import Config
from gconet_jax.evaluation import evaluator, pictures, tables
from gconet_jax.evaluation.scores import SetScores, mean_smeasure
from gconet_jax.input_pipeline.loader import TrainIterator
from gconet_jax.input_pipeline.sets import TrainingSet, evaluation_sets
from gconet_jax.training.checkpoint import Checkpoints
from gconet_jax.training.distributed import wait_for_processes
from gconet_jax.training.metric_writer import MetricWriter
from gconet_jax.training.progress import Progress, say
from gconet_jax.training.safeguards import SkipWatch
from gconet_jax.training.state import TrainState, Tree, averaged
from gconet_jax.training.step import Metrics

SHOWN = 4  # images per group in a picture


class Observer:
    """Scalars, pictures, scores, profiler traces and checkpoints of a run.

    Maps come from the weights between two steps; the first process predicts them on one of its
    devices. Neither the state nor the stream of batches changes.

    Attributes:
      progress: the progress line of the run.
    """

    def __init__(
        self,
        config: Config,
        workdir: Path,
        graph: nnx.GraphDef,
        state: TrainState,
        sets: Sequence[TrainingSet],
        batches: TrainIterator,
        checkpoints: Checkpoints,
    ):
        first = int(state.step)
        self._run, self._workdir, self._steps = config.run, workdir, config.train.steps
        self._data = config.data
        self._sets, self._batches, self._checkpoints = sets, batches, checkpoints
        self._segment = evaluator.make_segment(graph)
        # Load the groups before the first step, so that missing data is reported now.
        self._eval_groups = (
            evaluation_sets(config.data, with_masks=True) if config.run.evaluate_every else {}
        )
        self._writer = MetricWriter(
            workdir, wandb=config.run.wandb, config=dataclasses.asdict(config)
        )
        self._watch = SkipWatch(state.skipped, config.run.max_skipped)
        self._tracing = False
        self.progress = Progress(first, config.train.steps)

    def before(self, step: int) -> None:
        """Prepare for step number `step`, counted from 1. Call this before the step."""
        first, last = self._run.profile or (0, 0)
        if first <= step <= last and not self._tracing:  # a run may resume within these steps
            jax.profiler.start_trace(str(self._workdir / 'profile'))
            self._tracing = True

    def after(self, step: int, state: TrainState, metrics: Metrics, *, last: bool) -> None:
        """Log, score and save what is due. Call this after step number `step`.

        Args:
          step: number of the step, counted from 1.
          state: state after the step.
          metrics: metrics of the step.
          last: whether the run ends or is interrupted here.

        Raises:
          TrainingError: too many updates in a row were skipped.
          CheckpointError: the last checkpoint could not be written.
        """
        if self._tracing and (last or step == self._run.profile[1]):
            jax.block_until_ready(state)
            jax.profiler.stop_trace()
            self._tracing = False
            say(f'Profile up to step {step} in {self._workdir / "profile"}')
        if last or step % self._run.log_every == 0:
            scalars = {name: float(value) for name, value in metrics.items()}
            scalars |= self._watch.look(state.skipped, self._sets, self._batches)
            scalars |= self.progress.report(scalars['loss'])
            self._writer.write(step, scalars)
        with self.progress.aside():
            if _is_due(step, self._run.picture_every, last=last):
                if jax.process_index() == 0:
                    self._writer.picture(step, self._picture(state))
                wait_for_processes(f'what follows the picture of step {step}')
            s = None
            if _is_due(step, self._run.evaluate_every, last=step == self._steps):
                s = self._evaluate(step, state)
        self._checkpoints.save(step, state, self._batches, last=last, smeasure=s)

    def close(self) -> None:
        """Close the progress line and the logs."""
        self.progress.close()
        self._writer.close()

    def _picture(self, state: TrainState) -> Image.Image:
        """Return `image | truth | map` for the pair of the first step, one row per group."""
        batch = self._batches.read(0)
        images, masks, valid = (batch[name][0] for name in ('image', 'mask', 'valid'))
        maps = np.asarray(self._segment(_weights(state), images, valid))
        grey = np.clip(maps * 255, 0, 255).astype(np.uint8)
        return pictures.sheet(
            [
                [
                    tuple(Image.fromarray(part[group, i]) for part in (images, masks, grey))
                    for i in np.flatnonzero(valid[group])[:SHOWN]
                ]
                for group in range(2)
            ]
        )

    def _evaluate(self, step: int, state: TrainState) -> float:
        """Score the weights and their moving averages; return the better mean S over the sets."""
        best = self._scores(step, state) if jax.process_index() == 0 else 0.0
        wait_for_processes(f'the scores of step {step}')
        return float(multihost_utils.broadcast_one_to_all(np.float32(best)))

    def _scores(self, step: int, state: TrainState) -> float:
        versions = {'': state} | ({'-ema': averaged(state)} if state.ema else {})
        folder = self._workdir / 'evaluations' / str(step)
        board: tables.Board = {dataset: {} for dataset in self._eval_groups}
        scalars, mean_s = {}, []
        for suffix, version in versions.items():
            scored = self._score(version, folder, suffix)
            summaries = {dataset: of.summary() for dataset, of in scored.items()}
            for dataset, of in scored.items():
                board[dataset][f'{self._workdir.name}{suffix}'] = [of]
            scalars |= {
                f'eval{suffix}/{dataset}/{metric}': value
                for dataset, summary in summaries.items()
                for metric, value in summary.items()
            }
            mean_s.append(mean_smeasure(summaries.values()))
        tables.write_tables(board, folder, self._data.train_sets)
        say(f'Step {step}\n{tables.text_table(board, self._data.train_sets)}')
        self._writer.write(step, scalars)
        return max(mean_s)

    def _score(self, state: TrainState, folder: Path, suffix: str) -> dict[str, SetScores]:
        """Score the sets; keep the sheets in `folder` and delete the maps."""

        def segment(images: np.ndarray, valid: np.ndarray) -> jax.Array:
            return self._segment(_weights(state), images, valid)

        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as maps:
            scores = evaluator.evaluate(
                segment,
                self._eval_groups,
                Path(maps),
                image_size=self._data.image_size,
                workers=self._data.workers,
            )
            for name, groups in self._eval_groups.items():
                pictures.comparison(Path(maps) / name, groups, folder / f'{name}{suffix}.png')
        return scores


def _is_due(step: int, every: int, *, last: bool) -> bool:
    return every > 0 and (last or step % every == 0)


def _weights(state: TrainState) -> tuple[Tree, ...]:
    """Return the weights on one device of this process, without a copy."""
    parts = (state.params, state.frozen, state.batch_stats)
    return jax.tree.map(lambda x: x.addressable_data(0), parts)
