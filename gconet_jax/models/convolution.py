"""The convolution of all layers: odd square kernels with half-kernel zero padding; NHWC, HWIO.

On CPUs, three cases of stride 1 have faster forms than XLA's (docs/performance.md):

- 3 x 3 kernels with many channels use fewer multiplications (`winograd`).
- The kernel gradient on large images is computed in blocks of patches (`kernel_gradient`). XLA
  computes it as a convolution with a kernel as large as the image, at a tenth of the rate of a
  matrix product.
- A 1 x 1 kernel with one output channel is a product with a vector on large images.

`jax.lax.platform_dependent` selects the form for the device at compile time. The selection is
inside a `custom_vjp`, so that for every form the backward pass keeps only the input and the kernel.
"""

import jax
import jax.numpy as jnp

from gconet_jax.models.winograd import SIZE, TILE, winograd
from gconet_jax.precision import precise_type

# Largest number of elements in a block of patches, so that it stays in the cache.
BLOCK = 2**19
# XLA computes the gradients of kernels with more elements and of images with fewer positions: there
# is little to gain there, and XLA's gradient compiles faster.
LARGEST_KERNEL = 2**18
FEWEST_POSITIONS = 64 * 64
# Range in which Winograd's form is faster. With fewer channels, its additions cost as much as they
# save; on larger images, its tiles do not fit in the caches.
FEWEST_CHANNELS = 64
TILED_POSITIONS = range(16 * 16, 64 * 64 + 1)


def convolve(x: jax.Array, kernel: jax.Array, stride: int = 1) -> jax.Array:
    """Convolve x with an odd square kernel, padded with zeros by half of it.

    Args:
      x: (B, H, W, I).
      kernel: (s, s, I, O), s odd, of x's type.
      stride: along both axes.

    Returns:
      (B, ceil(H / stride), ceil(W / stride), O), of x's type.
    """
    if stride > 1 or not (suits_winograd(x, kernel) or suits_blocks(x, kernel)):
        return direct(x, kernel, stride)
    return _convolve(x, kernel)


def direct(x: jax.Array, kernel: jax.Array, stride: int = 1) -> jax.Array:
    """Compute `convolve` with XLA's convolution."""
    # PyTorch pads all sides. With a stride, 'SAME' would pad only the right and the bottom.
    edge = (kernel.shape[0] // 2, kernel.shape[0] // 2)
    return jax.lax.conv_general_dilated(
        x, kernel, (stride, stride), (edge, edge), dimension_numbers=('NHWC', 'HWIO', 'NHWC')
    )


def suits_winograd(x: jax.Array, kernel: jax.Array) -> bool:
    """Return True if `winograd` is faster than XLA's convolution here, and as accurate.

    It is not accurate enough in 16-bit types.
    """
    height, width = x.shape[1:3]
    return (
        kernel.shape[:2] == (SIZE, SIZE)
        and min(kernel.shape[2:]) >= FEWEST_CHANNELS
        and height % TILE == width % TILE == 0
        and height * width in TILED_POSITIONS
        and jnp.finfo(x.dtype).bits >= 32
    )


def suits_blocks(x: jax.Array, kernel: jax.Array) -> bool:
    """Return True if `kernel_gradient` is faster than XLA's gradient here."""
    return x.shape[1] * x.shape[2] >= FEWEST_POSITIONS and kernel.size <= LARGEST_KERNEL


@jax.custom_vjp
def _convolve(x: jax.Array, kernel: jax.Array) -> jax.Array:
    return jax.lax.platform_dependent(x, kernel, cpu=_on_cpu, default=direct)


def _forward(x: jax.Array, kernel: jax.Array):
    return _convolve(x, kernel), (x, kernel)


def _backward(kept: tuple[jax.Array, jax.Array], gradient: jax.Array):
    return jax.lax.platform_dependent(
        *kept, gradient, cpu=_gradients_on_cpu, default=_gradients_of_direct
    )


_convolve.defvjp(_forward, _backward)


def _on_cpu(x: jax.Array, kernel: jax.Array) -> jax.Array:
    if suits_winograd(x, kernel):
        return winograd(x, kernel)
    if kernel.shape[:2] == (1, 1) and kernel.shape[3] == 1:
        return (x @ kernel[0, 0, :, 0])[..., None]
    return direct(x, kernel)


def _gradients_on_cpu(
    x: jax.Array, kernel: jax.Array, gradient: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Return the gradients of x and the kernel, given that of the result, (B, H, W, O)."""
    of_x = _on_cpu(gradient, mirrored(kernel))
    if suits_blocks(x, kernel):
        return of_x, kernel_gradient(x, gradient, kernel.shape[0])
    return of_x, jax.vjp(lambda kernel: direct(x, kernel), kernel)[1](gradient)[0]


def _gradients_of_direct(
    x: jax.Array, kernel: jax.Array, gradient: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Compute the same gradients as `_gradients_on_cpu` with XLA."""
    return jax.vjp(direct, x, kernel)[1](gradient)


def mirrored(kernel: jax.Array) -> jax.Array:
    """Return the kernel (s, s, O, I) whose convolution propagates a gradient back to the input.

    `kernel` is (s, s, I, O).
    """
    return jnp.flip(kernel, (0, 1)).swapaxes(2, 3)


def kernel_gradient(x: jax.Array, gradient: jax.Array, size: int) -> jax.Array:
    """Return the gradient of the kernel, (size, size, I, O), at stride 1.

    For each of the size² offsets it is the sum over all positions p of x[p + offset] gradient[p].
    All offsets are computed together, as matrix products of the patches of a few rows with the
    gradients there. Patches are taken from the operand with fewer channels.

    Args:
      x: (B, H, W, I), the input.
      gradient: (B, H, W, O), the gradient of the result.
      size: height and width of the kernel.
    """
    if x.shape[3] > gradient.shape[3]:
        return mirrored(kernel_gradient(gradient, x, size))
    (b, h, w, inputs), outputs = x.shape, gradient.shape[3]
    offsets = [(i, j) for i in range(size) for j in range(size)]
    across = w * inputs * len(offsets)
    rows = max(r for r in range(1, h + 1) if h % r == 0 and (r == 1 or r * across <= BLOCK))
    edge = (size // 2, size // 2)
    kind = precise_type(x.dtype)  # the sums are over up to a million positions
    padded = jnp.pad(x, ((0, 0), edge, edge, (0, 0)))

    def add(index: jax.Array, total: jax.Array) -> jax.Array:
        image, top = index // (h // rows), index % (h // rows) * rows
        zero = jnp.zeros_like(index)
        start = image, top, zero, zero
        seen = jax.lax.dynamic_slice(padded, start, (1, rows + size - 1, *padded.shape[2:]))[0]
        patches = [seen[i : i + rows, j : j + w] for i, j in offsets]
        patches = jnp.concatenate(patches, axis=-1).reshape(rows * w, -1)
        part = jax.lax.dynamic_slice(gradient, start, (1, rows, w, outputs))
        part = part.reshape(rows * w, outputs)
        return total + jnp.matmul(patches.T, part, preferred_element_type=kind)

    zero = jnp.zeros((len(offsets) * inputs, outputs), kind)
    total = jax.lax.fori_loop(0, b * h // rows, add, zero)
    return total.astype(x.dtype).reshape(size, size, inputs, outputs)
