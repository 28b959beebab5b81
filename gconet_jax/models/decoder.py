"""The decoder: upsamples consensus-weighted features to the size of the image."""

from typing import NamedTuple

import jax
from flax import nnx

from gconet_jax.models import layers
from gconet_jax.models.resize import resize
from gconet_jax.precision import precise


class DecoderOutput(NamedTuple):
    """The decoder's final features, and the intermediate ones for supervision or display."""

    p1: jax.Array  # (B, H, W, 32), at image size
    stages: tuple[jax.Array, ...]  # the top block's output, then each stage's: (B, h, w, C) each
    side_logits: tuple[jax.Array, ...]  # at the sizes of x3, x2 and x1: (B, h, w, 1) each; or ()


class Block(nnx.Module):
    """The released code's `ResBlk`, which has no skip connection and no final ReLU."""

    def __init__(self, inputs: int, outputs: int, hidden: int, *, norm: bool, rngs: nnx.Rngs):
        self.first = layers.conv_norm(inputs, hidden, 3, norm=norm, rngs=rngs)
        self.last = layers.conv_norm(hidden, outputs, 3, norm=norm, rngs=rngs)

    def __call__(self, x: jax.Array, valid: jax.Array) -> jax.Array:
        """Map x (B, h, w, inputs), valid (B,) to (B, h, w, outputs)."""
        return self.last(nnx.relu(self.first(x, valid)), valid)


class UpsamplingBlock(nnx.Module):
    """The conference model's three convolutions after each upsampling (`DSLayer`)."""

    def __init__(self, channels: int, hidden: int, *, norm: bool, rngs: nnx.Rngs):
        self.first = layers.conv_norm(channels, hidden, 3, norm=norm, rngs=rngs)
        self.middle = layers.conv_norm(hidden, hidden, 3, norm=norm, rngs=rngs)
        self.last = layers.conv_norm(hidden, channels, 1, norm=norm, rngs=rngs)

    def __call__(self, x: jax.Array, valid: jax.Array) -> jax.Array:
        """Map x (B, h, w, channels), valid (B,) to the same shape."""
        x = nnx.relu(self.first(x, valid))
        x = nnx.relu(self.middle(x, valid))
        return nnx.relu(self.last(x, valid))


class SideOutput(nnx.Module):
    """Map of an intermediate decoder stage, which the conference model supervises."""

    def __init__(self, channels: int, hidden: int, *, rngs: nnx.Rngs):
        self.hidden = layers.conv(channels, hidden, 1, rngs=rngs)
        self.predict = layers.conv(hidden, 1, 1, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Map x (B, h, w, channels) to logits (B, h, w, 1)."""
        return self.predict(precise(nnx.relu(self.hidden(x))))


class Stage(nnx.Module):
    """A decoder stage: a block, an upsampling to the skip's size, and the lateral added."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        lateral: int,
        hidden: int,
        *,
        norm: bool,
        block_lateral: bool,
        block_after: bool,
        rngs: nnx.Rngs,
    ):
        self.block = Block(inputs, outputs, hidden, norm=norm, rngs=rngs)
        self.after = UpsamplingBlock(outputs, hidden, norm=norm, rngs=rngs) if block_after else None
        if block_lateral:
            self.lateral = Block(lateral, outputs, hidden, norm=norm, rngs=rngs)
        else:
            self.lateral = layers.conv_norm(lateral, outputs, 1, norm=False, rngs=rngs)

    def __call__(
        self, x: jax.Array, skip: jax.Array, valid: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """Upsample x and add the lateral of `skip`.

        Args:
          x: (B, h, w, inputs).
          skip: (B, H, W, lateral).
          valid: (B,) bool.

        Returns:
          The sum, and the upsampled x without the lateral; (B, H, W, outputs) each.
        """
        x = resize(self.block(x, valid), skip.shape[1], skip.shape[2])
        if self.after is not None:
            x = self.after(x, valid)
        return x + self.lateral(skip, valid), x


class Decoder(layers.Rematerialized):
    """A top block, four stages with laterals from x4 down to x1, a last block (section 3.1)."""

    def __init__(
        self,
        channels: tuple[int, ...],
        hidden: int,
        *,
        norm: bool,
        block_laterals: bool,
        block_after_upsampling: bool,
        supervised: int,
        rngs: nnx.Rngs,
    ):
        """Build the decoder.

        Args:
          channels: channels of the backbone's x1 to x5.
          hidden: inner channels of the blocks; 64 at full width.
          norm: use batch norm.
          block_laterals: use blocks as laterals instead of 1x1 convolutions.
          block_after_upsampling: add three convolutions after each upsampling.
          supervised: number of supervised maps, 1 or 4; 4 adds three side outputs.
          rngs: for the initial weights.
        """
        top = 4 * channels[0]  # half of the channels of VGG-16's x5, an eighth of ResNet-50's
        self.top = Block(channels[-1], top, hidden, norm=norm, rngs=rngs)
        widths = [top, top, top // 2, top // 4, top // 8]
        self.stages = nnx.List(
            [
                Stage(
                    inputs,
                    outputs,
                    lateral,
                    hidden,
                    norm=norm,
                    block_lateral=block_laterals,
                    block_after=block_after_upsampling,
                    rngs=rngs,
                )
                for inputs, outputs, lateral in zip(
                    widths[:-1], widths[1:], channels[-2::-1], strict=True
                )
            ]
        )
        self.last = Block(widths[-1], widths[-1], hidden, norm=norm, rngs=rngs)
        sides = widths[2:] if supervised == 4 else []
        self.sides = nnx.List([SideOutput(c, hidden // 2, rngs=rngs) for c in sides])
        self.channels = widths[-1]

    def __call__(
        self,
        features: jax.Array,
        skips: tuple[jax.Array, ...],
        size: tuple[int, ...],
        valid: jax.Array,
    ) -> DecoderOutput:
        """Decode features to the size of the image.

        Args:
          features: (B, h, w, C), x5 weighted by the consensus.
          skips: (x1, ..., x4), (B, H', W', C') each.
          size: (height, width) of the images, pixels.
          valid: (B,) bool.
        """
        run = self.rematerialized(lambda part, *inputs: part(*inputs))
        x = run(self.top, features, valid)
        stages, upsampled = [x], []
        for stage, skip in zip(self.stages, reversed(skips), strict=True):
            x, before_lateral = run(stage, x, skip, valid)
            stages.append(x)
            upsampled.append(before_lateral)
        p1 = resize(run(self.last, x, valid), size[0], size[1])
        side_logits = tuple(side(u) for side, u in zip(self.sides, upsampled[1:], strict=False))
        return DecoderOutput(p1, tuple(stages), side_logits)
