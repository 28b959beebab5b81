"""The paper's best model: trained on DUTS_class and COCO-SEG together.

    python train.py --config=configs/duts_coco.py --workdir=runs/duts_coco \
        --config.data.root=/data/cosod --config.train.backbone_weights=vgg16_bn.safetensors

`configs/duts_coco.py:released` has the settings of the authors' code where they differ.
Paper, CoCA / CoSOD3k / CoSal2015: S .738 / .843 / .881, max F .637 / .834 / .891.
"""

import dataclasses

from gconet_jax.config import Config, released
from gconet_jax.config_dict import as_config_dict


def get_config(variant: str = 'paper'):
    """Return the config of `variant`: 'paper' or 'released'."""
    config = Config()
    # 291 groups and 78 groups, one class each.
    config = dataclasses.replace(config, model=dataclasses.replace(config.model, num_classes=369))
    if variant == 'released':
        config = released(dataclasses.replace(config, model=Config().model))
    elif variant != 'paper':
        raise ValueError(f"variant {variant!r} is neither 'paper' nor 'released'")
    return as_config_dict(config)
