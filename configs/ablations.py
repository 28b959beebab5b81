"""The rows of the paper's Tables 1 and 2, trained on DUTS_class.

    python train.py --config=configs/ablations.py:t1_3 --workdir=runs/t1_3 \
        --config.data.root=/data/cosod --config.train.backbone_weights=vgg16_bn.safetensors

Rows without batch norm use the weights of the plain VGG-16 (torchvision's `vgg16`). The auxiliary
classification (ACM) and the group contrast (GCM) come from the conference model and are on in every
row.
"""

import dataclasses

from gconet_jax.config import Config
from gconet_jax.config_dict import as_config_dict

# What the conference GCoNet has in addition, and what it and the ablations lack.
COMPLEX = {'laterals': 'block', 'block_after_upsampling': True, 'outputs': 4}
NO_NORM = {'backbone': 'vgg16', 'batch_norm': False}
NO_RACM, NO_CEM = {'racm': False}, {'cem': False}
NO_BCE, NO_GST = {'bce': 0.0}, {'gst': 0.0}

# Row -> the fields of the model and of the loss that differ from the main config.
ROWS = {
    # Table 1: network simplification, batch norm, hybrid loss. Row 1 is the conference GCoNet.
    't1_1': (COMPLEX | NO_NORM | NO_RACM | NO_CEM, NO_BCE | NO_GST),
    't1_2': (NO_NORM | NO_RACM | NO_CEM, NO_BCE | NO_GST),
    't1_3': (NO_RACM | NO_CEM, NO_BCE | NO_GST),
    't1_4': (NO_NORM | NO_RACM | NO_CEM, NO_GST),
    't1_5': (NO_RACM | NO_CEM, NO_GST),
    # Table 2: RACM, CEM, GST. Row 1 is t1_5, row 5 is configs/duts.py.
    't2_1': (NO_RACM | NO_CEM, NO_GST),
    't2_2': (NO_CEM, NO_GST),
    't2_3': ({}, NO_GST),
    't2_4': (NO_CEM, {}),
    't2_5': ({}, {}),
}


def get_config(row: str = 't2_5'):
    """Return the config of `row`: 't1_1' to 't1_5' or 't2_1' to 't2_5'."""
    if row not in ROWS:
        raise ValueError(f'row {row!r} is none of {", ".join(ROWS)}')
    model, loss = ROWS[row]
    config = Config()
    return as_config_dict(
        dataclasses.replace(
            config,
            model=dataclasses.replace(config.model, **model),
            loss=dataclasses.replace(config.loss, **loss),
            data=dataclasses.replace(config.data, train_sets=('DUTS_class',)),
        )
    )
