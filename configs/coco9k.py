"""Trained on COCO-9k alone.

    python train.py --config=configs/coco9k.py --workdir=runs/coco9k \
        --config.data.root=/data/cosod --config.train.backbone_weights=vgg16_bn.safetensors

Paper, CoCA / CoSOD3k / CoSal2015: S .717 / .819 / .853, max F .605 / .796 / .857.
"""

import dataclasses

from gconet_jax.config import Config
from gconet_jax.config_dict import as_config_dict


def get_config():
    """Return the paper's settings."""
    config = Config()
    data = dataclasses.replace(config.data, train_sets=('COCO-9k',))
    model = dataclasses.replace(config.model, num_classes=65)  # one class per group
    return as_config_dict(dataclasses.replace(config, data=data, model=model))
