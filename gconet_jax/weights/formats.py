"""A network as other programs store it: PyTorch's file, an Orbax checkpoint, a model on the hub."""

from pathlib import Path

from orbax.checkpoint import v1 as ocp

from gconet_jax.config import Config, DataConfig
from gconet_jax.errors import InputError
from gconet_jax.models.gconet_plus import GCoNetPlus
from gconet_jax.training import config_file, state
from gconet_jax.weights.torch_file import write_state_dict
from gconet_jax.weights.torch_gconet import WeightsError, released_state_dict


def save_torch(model: GCoNetPlus, path: Path) -> None:
    """A `.pth` file that the released PyTorch code loads, if it has the same modules."""
    write_state_dict(path, released_state_dict(model))


def save_run(model: GCoNetPlus, workdir: Path, *, image_size: int) -> None:
    """The folder of a run with one Orbax checkpoint, of step 0, for `evaluate.py` and others.

    It has no optimizer and no position in the data; `train.initial_weights` trains from it.

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


def push_folder(folder: Path, name: str) -> None:
    """Puts a folder of `weights.folder.save_folder` on the Hugging Face hub as 'user/name'.

    Raises:
        InputError: huggingface-hub is not installed, or the hub refuses.
    """
    try:
        from huggingface_hub import HfApi
    except ImportError as error:
        raise InputError(f'{error}; pip install huggingface-hub') from error
    try:
        api = HfApi()
        api.create_repo(name, exist_ok=True)
        api.upload_folder(repo_id=name, folder_path=folder)
    except Exception as error:  # of the network, the hub or the name
        raise InputError(f'{folder} could not be put on the hub as {name}: {error}') from error
