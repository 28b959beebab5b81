"""Every setting of a run, its default and its valid values.

The defaults follow the paper where it is explicit; `released()` follows the authors' PyTorch code.
Fields in which the two differ are marked `paper: ... released: ...`.

A config file under `configs/` returns `config_dict.as_config_dict(Config(...))`.
`config_dict.from_config_dict` converts it, with the command-line overrides, back into these
dataclasses.
"""

import dataclasses

from gconet_jax.errors import InputError


class ConfigError(InputError):
    """A config field is unknown, invalid or in conflict with another; the message names it."""


def _require(condition: bool, field: str, problem: str) -> None:
    if not condition:
        raise ConfigError(f'config.{field}: {problem}')


def _choice(value: str, field: str, *choices: str) -> None:
    _require(value in choices, field, f'{value!r} is not one of {", ".join(map(repr, choices))}')


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """The network (GCoNet+, section 3), with the switches of its Tables 1 and 2."""

    backbone: str = 'vgg16_bn'  # 'vgg16_bn', 'vgg16' or 'resnet50'
    width: float = 1.0  # multiplies every channel count except that of the classifier
    # Precision of the convolutions and the operations between them. With 'bfloat16', parameters,
    # statistics, sums, similarity, binarisation and losses stay in float32.
    precision: str = 'float32'
    num_classes: int = 291  # of the auxiliary classifier; at least the number of class labels
    # How the GAM computes similarity: 'auto', 'einsum', 'blockwise' or 'pallas' (affinity.py).
    affinity: str = 'auto'
    gam: bool = True  # group affinity module; off: the decoder reads x5 directly
    gcm: bool = True  # group contrast module; needs the GAM's consensus
    acm: bool = True  # auxiliary classification of x5
    racm: bool = True  # classification of the masked image: a second backbone pass
    racm_mask: str = 'output'  # paper: 'output', the map M; released: 'conv', a 1x1 conv's sigmoid
    cem: bool = True  # confidence enhancement; off: one 1x1 convolution gives the logits
    k: float = 300.0  # steepness of the binarisation
    k_fallback: float = 50.0  # used for a pass in which exp(-k (P - T)) overflows float32
    batch_norm: bool = True  # in the decoder and the CEM
    laterals: str = 'conv'  # 'conv' (1x1), or 'block' (conference GCoNet)
    block_after_upsampling: bool = False  # three convolutions after each upsampling (conference)
    outputs: int = 1  # 1, or 4: supervise three decoder stages as well (conference)

    def __post_init__(self) -> None:
        _choice(self.backbone, 'model.backbone', 'vgg16_bn', 'vgg16', 'resnet50')
        _choice(self.racm_mask, 'model.racm_mask', 'output', 'conv')
        _choice(self.precision, 'model.precision', 'float32', 'bfloat16')
        _choice(self.affinity, 'model.affinity', 'auto', 'einsum', 'blockwise', 'pallas')
        _choice(self.laterals, 'model.laterals', 'conv', 'block')
        _require(1 / 32 <= self.width <= 4, 'model.width', f'{self.width} is not in [1/32, 4]')
        _require(self.num_classes > 0, 'model.num_classes', 'must be positive')
        _require(self.outputs in (1, 4), 'model.outputs', f'{self.outputs} is neither 1 nor 4')
        _require(self.k > 0, 'model.k', 'must be positive')
        _require(0 < self.k_fallback <= self.k, 'model.k_fallback', 'must be in (0, model.k]')
        _require(self.gam or not self.gcm, 'model.gcm', 'needs model.gam')


