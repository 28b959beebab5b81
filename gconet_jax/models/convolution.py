"""The convolution of every layer: odd kernel, padded by half of it; NHWC and HWIO.

On CPUs, three parts are our own where the stride is 1 (docs/performance.md). 3 x 3 kernels of many
channels use fewer multiplications (`winograd`). The gradient with respect to the kernel of a large
image is computed in blocks of patches: XLA computes it as a convolution whose kernel is as large as
the image, at a tenth of the rate of a matrix product. A 1 x 1 kernel with one output channel is a
product with a vector on large images.

`jax.lax.platform_dependent` chooses between them and XLA's convolution when a program is compiled,
so the form follows the device that runs it. The choice is made inside a `custom_vjp`: the backward
pass then keeps the input and the kernel and nothing else, whichever form is chosen.
"""

import jax
import jax.numpy as jnp

from gconet_jax.models.winograd import SIZE, TILE, winograd
from gconet_jax.precision import precise_type

# Numbers of a block of patches, which is to stay in a cache.
BLOCK = 2**19
# Gradients of kernels with more numbers, and of images of fewer positions, are left to XLA: little
# is to be gained there, and its own gradient compiles faster.
LARGEST_KERNEL = 2**18
FEWEST_POSITIONS = 64 * 64
# Where Winograd's form is the faster one: its additions cost as much as they spare when there are
# few channels, and beyond these positions its tiles leave the caches.
FEWEST_CHANNELS = 64
TILED_POSITIONS = range(16 * 16, 64 * 64 + 1)


def convolve(x: jax.Array, kernel: jax.Array, stride: int = 1) -> jax.Array:
    """x (B, H, W, I), kernel (s, s, I, O) of x's type -> (B, ceil(H / stride), ..., O)."""
    if stride > 1 or not (suits_winograd(x, kernel) or suits_blocks(x, kernel)):
        return direct(x, kernel, stride)
    return _convolve(x, kernel)


def direct(x: jax.Array, kernel: jax.Array, stride: int = 1) -> jax.Array:
    """`convolve`, as XLA does it."""
    # Not 'SAME', which under a stride pads the right and the bottom alone; PyTorch pads all around.
    edge = (kernel.shape[0] // 2, kernel.shape[0] // 2)
    return jax.lax.conv_general_dilated(
        x, kernel, (stride, stride), (edge, edge), dimension_numbers=('NHWC', 'HWIO', 'NHWC')
    )


def suits_winograd(x: jax.Array, kernel: jax.Array) -> bool:
    """Whether `winograd` is faster than XLA's convolution, and as good: half floats are not."""
    height, width = x.shape[1:3]
    return (
        kernel.shape[:2] == (SIZE, SIZE)
        and min(kernel.shape[2:]) >= FEWEST_CHANNELS
        and height % TILE == width % TILE == 0
        and height * width in TILED_POSITIONS
        and jnp.finfo(x.dtype).bits >= 32
    )


def suits_blocks(x: jax.Array, kernel: jax.Array) -> bool:
    """Whether `kernel_gradient` is faster than XLA's."""
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
    """Gradients with respect to x and the kernel, for `gradient` (B, H, W, O) of the result."""
    of_x = _on_cpu(gradient, mirrored(kernel))
    if suits_blocks(x, kernel):
        return of_x, kernel_gradient(x, gradient, kernel.shape[0])
    return of_x, jax.vjp(lambda kernel: direct(x, kernel), kernel)[1](gradient)[0]


def _gradients_of_direct(
    x: jax.Array, kernel: jax.Array, gradient: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """`_gradients_on_cpu`, as XLA computes them."""
    return jax.vjp(direct, x, kernel)[1](gradient)


def mirrored(kernel: jax.Array) -> jax.Array:
    """(s, s, I, O) -> (s, s, O, I), whose convolution takes a gradient back to the inputs."""
    return jnp.flip(kernel, (0, 1)).swapaxes(2, 3)


def kernel_gradient(x: jax.Array, gradient: jax.Array, size: int) -> jax.Array:
    """x (B, H, W, I), gradient (B, H, W, O) -> the gradient (size, size, I, O) of the kernel.

    Sum over all positions p of x[p + offset] gradient[p], for the size² offsets at once: matrix
    products of a few rows' patches with their gradients. The patches are of the operand with fewer
    channels.
    """
    if x.shape[3] > gradient.shape[3]:
        return mirrored(kernel_gradient(gradient, x, size))
    (b, h, w, inputs), outputs = x.shape, gradient.shape[3]
    offsets = [(i, j) for i in range(size) for j in range(size)]
    across = w * inputs * len(offsets)
    rows = max(r for r in range(1, h + 1) if h % r == 0 and (r == 1 or r * across <= BLOCK))
    edge = (size // 2, size // 2)
    kind = precise_type(x.dtype)  # of sums over up to a million positions
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
