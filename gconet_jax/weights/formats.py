"""Saving a network as a PyTorch file or as an Orbax checkpoint."""

from pathlib import Path

from orbax.checkpoint import v1 as ocp

from gconet_jax.config import Config, DataConfig
from gconet_jax.models.gconet_plus import GCoNetPlus
from gconet_jax.training import config_file, state
from gconet_jax.weights.torch_file import write_state_dict
from gconet_jax.weights.torch_gconet import WeightsError, released_state_dict


def save_torch(model: GCoNetPlus, path: Path) -> None:
    """Write a `.pth` file that the released PyTorch code can load, given the same modules."""
    write_state_dict(path, released_state_dict(model))


def save_run(model: GCoNetPlus, workdir: Path, *, image_size: int) -> None:
    """Write the folder of a run with one Orbax checkpoint, at step 0, for `evaluate.py` and others.

    The checkpoint has no optimizer state and no data iterator, so it cannot be resumed. Use it as
    `train.initial_weights` to train from it.

    Args:
        model: the network.
        workdir: must not exist yet.
        image_size: height and width of images in the network, pixels.

    Raises:
        WeightsError: the folder exists.
    """
    if workdir.exists():
        raise WeightsError(f'{workdir} exists already; remove it or name another folder')
    config = Config(model=model.config, data=DataConfig(image_size=image_size))
    config_file.write_config(workdir, config)
    _, train_state = state.create(model, config)
    parts = {'model': state.saved_parts(train_state)['model']}
    with ocp.training.Checkpointer(str((workdir / 'checkpoints').absolute())) as checkpointer:
        checkpointer.save_checkpointables(0, parts)
