"""ResNet-50 as five stages that end at the sizes of VGG-16's (He et al., CVPR 2016).

As in the released code, the max pooling after the first convolution is left out: x1 and x2 have
half of the image's height and width, x5 a sixteenth. The stride of a block is in its 3x3
convolution, as in torchvision.
"""

import jax
from flax import nnx

from gconet_jax.models import layers

# Inner channels and number of the blocks of stages 2 to 5; a block's output has EXPANSION times as
# many. A stage after the second begins by halving height and width. The classifier is not used.
STAGES = ((64, 3), (128, 4), (256, 6), (512, 3))
EXPANSION = 4


class ResNet50(layers.Rematerialized):
    """The backbone: images to the features x1 to x5.

    Attributes:
      channels: output channels of the five stages.
      stages: five lists of layers: the first convolution, then blocks.
    """

    def __init__(self, *, width: float, rngs: nnx.Rngs):
        inputs = max(round(64 * width), 1)
        first = layers.kaiming_conv(3, inputs, 7, stride=2, bias=False, rngs=rngs)
        stages, channels = [nnx.List([layers.ConvNormReLU(first, norm=True)])], [inputs]
        for number, (hidden, count) in enumerate(STAGES):
            hidden = max(round(hidden * width), 1)
            stage = []
            for block in range(count):
                stride = 2 if number and not block else 1
                stage.append(Bottleneck(inputs, hidden, stride, rngs=rngs))
                inputs = EXPANSION * hidden
            stages.append(nnx.List(stage))
            channels.append(inputs)
        self.stages = nnx.List(stages)
        self.channels = tuple(channels)

    def __call__(self, images: jax.Array, valid: jax.Array) -> tuple[jax.Array, ...]:
        """(B, H, W, 3) normalised images -> x1 (B, H/2, W/2, 64), x2 (B, H/2, W/2, 256) ...

        ... x5 (B, H/16, W/16, 2048); valid (B,) bool.
        """
        features = []
        x = images
        for stage in self.stages:
            x = self.rematerialized(layers.run)(tuple(stage), x, valid)
            features.append(x)
        return tuple(features)


class Bottleneck(nnx.Module):
    """1x1, 3x3 and 1x1 convolutions beside a skip, which is projected if the shape changes."""

    def __init__(self, inputs: int, hidden: int, stride: int, *, rngs: nnx.Rngs):
        def layer(inputs: int, outputs: int, size: int, stride: int = 1) -> layers.ConvNorm:
            conv = layers.kaiming_conv(inputs, outputs, size, stride=stride, bias=False, rngs=rngs)
            return layers.ConvNorm(conv, norm=True)

        outputs = EXPANSION * hidden
        self.first = layer(inputs, hidden, 1)
        self.middle = layer(hidden, hidden, 3, stride)
        self.last = layer(hidden, outputs, 1)
        same = stride == 1 and inputs == outputs
        self.skip = None if same else layer(inputs, outputs, 1, stride)

    def __call__(self, x: jax.Array, valid: jax.Array) -> jax.Array:
        """x (B, H, W, inputs), valid (B,) bool -> (B, H / stride, W / stride, 4 hidden)."""
        skip = x if self.skip is None else self.skip(x, valid)
        x = nnx.relu(self.first(x, valid))
        x = nnx.relu(self.middle(x, valid))
        return nnx.relu(self.last(x, valid) + skip)
