"""The training run: data, model, state, then step after step."""

import dataclasses
from pathlib import Path

import jax
from flax import nnx
from tqdm import tqdm

from gconet_jax.config import Config, ConfigError
from gconet_jax.input_pipeline.augment import make_augment
from gconet_jax.input_pipeline.loader import make_train_iterator
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
    batches = make_train_iterator(
        sets,
        image_size=config.data.image_size,
        max_images=config.data.max_images,
        group_sizes=config.data.group_sizes,
        seed=config.train.seed,
        workers=config.data.workers,
        cut_epochs=config.data.cut_epochs,
        part=part_of_process(mesh),
    )
    writer = MetricWriter(workdir)
    try:
        graph, train_state = _create(config)
        train_state = jax.device_put(train_state, replicated(mesh))
        train_state = checkpoints.restore(train_state, batches)
        first = int(train_state.step)
        if first:
            print(f'Going on at step {first} of {steps}')
        augment = make_augment(config.augment, config.train.seed, batch_shardings(mesh))
        train_step = make_train_step(graph, config, mesh)
        late_step = make_train_step(graph, config, mesh, freeze_batch_norm=True)
        late = config.train.freeze_batch_norm_after or steps
        progress = tqdm(range(first, steps), initial=first, total=steps, unit='step')
        pace = Pace()
        for step in progress:
            with pace.waiting():
                batch = next(batches)
            batch = augment(put_batch(batch, mesh), step)
            update = train_step if step < late else late_step
            train_state, metrics = update(train_state, batch)
            pace.steps += 1
            if (step + 1) % config.train.log_every == 0 or step + 1 == steps:
                scalars = {name: float(value) for name, value in metrics.items()}
                writer.write(step + 1, scalars | pace.report())
                progress.set_postfix(loss=f'{scalars["loss"]:.4g}')
            checkpoints.save(step + 1, train_state, batches, force=step + 1 == steps)
        return train_state
    finally:
        batches.close()
        checkpoints.close()
        writer.close()


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
