"""Loading of trained networks from runs, folders, released files and the Hugging Face hub."""

import dataclasses
from pathlib import Path

import numpy as np

from gconet_jax.config import Config, released
from gconet_jax.errors import InputError
from gconet_jax.models.gconet_plus import GCoNetPlus, abstract_model
from gconet_jax.weights.folder import load_folder
from gconet_jax.weights.hub import FILES, fetch, is_hub_id
from gconet_jax.weights.torch_file import read_state_dict
from gconet_jax.weights.torch_gconet import WeightsError, load_state_dict

BOX = Path(__file__).parent / 'box'  # the model in the package


def load_pretrained(
    source: str | Path | None = None, *, step: str = 'latest', ema: bool = False
) -> tuple[GCoNetPlus, int]:
    """Load a trained network.

    Args:
        source: one of:

            - the folder of a run of `train.py`;
            - a folder with `model.safetensors` and `config.json`;
            - a `.pth` file of the released code;
            - the id, 'user/name', of a model folder on the Hugging Face hub;
            - None for the model in the package.
        step: checkpoint of a run; see `training.restore.choose_steps`.
        ema: load the moving averages of a run's weights.

    Returns:
        The network and its image size, pixels.

    Raises:
        InputError: `source` does not exist or does not match the model; the message says what was
            found.
    """
    if source is None:
        if not BOX.is_dir():
            raise InputError('this build has no model of its own: give a run, a folder or a file')
        return load_folder(BOX)
    path = Path(source)
    if path.suffix in ('.pth', '.pt') and path.is_file():
        return _released(path)
    if (path / 'checkpoints').is_dir():
        from gconet_jax.training.restore import load_model  # Orbax takes a second to import

        config, model, _ = load_model(path, step, ema=ema)
        return model, config.data.image_size
    if path.is_dir():
        return load_folder(path)
    if path.suffix in FILES and not path.exists():
        raise InputError(f'there is no file {path}')
    if path.exists() or not is_hub_id(str(source)):
        raise InputError(
            f'{source} is neither the folder of a run, nor a folder with model.safetensors, nor a '
            '.pth file, nor the id of a model on the Hugging Face hub'
        )
    return load_folder(fetch(str(source)))


def _released(path: Path) -> tuple[GCoNetPlus, int]:
    """Load a file of the released code; its entries determine the config."""
    weights = read_state_dict(path)
    config = released(Config())
    if 'classifier.weight' not in weights:
        raise WeightsError(f'{path} is no GCoNet+ checkpoint: it has no classifier.weight')
    classes = np.shape(weights['classifier.weight'])[0]
    resnet = 'bb.conv2.0.conv1.weight' in weights
    backbone = 'resnet50' if resnet else config.model.backbone
    model_config = dataclasses.replace(config.model, backbone=backbone, num_classes=classes)
    has_mask = 'conv_out_mask.0.weight' in weights
    if not has_mask:
        model_config = dataclasses.replace(model_config, racm_mask='output')
    model = abstract_model(model_config)
    load_state_dict(model, weights, source=str(path))
    return model, config.data.image_size