@dataclasses.dataclass(frozen=True)
class LossConfig:
    """Weights of the loss terms (equations 2 and 4-11); a weight of 0 disables the term."""

    bce: float = 30.0  # paper: 30; released: 120
    iou: float = 0.5  # paper: 0.5; released: 2
    mse: float = 0.0  # an option of the released code, off by default there
    iou_reduction: str = 'mean'  # over the images; paper: 'mean'; released: 'sum'
    gcm: float = 250.0
    gst: float = 3.0  # paper: 3; released: 12
    gst_margin: float = 1.0  # paper: 1.0; released: 0.1
    gst_features: str = 'masked'  # paper: 'masked' (RACM pass); released: 'raw' (x5)
    acm: float = 3.0
    racm: float = 3.0  # paper: 3; released: 10

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, float):
                _require(value >= 0, f'loss.{field.name}', f'{value} is negative')
        _choice(self.iou_reduction, 'loss.iou_reduction', 'mean', 'sum')
        _choice(self.gst_features, 'loss.gst_features', 'masked', 'raw')


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Where the groups of images come from, and how they are paired."""

    root: str = 'data/sets'  # holds images/<set>/<group>/*.jpg and gts/<set>/<group>/*.png
    # Each step draws one pair of groups from every entry; 'A+B' pools the groups of two sets.
    train_sets: tuple[str, ...] = ('DUTS_class', 'COCO-SEG')
    eval_sets: tuple[str, ...] = ('CoCA', 'CoSOD3k', 'CoSal2015')
    exclude: tuple[str, ...] = ()  # patterns of <set>/<group> to leave out of training
    eval_include: tuple[str, ...] = ('*',)  # patterns of <set>/<group> to score
    image_size: int = 256  # pixels, a multiple of 16; images are resized to a square
    max_images: int = 32  # per group in a step. paper: 32; released: 26
    group_sizes: tuple[int, ...] = (8, 16, 24, 32)  # a group is padded to the next of these
    # Class labels: 'joint' numbers the groups of all sets; 'per_set' (released) starts each set at
    # 0, so that sets share labels.
    labels: str = 'joint'
    # End an epoch over several sets after as many steps as the smallest set has groups. The larger
    # sets then use only that many groups as anchors. Released: True.
    cut_epochs: bool = False
    # Keep decoded images in `cache_dir`, 4 bytes per pixel: 256 KiB per image at 256 pixels.
    cache: bool = True
    cache_dir: str = ''  # '': `root`/.cache
    bad_files: str = 'stop'  # for unusable images: 'stop' the run, or 'skip' them
    workers: int = 2  # processes that decode images; 0 decodes in the training process

    def __post_init__(self) -> None:
        _require(bool(self.train_sets), 'data.train_sets', 'names no set')
        _choice(self.labels, 'data.labels', 'joint', 'per_set')
        _choice(self.bad_files, 'data.bad_files', 'stop', 'skip')
        size = self.image_size
        _require(
            size >= 32 and size % 16 == 0,
            'data.image_size',
            f'{size} is no multiple of 16, or below 32',
        )
        _require(self.max_images >= 1, 'data.max_images', 'must be at least 1')
        sizes = self.group_sizes
        _require(
            bool(sizes) and list(sizes) == sorted(set(sizes)) and sizes[0] >= 1,
            'data.group_sizes',
            f'{sizes} does not ascend',
        )
        _require(
            sizes[-1] >= self.max_images,
            'data.group_sizes',
            f'the largest, {sizes[-1]}, is below data.max_images={self.max_images}',
        )
        _require(self.workers >= 0, 'data.workers', 'must not be negative')


@dataclasses.dataclass(frozen=True)
class AugmentConfig:
    """Random changes to each training image (GCoNet+, section 4.2, with the released strengths).

    Probabilities are in [0, 1]. Each factor is drawn uniformly from the multiples of 0.1 between
    its two bounds, both included.
    """

    flip: float = 0.5  # probability of a horizontal flip
    rotate: float = 0.2  # probability of a rotation
    degrees: tuple[int, ...] = (-15, 14)  # range of the rotation, both ends included
    brightness: tuple[float, ...] = (0.5, 1.5)
    contrast: tuple[float, ...] = (0.5, 1.5)
    colour: tuple[float, ...] = (0.0, 2.0)
    sharpness: tuple[float, ...] = (0.0, 3.0)
    crop: float = 0.0  # largest fraction of height and width to cut off around the centre
    pepper: float = 0.0  # fraction of pixels to turn black or white. released option: 0.0015
    jigsaw: float = 0.0  # probability of joining it with another image of the batch
    # Probability of replacing an image by one of another group, with an empty mask.
    intruder: float = 0.0

    def __post_init__(self) -> None:
        for name in ('flip', 'rotate', 'crop', 'pepper', 'jigsaw', 'intruder'):
            value = getattr(self, name)
            _require(0 <= value <= 1, f'augment.{name}', f'{value} is not in [0, 1]')
        _require(self.crop < 1, 'augment.crop', 'must leave something')
        for name in ('degrees', 'brightness', 'contrast', 'colour', 'sharpness'):
            value = getattr(self, name)
            ascends = len(value) == 2 and value[0] <= value[1]
            _require(ascends, f'augment.{name}', f'{value} is no pair (least, most)')
            _require(name == 'degrees' or value[0] >= 0, f'augment.{name}', 'must not be negative')
            tenths = all(abs(10 * end - round(10 * end)) < 1e-6 for end in value)
            _require(tenths, f'augment.{name}', f'{value} are not multiples of 0.1')

    @classmethod
    def off(cls) -> 'AugmentConfig':
        """Return a config that leaves images unchanged."""
        return cls(0.0, 0.0, (0, 0), (1.0, 1.0), (1.0, 1.0), (1.0, 1.0), (1.0, 1.0))


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """Optimisation: what a run computes."""

    steps: int = 0  # 0: use `epochs`
    epochs: int = 320  # an epoch is one step per group of the anchor set. released: 350
    learning_rate: float = 3e-4  # paper: 3e-4; released: 1e-4 * 26 / 16 = 1.625e-4
    # Learning-rate schedule. paper: 'constant'. 'cosine' decays to 0; 'step' multiplies by 0.1 at
    # each `step_at`.
    schedule: str = 'constant'
    step_at: tuple[float, ...] = (0.5, 0.75)  # fractions of the run, for 'step'
    warmup_steps: int = 0  # steps of linear warm-up from 0
    clip_norm: float = 0.0  # largest norm of the gradient; 0: no clipping
    weight_decay: float = 0.0  # AdamW's, applied to kernels
    b1: float = 0.9
    b2: float = 0.99
    backbone_rate: float = 1.0  # learning rate of the backbone, relative to `learning_rate`
    # Parts of the model that are not trained: 'backbone', 'backbone/stages/0', ... In the released
    # code this is ('backbone',), because its name filter matches nothing, but batch norm still uses
    # batch statistics.
    frozen: tuple[str, ...] = ()
    # Decay of the moving averages of parameters and running statistics, which are also scored; 0:
    # none.
    ema: float = 0.0
    # Step after which batch norm uses its running statistics, as at inference; 0: never. Batch
    # statistics over two groups reveal what each group shares. Weights that rely on this fail on a
    # group that comes alone, and these steps correct them.
    freeze_batch_norm_after: int = 0
    backbone_weights: str = ''  # file of ImageNet weights; '' starts from random weights
    # A trained network to start from, as predict.py takes it: a run, a folder, a .pth file or a hub
    # id. Its classifier is not loaded if it has other classes.
    initial_weights: str = ''
    # Start the GAM's projections as the identity, even with `initial_weights`; see
    # `GroupAffinity.become_identity`. With frozen=('gam',) they stay the identity.
    identity_gam: bool = False
    # Probability that the groups of a pair take their consensus from the masked x5 of their first
    # image instead of the GAM, so that the decoder also learns to follow one marked example.
    example: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        _require(self.steps >= 0, 'train.steps', 'must not be negative')
        _require(self.steps > 0 or self.epochs > 0, 'train.epochs', 'must be positive')
        _require(self.learning_rate > 0, 'train.learning_rate', 'must be positive')
        _choice(self.schedule, 'train.schedule', 'constant', 'cosine', 'step')
        _require(
            all(0 < part < 1 for part in self.step_at),
            'train.step_at',
            f'{self.step_at} are not parts of a run, between 0 and 1',
        )
        for name in (
            'backbone_rate',
            'warmup_steps',
            'clip_norm',
            'weight_decay',
            'freeze_batch_norm_after',
            'seed',
        ):
            _require(getattr(self, name) >= 0, f'train.{name}', 'must not be negative')
        _require(
            not self.steps or self.warmup_steps < self.steps,
            'train.warmup_steps',
            f'{self.warmup_steps} must be below train.steps={self.steps}',
        )
        _require(0 <= self.example <= 1, 'train.example', f'{self.example} is not in [0, 1]')
        for name in ('b1', 'b2', 'ema'):
            _require(0 <= getattr(self, name) < 1, f'train.{name}', 'must be in [0, 1)')


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """How a run is distributed, logged and saved; these may change when a run resumes."""

    # Devices along pairs of groups and along the images of a group, such as (2, 4); (): automatic.
    mesh: tuple[int, ...] = ()
    # What the backward pass recomputes instead of storing: 'none'; 'light', the operations between
    # convolutions; 'full', everything inside each stage.
    remat: str = 'none'
    # Stop after this many updates in a row with a non-finite loss or gradient, checked every
    # `log_every` steps.
    max_skipped: int = 10
    log_every: int = 10  # steps
    wandb: str = ''  # project on Weights & Biases; '': off
    picture_every: int = 500  # steps between `image | truth | map` of a fixed pair; 0: never
    evaluate_every: int = 0  # steps between scores of data.eval_sets; 0: never
    profile: tuple[int, ...] = ()  # (first, last) step of a profiler trace; (): none
    checkpoint_every: int = 500  # steps
    keep_latest: int = 2  # checkpoints
    keep_best: int = 1  # checkpoints, by S over data.eval_sets, if scored
    keep_every: int = 0  # steps between checkpoints that are never deleted; 0: none

    def __post_init__(self) -> None:
        _require(
            not self.mesh or (len(self.mesh) == 2 and min(self.mesh) >= 1),
            'run.mesh',
            f'{self.mesh} is neither () nor (devices along pairs, along images)',
        )
        _choice(self.remat, 'run.remat', 'none', 'light', 'full')
        steps = self.profile
        _require(
            not steps or (len(steps) == 2 and 1 <= steps[0] <= steps[1]),
            'run.profile',
            f'{self.profile} is neither () nor (first step, last step)',
        )
        for name in ('max_skipped', 'log_every', 'checkpoint_every', 'keep_latest'):
            _require(getattr(self, name) >= 1, f'run.{name}', 'must be at least 1')
        for name in ('picture_every', 'evaluate_every', 'keep_best', 'keep_every'):
            _require(getattr(self, name) >= 0, f'run.{name}', 'must not be negative')


@dataclasses.dataclass(frozen=True)
class Config:
    """All settings of a run."""

    model: ModelConfig = ModelConfig()
    loss: LossConfig = LossConfig()
    data: DataConfig = DataConfig()
    augment: AugmentConfig = AugmentConfig()
    train: TrainConfig = TrainConfig()
    run: RunConfig = RunConfig()

    def __post_init__(self) -> None:
        _require(
            self.model.gam or not self.train.identity_gam, 'train.identity_gam', 'needs model.gam'
        )
        _require(self.model.gam or not self.train.example, 'train.example', 'needs model.gam')
        _require(
            bool(self.data.eval_sets) or not self.run.evaluate_every,
            'data.eval_sets',
            'names no set; run.evaluate_every needs one',
        )
        masked_gst = self.loss.gst > 0 and self.loss.gst_features == 'masked'
        _require(
            self.model.racm or not masked_gst,
            'loss.gst_features',
            "'masked' needs model.racm; set loss.gst to 0 or gst_features to 'raw'",
        )


def released(config: Config) -> Config:
    """Return `config` with every field that differs between paper and released code as released."""
    replace = dataclasses.replace
    return Config(
        model=replace(config.model, racm_mask='conv'),
        loss=replace(
            config.loss,
            bce=120.0,
            iou=2.0,
            iou_reduction='sum',
            gst=12.0,
            gst_margin=0.1,
            gst_features='raw',
            racm=10.0,
        ),
        data=replace(config.data, max_images=26, labels='per_set', cut_epochs=True),
        augment=config.augment,
        train=replace(
            config.train,
            epochs=350,
            learning_rate=1.625e-4,
            frozen=('backbone',),
        ),
        run=config.run,
    )
