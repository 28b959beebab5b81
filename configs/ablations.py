"""The rows of the paper's Tables 1 and 2, trained on DUTS_class.

    python train.py --config=configs/ablations.py:t1_3 --workdir=runs/t1_3 \
        --config.data.root=/data/cosod --config.train.backbone_weights=vgg16_bn.safetensors

Rows without batch norm take the weights of the plain VGG-16 (torchvision's `vgg16`). The auxiliary
classification (ACM) and the group contrast (GCM) are the conference model's and on in every row.
"""

import dataclasses

from gconet_jax.config import Config
from gconet_jax.config_dict import as_config_dict

CONFERENCE = {'laterals': 'block', 'block_after_upsampling': True, 'outputs': 4}
PLAIN = {'backbone': 'vgg16', 'batch_norm': False}
WITHOUT = {'racm': False, 'cem': False}
NO_BCE, NO_GST = {'bce': 0.0}, {'gst': 0.0}

# Row -> fields of the model, of the loss, that are not the main config's.
ROWS = {
    # Table 1: network simplification, batch norm, hybrid loss; row 1 is the conference GCoNet.
    't1_1': (WITHOUT | PLAIN | CONFERENCE, NO_GST | NO_BCE),
    't1_2': (WITHOUT | PLAIN, NO_GST | NO_BCE),
    't1_3': (WITHOUT, NO_GST | NO_BCE),
    't1_4': (WITHOUT | PLAIN, NO_GST),
    't1_5': (WITHOUT, NO_GST),
    # Table 2: RACM, CEM, GST; row 5 is configs/duts.py.
    't2_1': (WITHOUT, NO_GST),
    't2_2': ({'cem': False}, NO_GST),
    't2_3': ({}, NO_GST),
    't2_4': ({'cem': False}, {}),
    't2_5': ({}, {}),
}


def get_config(row: str = 't2_5'):
    """`row`: 't1_1' to 't1_5' and 't2_1' to 't2_5'."""
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
