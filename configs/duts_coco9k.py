"""Trained on DUTS_class and COCO-9k together.

    python train.py --config=configs/duts_coco9k.py --workdir=runs/duts_coco9k \
        --config.data.root=/data/cosod --config.train.backbone_weights=vgg16_bn.safetensors

Paper, CoCA / CoSOD3k / CoSal2015: S .734 / .839 / .876, max F .626 / .822 / .880.
"""

import dataclasses

from gconet_jax.config import Config
from gconet_jax.config_dict import as_config_dict


def get_config():
    """Return the paper's settings."""
    config = Config()
    data = dataclasses.replace(config.data, train_sets=('DUTS_class', 'COCO-9k'))
    model = dataclasses.replace(config.model, num_classes=291 + 65)  # one class per group
    return as_config_dict(dataclasses.replace(config, data=data, model=model))
