"""A small network on the synthetic set: minutes on a CPU.

    python data/synthetic.py runs/synthetic/data
    python train.py --config=configs/synthetic.py --workdir=runs/synthetic/gconet

`configs/synthetic.py:no_group` is the same without the group modules (GAM, GCM), so that each image
is segmented alone. The differences from the paper let a network learn from scratch in so few steps:
no second pass (RACM), a softer binarisation, a larger weight of the IoU, a decaying learning rate
and, at the end, batch norm with running statistics as at inference.
"""

from gconet_jax.config import (
    AugmentConfig,
    Config,
    DataConfig,
    LossConfig,
    ModelConfig,
    TrainConfig,
)
from gconet_jax.config_dict import as_config_dict


def get_config(variant: str = 'gconet'):
    """Return the config of `variant`: 'gconet' or 'no_group'."""
    if variant not in ('gconet', 'no_group'):
        raise ValueError(f"variant {variant!r} is neither 'gconet' nor 'no_group'")
    group = variant == 'gconet'
    return as_config_dict(
        Config(
            model=ModelConfig(
                width=0.25,
                num_classes=96,
                gam=group,
                gcm=group,
                racm=False,
                k=50.0,
            ),
            loss=LossConfig(iou=10.0, gst=0.0, acm=0.3),
            data=DataConfig(
                root='runs/synthetic/data',
                train_sets=('synthetic_train',),
                eval_sets=('synthetic_test',),
                image_size=48,
                max_images=6,
                group_sizes=(6,),
                workers=0,
            ),
            augment=AugmentConfig.off(),
            train=TrainConfig(
                steps=1300,
                learning_rate=3e-3,
                schedule='cosine',
                freeze_batch_norm_after=900,
            ),
        )
    )
