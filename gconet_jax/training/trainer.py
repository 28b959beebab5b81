"""The training run: data, model and state, then one step after another."""

import contextlib
import dataclasses
from pathlib import Path

from flax import nnx
from jax.sharding import Mesh

from gconet_jax.config import Config, ConfigError
from gconet_jax.input_pipeline.loader import TrainIterator, make_train_iterator
from gconet_jax.input_pipeline.pairs import bucket
from gconet_jax.input_pipeline.sets import TrainingSet, training_sets
from gconet_jax.models.gconet_plus import GCoNetPlus
from gconet_jax.training import checkpoint, config_file, state
from gconet_jax.training.mesh import (
    make_mesh,
    part_of_process,
    put_batch,
    put_replicated,
)
from gconet_jax.training.observer import Observer
from gconet_jax.training.programs import Programs, memory_errors
from gconet_jax.training.progress import say
from gconet_jax.training.safeguards import Interruption
from gconet_jax.weights.backbone import load_backbone
from gconet_jax.weights.pretrained import load_pretrained
from gconet_jax.weights.torch_gconet import copy_weights


def train(config: Config, workdir: Path) -> state.TrainState:
    """Train to the last step of `config`, resuming from the latest checkpoint in `workdir`.

    Raises:
      InputError: bad config, data, weights or checkpoints, before the first step where possible.
    """
    sets = training_sets(config.data)
    _check_classes(config, sets)
    config_file.write_config(workdir, config)
    steps = _total_steps(config, [len(each.groups) for each in sets])
    config = dataclasses.replace(config, train=dataclasses.replace(config.train, steps=steps))
    mesh = make_mesh(len(sets), config.data.group_sizes, shape=config.run.mesh)
    with contextlib.ExitStack() as stack:
        checkpoints = checkpoint.Checkpoints(workdir, config.run)
        stack.callback(checkpoints.close)
        batches = _batches(config, sets, mesh)
        stack.callback(batches.close)
        graph, train_state = _create(config)
        say(state.overview(train_state))
        train_state = put_replicated(train_state, mesh)
        train_state = checkpoints.restore(train_state, batches)
        observer = Observer(config, workdir, graph, train_state, sets, batches, checkpoints)
        stack.callback(observer.close)
        programs = Programs(graph, config, mesh)
        stack.enter_context(memory_errors())
        return _steps(config, mesh, train_state, sets, batches, programs, observer)


def _steps(
    config: Config,
    mesh: Mesh,
    train_state: state.TrainState,
    sets: list[TrainingSet],
    batches: TrainIterator,
    programs: Programs,
    observer: Observer,
) -> state.TrainState:
    first, steps = int(train_state.step), config.train.steps
    if first:
        say(f'Going on at step {first} of {steps}')
    elif not (config.train.backbone_weights or config.train.initial_weights):
        say('The backbone starts from random numbers: train.backbone_weights names no file')
    frozen_from = config.train.freeze_batch_norm_after or steps
    if first < steps:
        with observer.progress.aside():
            programs.prepare(
                train_state,
                pairs=len(sets),
                images=_largest(config, sets),
                freeze_batch_norm=first >= frozen_from,
            )
    with Interruption() as interruption:
        for step in range(first, steps):
            observer.before(step + 1)
            with observer.progress.waiting():
                loaded = next(batches)
            train_state, metrics = programs(
                train_state, put_batch(loaded, mesh), step, freeze_batch_norm=step >= frozen_from
            )
            observer.progress.count(loaded['valid'])
            stop = interruption.asked_at(step + 1, every=config.run.log_every)
            last = stop or step + 1 == steps
            observer.after(step + 1, train_state, metrics, last=last)
            if stop:
                say(f'Stopped and saved at step {step + 1}; the same command goes on')
                break
    return train_state


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
    if config.train.initial_weights:
        copy_weights(load_pretrained(config.train.initial_weights)[0], model)
    if config.train.identity_gam and model.gam is not None:
        model.gam.become_identity()
    return state.create(model, config)


def _total_steps(config: Config, group_counts: list[int]) -> int:
    """Return the steps of the run: as given, or epochs of one step per group of the anchor set."""
    if config.train.steps:
        return config.train.steps
    epoch = min(group_counts) if config.data.cut_epochs else max(group_counts)
    return config.train.epochs * epoch


def _largest(config: Config, sets: list[TrainingSet]) -> int:
    """Return the padded group size of the largest possible batch."""
    # The smaller group of a pair sets the size, so the largest group of a set never does.
    second = max(sorted(len(group.images) for group in each.groups)[-2] for each in sets)
    return bucket(min(second, config.data.max_images), config.data.group_sizes)


def _check_classes(config: Config, sets: list[TrainingSet]) -> None:
    classes = 1 + max(label for each in sets for label in each.labels)
    if classes > config.model.num_classes:
        raise ConfigError(
            f'config.model.num_classes: {config.model.num_classes} is too small for '
            f'the {classes} classes of data.train_sets'
        )
