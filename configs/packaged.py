r"""The packaged model: one run from ImageNet weights, minutes on a GPU.

    python train.py --config=configs/packaged.py --workdir=runs/packaged \
        --config.data.root=ROOT --config.train.backbone_weights=vgg16_imagenet_fp16.npz

It differs from the paper where a small, mixed set of groups requires it (docs/results.md):

- The backbone is the plain VGG-16 of the ImageNet file. Its first two stages are frozen; the others
  learn at a tenth of the rate.
- The GAM compares x5 itself: its projections are the identity and are frozen.
- Every fourth pair takes its consensus from one marked image, so that the decoder learns to follow
  an example. One image in twelve is an intruder, and a third are joined with another image.
- There is no second pass (RACM, GST). The loss weights have the released code's ratios.
- Batch norm uses its running statistics in the last part of the run, as at inference.
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

# The classes that the model card scores: their PASCAL groups, and groups of the same class
# elsewhere.
HELD_OUT = ('*/Plant', '*/Sheep', '*/Sofa', '*/Table', '*/Train')
SAME_CLASSES = ('*/sheep', '*/potted_plant', '*/couch', '*/dining_table', '*/train', '*/bonsai')

RECIPE = Config(
    model=ModelConfig(backbone='vgg16', precision='bfloat16', racm=False, num_classes=320, k=50.0),
    loss=LossConfig(bce=30.0, iou=25.0, gcm=60.0, gst=0.0, acm=0.75),
    data=DataConfig(
        # Each step draws a pair from each entry: many objects in an image; the same, small; one
        # clear object.
        train_sets=(
            'VOC12+PASCAL-coseg+MSRC',
            'COCOtiny+COCO128',
            'DAVIS+WeizmannHorse+Instruments-U2+Imagenette-U2+Caltech-U2',
        ),
        eval_sets=('VOC12-val',),
        exclude=HELD_OUT + SAME_CLASSES,
        max_images=10,
        group_sizes=(10,),
    ),
    augment=AugmentConfig(
        brightness=(0.6, 1.4),
        contrast=(0.6, 1.4),
        colour=(0.3, 1.7),
        sharpness=(0.0, 2.0),
        crop=0.35,
        jigsaw=0.33,
        intruder=0.08,
    ),
    train=TrainConfig(
        steps=6000,
        learning_rate=4e-4,
        schedule='cosine',
        warmup_steps=200,
        weight_decay=0.01,
        backbone_rate=0.1,
        frozen=('gam', 'backbone/stages/0', 'backbone/stages/1'),
        identity_gam=True,
        example=0.25,
        ema=0.998,
        freeze_batch_norm_after=4000,
    ),
    run=RunConfig(log_every=20, picture_every=0, checkpoint_every=1000),
)


def get_config(steps: str = '6000'):
    """Return the config of a run of `steps` steps; batch norm freezes after two thirds of them."""
    count = int(steps)
    train = dataclasses.replace(
        RECIPE.train,
        steps=count,
        warmup_steps=min(200, count // 10),
        freeze_batch_norm_after=2 * count // 3,
    )
    return as_config_dict(dataclasses.replace(RECIPE, train=train))
