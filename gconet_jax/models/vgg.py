"""VGG-16 in five stages, with or without batch norm (Simonyan and Zisserman, 2015)."""

import jax
from flax import nnx

from gconet_jax.models import layers

# Output channels of the convolutions in each stage. Stages 2 to 5 start by halving height and
# width. VGG-16's last pooling and its classifier are left out.
STAGES = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))


class VGG16(layers.Rematerialized):
    """Backbone that maps images to the features x1 to x5.

    Attributes:
      channels: output channels of the five stages.
      stages: five lists of layers.
    """

    def __init__(self, *, batch_norm: bool, width: float, rngs: nnx.Rngs):
        stages, inputs = [], 3
        for outputs in STAGES:
            stage = []
            for channels in outputs:
                channels = max(round(channels * width), 1)
                conv = layers.kaiming_conv(inputs, channels, 3, rngs=rngs)
                stage.append(layers.ConvNormReLU(conv, norm=batch_norm))
                inputs = channels
            stages.append(nnx.List(stage))
        self.stages = nnx.List(stages)
        self.channels = tuple(max(round(s[-1] * width), 1) for s in STAGES)

    def __call__(self, images: jax.Array, valid: jax.Array) -> tuple[jax.Array, ...]:
        """Return the features x1 to x5.

        Args:
          images: (B, H, W, 3), normalised.
          valid: (B,) bool.

        Returns:
          x1 (B, H, W, 64), ..., x5 (B, H/16, W/16, 512), at width 1.
        """
        features = []
        x = images
        for index, stage in enumerate(self.stages):
            if index:
                x = layers.halve(x)
            x = self.rematerialized(layers.run)(tuple(stage), x, valid)
            features.append(x)
        return tuple(features)
