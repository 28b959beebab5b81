"""Trained on DUTS_class alone, the setting of the paper's ablations.

    python train.py --config=configs/duts.py --workdir=runs/duts \
        --config.data.root=/data/cosod --config.train.backbone_weights=vgg16_bn.safetensors

Paper, CoCA / CoSOD3k / CoSal2015: S .691 / .828 / .875, max F .574 / .807 / .876.
"""

import dataclasses

from gconet_jax.config import Config
from gconet_jax.config_dict import as_config_dict


def get_config():
    """Return the paper's settings."""
    config = Config()
    data = dataclasses.replace(config.data, train_sets=('DUTS_class',))
    return as_config_dict(dataclasses.replace(config, data=data))
