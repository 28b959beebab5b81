"""The model in the package: the whole network, an ImageNet backbone, small images, hours on a CPU.

    python train.py --config=configs/packaged.py --workdir=runs/packaged/first \
        --config.data.root=ROOT --config.train.backbone_weights=vgg16_bn.safetensors
    gconet-jax convert runs/packaged/first runs/packaged/start --ema
    python train.py --config=configs/packaged.py:distracted --workdir=runs/packaged/second \
        --config.data.root=ROOT --config.train.initial_weights=runs/packaged/start

The second run puts objects of the other group into images, so that what stands out is not enough.
The first was stopped at step 991 of 1,300.
"""

import dataclasses

from gconet_jax.config import (
    AugmentConfig,
    Config,
    DataConfig,
    LossConfig,
    ModelConfig,
    RunConfig,
    TrainConfig,
)
from gconet_jax.config_dict import as_config_dict

HELD_OUT = ('*/Plant', '*/Sheep', '*/Sofa', '*/Table', '*/Train')
SAME_CLASSES = ('*/sheep', '*/potted_plant', '*/couch', '*/dining_table', '*/train', '*/bonsai')


def get_config(variant: str = 'first'):
    """`variant`: 'first' or 'distracted'."""
    config = Config(
        model=ModelConfig(racm=False, k=20.0, k_fallback=20.0),
        loss=LossConfig(iou=5.0, gst=0.0),
        data=DataConfig(
            train_sets=('PASCAL-coseg+MSRC+COCO128', 'Caltech-U2'),
            eval_sets=('PASCAL-coseg',),
            eval_include=HELD_OUT,
            exclude=HELD_OUT + SAME_CLASSES,
            image_size=112,
            max_images=4,
            group_sizes=(4,),
            workers=0,
        ),
        augment=AugmentConfig(
            rotate=0.0,
            brightness=(0.7, 1.3),
            contrast=(0.7, 1.3),
            colour=(0.5, 1.5),
            sharpness=(1.0, 1.0),
        ),
        train=TrainConfig(
            steps=1300,
            learning_rate=1e-3,
            schedule='cosine',
            warmup_steps=50,
            backbone_rate=0.1,
            frozen=('backbone/stages/0', 'backbone/stages/1', 'backbone/stages/2'),
            ema=0.995,
            freeze_batch_norm_after=850,
        ),
        run=RunConfig(checkpoint_every=100, keep_latest=3, picture_every=200),
    )
    if variant == 'distracted':
        replace = dataclasses.replace
        train = replace(
            config.train,
            steps=420,
            learning_rate=5e-4,
            warmup_steps=20,
            ema=0.99,
            freeze_batch_norm_after=1,
        )
        config = replace(config, augment=replace(config.augment, distract=0.6), train=train)
    elif variant != 'first':
        raise ValueError(f"variant {variant!r} is neither 'first' nor 'distracted'")
    return as_config_dict(config)
