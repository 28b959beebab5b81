"""Trained on COCO-SEG alone.

    python train.py --config=configs/coco_seg.py --workdir=runs/coco_seg \
        --config.data.root=/data/cosod --config.train.backbone_weights=vgg16_bn.safetensors

Paper, CoCA / CoSOD3k / CoSal2015: S .712 / .820 / .853, max F .602 / .793 / .852.
"""

import dataclasses

from gconet_jax.config import Config
from gconet_jax.config_dict import as_config_dict


def get_config():
    """Return the paper's settings."""
    config = Config()
    data = dataclasses.replace(config.data, train_sets=('COCO-SEG',))
    model = dataclasses.replace(config.model, num_classes=78)  # one class per group
    return as_config_dict(dataclasses.replace(config, data=data, model=model))
