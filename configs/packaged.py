r"""The model in the package: the whole network, an ImageNet backbone, small images, hours on a CPU.

    python train.py --config=configs/packaged.py --workdir=runs/packaged \
        --config.data.root=ROOT --config.train.backbone_weights=vgg16_bn.safetensors

It was stopped at step 991 of 1,300 and its moving averages kept:

    gconet-jax convert runs/packaged FIRST --half --ema

Then, from there, with distractors, and larger:

    python train.py --config=configs/packaged.py --workdir=runs/jigsaw --config.data.root=ROOT \
        --config.train.initial_weights=FIRST --config.data.image_size=128 \
        --config.augment.jigsaw=0.5 --config.train.learning_rate=7e-4 --config.train.steps=1200 \
        --config.train.freeze_batch_norm_after=800

From the mean of the weights of the two, MEAN, with larger groups:

    python train.py --config=configs/packaged.py --workdir=runs/eights --config.data.root=ROOT \
        --config.train.initial_weights=MEAN --config.data.image_size=128 \
        --config.data.max_images=8 '--config.data.group_sizes=(8,)' --config.augment.jigsaw=0.25 \
        --config.train.learning_rate=4e-4 --config.train.warmup_steps=30 --config.train.steps=500 \
        --config.train.ema=0.99 --config.train.freeze_batch_norm_after=1 --config.train.seed=7

The package has the mean of MEAN and of what this gave.
"""

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


def get_config():
    """The settings."""
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
    return as_config_dict(config)
