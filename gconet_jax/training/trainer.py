"""The training run: data, model, state, then step after step."""

import dataclasses
from pathlib import Path

import jax
from flax import nnx
from jax.sharding import Mesh
from tqdm import tqdm

from gconet_jax.config import Config, ConfigError
from gconet_jax.input_pipeline.augment import make_augment
from gconet_jax.input_pipeline.loader import TrainIterator, make_train_iterator
from gconet_jax.input_pipeline.sets import TrainingSet, training_sets
from gconet_jax.models.gconet_plus import GCoNetPlus
from gconet_jax.training import checkpoint, state
from gconet_jax.training.mesh import (
    batch_shardings,
    make_mesh,
    part_of_process,
    put_batch,
    replicated,
)
from gconet_jax.training.metric_writer import MetricWriter, Pace
from gconet_jax.training.safeguards import Interruption, SkipWatch
from gconet_jax.training.step import make_train_step
from gconet_jax.weights.vgg import load_backbone


def train(config: Config, workdir: Path) -> state.TrainState:
    """Trains to the last step of `config`, from the latest checkpoint in `workdir` if there is one.

    Raises:
      InputError: bad config, data, weights or checkpoints, before the first step where possible.
    """
    sets = training_sets(config.data)
    _check_classes(config, sets)
    checkpoint.write_config(workdir, config)
    steps = _total_steps(config, [len(each.groups) for each in sets])
    config = dataclasses.replace(config, train=dataclasses.replace(config.train, steps=steps))
    checkpoints = checkpoint.Checkpoints(
        workdir, every=config.train.checkpoint_every, keep=config.train.keep_checkpoints
    )
    mesh = make_mesh(len(sets), config.data.group_sizes, shape=config.train.mesh)
    batches = _batches(config, sets, mesh)
    writer = MetricWriter(workdir)
    try:
        graph, train_state = _create(config)
        train_state = jax.device_put(train_state, replicated(mesh))
        train_state = checkpoints.restore(train_state, batches)
        early = make_train_step(graph, config, mesh)
        late = make_train_step(graph, config, mesh, freeze_batch_norm=True)
        frozen_from = config.train.freeze_batch_norm_after or steps
        augment = make_augment(config.augment, config.train.seed, batch_shardings(mesh))
        first = int(train_state.step)
        if first:
            print(f'Going on at step {first} of {steps}')
        progress = tqdm(range(first, steps), initial=first, total=steps, unit='step')
        pace, watch = Pace(), SkipWatch(train_state.skipped, config.train.max_skipped)
        with Interruption() as interruption:
            for step in progress:
                with pace.waiting():
                    batch = next(batches)
                batch = augment(put_batch(batch, mesh), step)
                train_step = early if step < frozen_from else late
                train_state, metrics = train_step(train_state, batch)
                pace.steps += 1
                asked = interruption.asked  # once: what is left of the loop acts on one answer
                last = asked or step + 1 == steps
                if last or (step + 1) % config.train.log_every == 0:
                    scalars = {name: float(value) for name, value in metrics.items()}
                    scalars |= watch.look(train_state.skipped, sets, batches)
                    writer.write(step + 1, scalars | pace.report())
                    progress.set_postfix(loss=f'{scalars["loss"]:.4g}')
                checkpoints.save(step + 1, train_state, batches, force=last)
                if asked:
                    tqdm.write(f'Stopped and saved at step {step + 1}; the same command goes on')
                    break
        return train_state
    finally:
        batches.close()
        checkpoints.close()
        writer.close()


def _batches(config: Config, sets: list[TrainingSet], mesh: Mesh) -> TrainIterator:
    return make_train_iterator(
        sets,
        image_size=config.data.image_size,
        max_images=config.data.max_images,
        group_sizes=config.data.group_sizes,
        seed=config.train.seed,
        workers=config.data.workers,
        cut_epochs=config.data.cut_epochs,
        part=part_of_process(mesh),
    )


def _create(config: Config) -> tuple[nnx.GraphDef, state.TrainState]:
    model = GCoNetPlus(config.model, rngs=nnx.Rngs(config.train.seed))
    if config.train.backbone_weights:
        load_backbone(model.backbone, config.train.backbone_weights)
    return state.create(model, config)


def _total_steps(config: Config, group_counts: list[int]) -> int:
    """Steps of the run: those given, or epochs of one step per group of the anchor set."""
    if config.train.steps:
        return config.train.steps
    epoch = min(group_counts) if config.data.cut_epochs else max(group_counts)
    return config.train.epochs * epoch


def _check_classes(config: Config, sets: list[TrainingSet]) -> None:
    classes = 1 + max(label for each in sets for label in each.labels)
    if classes > config.model.num_classes:
        raise ConfigError(
            f'config.model.num_classes: {config.model.num_classes} is too small for '
            f'the {classes} classes of data.train_sets'
        )
