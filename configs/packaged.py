r"""The model in the package: the whole network on small images, hours on a CPU, in four stages.

    python train.py --config=configs/packaged.py:first --workdir=runs/first \
        --config.data.root=ROOT --config.train.backbone_weights=vgg16_bn.safetensors
    python train.py --config=configs/packaged.py:jigsaws --workdir=runs/jigsaws \
        --config.data.root=ROOT --config.train.initial_weights=FIRST
    python train.py --config=configs/packaged.py:eights --workdir=runs/eights \
        --config.data.root=ROOT --config.train.initial_weights=MEAN
    python train.py --config=configs/packaged.py:identity --workdir=runs/identity \
        --config.data.root=ROOT --config.train.initial_weights=MEAN_OF_EIGHTS

FIRST is `gconet-jax convert runs/first FIRST --half --ema`; that run was stopped at step 991 of
1,300. MEAN are the mean weights of FIRST and of what `jigsaws` gave, MEAN_OF_EIGHTS those of MEAN
and of what `eights` gave. The package has 0.7 of the moving averages after step 200 of `identity`
and 0.3 of those after its last. docs/results.md has the lines that take such means.
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

FIRST = Config(
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

# What each later stage changes of the first.
STAGES = {
    'first': {},
    # Larger, with distractors.
    'jigsaws': {
        'data': {'image_size': 128},
        'augment': {'jigsaw': 0.5},
        'train': {'steps': 1200, 'learning_rate': 7e-4, 'freeze_batch_norm_after': 800},
    },
    # Larger groups.
    'eights': {
        'data': {'image_size': 128, 'max_images': 8, 'group_sizes': (8,)},
        'augment': {'jigsaw': 0.25},
        'train': {
            'steps': 500,
            'learning_rate': 4e-4,
            'warmup_steps': 30,
            'ema': 0.99,
            'freeze_batch_norm_after': 1,
            'seed': 7,
        },
    },
    # A consensus that is the shared feature itself, for a decoder that learns to read it.
    'identity': {
        'data': {'image_size': 160, 'max_images': 5, 'group_sizes': (5,)},
        'augment': {'jigsaw': 0.35, 'crop': 0.25},
        'train': {
            'identity_gam': True,
            'frozen': ('gam', 'backbone'),
            'steps': 850,
            'learning_rate': 7e-4,
            'warmup_steps': 30,
            'ema': 0.99,
            'freeze_batch_norm_after': 250,
            'seed': 11,
        },
        'run': {'keep_latest': 9},
    },
}


def get_config(stage: str = 'first'):
    """`stage`: a key of STAGES."""
    if stage not in STAGES:
        raise ValueError(f'stage {stage!r} is none of {", ".join(STAGES)}')
    changed = {
        part: dataclasses.replace(getattr(FIRST, part), **fields)
        for part, fields in STAGES[stage].items()
    }
    return as_config_dict(dataclasses.replace(FIRST, **changed))
