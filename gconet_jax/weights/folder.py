"""Model folders: `model.safetensors`, with the released code's names, and `config.json`."""

import dataclasses
import json
import tempfile
from pathlib import Path

import numpy as np
import safetensors
import safetensors.numpy

from gconet_jax.config import ConfigError, DataConfig, ModelConfig
from gconet_jax.models.gconet_plus import GCoNetPlus, abstract_model
from gconet_jax.weights.torch_gconet import WeightsError, load_state_dict, save_state_dict


def save_folder(
    model: GCoNetPlus, folder: str | Path, *, image_size: int, card: str, half: bool = False
) -> None:
    """Write the network, its config and its model card to a folder, atomically.

    Args:
        model: the network, with any config.
        folder: must not exist yet.
        image_size: height and width that the network was trained for, pixels.
        card: content of the folder's README.md, Markdown.
        half: round kernels to float16, which halves the size. Vectors stay float32, because
            statistics of batch norm may exceed the range of float16.

    Raises:
        WeightsError: the folder exists, or a kernel exceeds the range of float16.
    """
    folder = Path(folder)
    if folder.exists():
        raise WeightsError(f'{folder} exists already; remove it or name another folder')
    folder.parent.mkdir(parents=True, exist_ok=True)
    weights = save_state_dict(model)
    if half:
        weights = {name: _halved(name, x) if x.ndim > 1 else x for name, x in weights.items()}
    config = {'image_size': image_size, 'model': dataclasses.asdict(model.config)}
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix='.partial') as partial:
        whole = Path(partial) / 'whole'
        whole.mkdir()
        # save_file would make the file readable by its owner only.
        (whole / 'model.safetensors').write_bytes(safetensors.numpy.save(weights))
        (whole / 'config.json').write_text(json.dumps(config, indent=2) + '\n', encoding='utf-8')
        (whole / 'README.md').write_text(card, encoding='utf-8')
        whole.rename(folder)


def _halved(name: str, x: np.ndarray) -> np.ndarray:
    if np.abs(x).max(initial=0) > np.finfo(np.float16).max:
        raise WeightsError(f'{name} is beyond float16; store it whole')
    return x.astype(np.float16)


def model_card(model: GCoNetPlus, *, image_size: int, source: str) -> str:
    """Return the README.md of a model folder whose weights come from `source`."""
    return f"""# GCoNet+ ({model.config.backbone})

Weights of a co-salient object detector in safetensors, under the names of the released PyTorch
code, from `{source}`. No scores are claimed here.

```python
import gconet_jax

predictor = gconet_jax.Predictor.from_pretrained('this folder')
maps = predictor([photo_1, photo_2])  # uint8 (H, W, 3) each -> float32 (H, W) in [0, 1] each
```

Images are resized to {image_size} x {image_size} inside. `config.json` has every setting of the
network. The code is Apache-2.0; the weights have the terms of what they were trained on.
"""


def load_folder(folder: str | Path) -> tuple[GCoNetPlus, int]:
    """Load a folder that `save_folder` wrote.

    Returns:
        The network and its image size, pixels.

    Raises:
        WeightsError: a file is missing or broken, or the weights do not fit the config; the message
            lists every entry at fault.
    """
    folder = Path(folder)
    for name in ('config.json', 'model.safetensors'):
        if not (folder / name).is_file():
            raise WeightsError(f'{folder} is no model: it has no {name}')
    try:
        content = json.loads((folder / 'config.json').read_text(encoding='utf-8'))
        config = ModelConfig(**content['model'])
        image_size = DataConfig(image_size=int(content['image_size'])).image_size
    except (ConfigError, KeyError, OSError, TypeError, ValueError) as error:
        raise WeightsError(f'{folder}/config.json is broken: {error}') from error
    try:
        weights = safetensors.numpy.load_file(folder / 'model.safetensors')
    except (OSError, safetensors.SafetensorError) as error:
        raise WeightsError(f'{folder}/model.safetensors is broken: {error}') from error
    model = abstract_model(config)
    load_state_dict(model, weights, source=f'{folder}/model.safetensors')
    return model, image_size
