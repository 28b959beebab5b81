"""ResNet-50 in five stages (He et al., CVPR 2016).

As in the released code, there is no max pooling after the first convolution. x1 and x2 have 1/2 of
the image's height and width; x5 has 1/16, as in VGG-16. As in torchvision, the stride of a block is
in its 3x3 convolution.
"""

import jax
from flax import nnx

from gconet_jax.models import layers

# Inner channels and number of blocks in stages 2 to 5; a block has EXPANSION times as many output
# channels. Stages 3 to 5 start by halving height and width. There is no classifier.
STAGES = ((64, 3), (128, 4), (256, 6), (512, 3))
EXPANSION = 4


class ResNet50(layers.Rematerialized):
    """Backbone that maps images to the features x1 to x5.

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
        """Return the features x1 to x5.

        Args:
          images: (B, H, W, 3), normalised.
          valid: (B,) bool.

        Returns:
          x1 (B, H/2, W/2, 64), x2 (B, H/2, W/2, 256), ..., x5 (B, H/16, W/16, 2048), at width 1.
        """
        features = []
        x = images
        for stage in self.stages:
            x = self.rematerialized(layers.run)(tuple(stage), x, valid)
            features.append(x)
        return tuple(features)


class Bottleneck(nnx.Module):
    """1x1, 3x3 and 1x1 convolutions with a skip, which is projected if the shape changes."""

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
        """Map x (B, H, W, inputs), valid (B,) to (B, H / stride, W / stride, 4 hidden)."""
        skip = x if self.skip is None else self.skip(x, valid)
        x = nnx.relu(self.first(x, valid))
        x = nnx.relu(self.middle(x, valid))
        return nnx.relu(self.last(x, valid) + skip)
