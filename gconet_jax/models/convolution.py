"""The convolution of every layer: odd kernel, padded by half of it; NHWC and HWIO.

On CPUs the gradient with respect to the kernel is our own, unless there is a stride. XLA computes
it as a convolution whose kernel is as large as the image, for which it transposes both operands, at
a tenth of the rate of a matrix product (docs/performance.md).
"""

import jax
import jax.numpy as jnp

# Numbers of a block of patches, which is to stay in a cache.
BLOCK = 2**19
# Kernels with more numbers, and images of fewer positions, are left to XLA: little is to be gained
# there, and its own gradient compiles faster.
LARGEST_KERNEL = 2**18
FEWEST_POSITIONS = 64 * 64


def convolve(x: jax.Array, kernel: jax.Array, stride: int = 1) -> jax.Array:
    """x (B, H, W, I), kernel (s, s, I, O) of x's type -> (B, ceil(H / stride), ..., O)."""
    few = x.shape[1] * x.shape[2] < FEWEST_POSITIONS
    large = kernel.size > LARGEST_KERNEL
    if jax.default_backend() != 'cpu' or stride > 1 or few or large:
        return _convolve(x, kernel, stride)
    if kernel.shape[:2] == (1, 1) and kernel.shape[3] == 1:
        return (x @ kernel[0, 0, :, 0])[..., None]
    return _on_cpu(x, kernel)


def _convolve(x: jax.Array, kernel: jax.Array, stride: int = 1) -> jax.Array:
    # Not 'SAME', which under a stride pads the right and the bottom alone; PyTorch pads all around.
    edge = (kernel.shape[0] // 2, kernel.shape[0] // 2)
    return jax.lax.conv_general_dilated(
        x, kernel, (stride, stride), (edge, edge), dimension_numbers=('NHWC', 'HWIO', 'NHWC')
    )


@jax.custom_vjp
def _on_cpu(x: jax.Array, kernel: jax.Array) -> jax.Array:
    return _convolve(x, kernel)


def _forward(x: jax.Array, kernel: jax.Array):
    return _convolve(x, kernel), (x, kernel)


def _backward(kept: tuple[jax.Array, jax.Array], gradient: jax.Array):
    x, kernel = kept
    (of_x,) = jax.vjp(lambda x: _convolve(x, kernel), x)[1](gradient)
    return of_x, kernel_gradient(x, gradient, kernel.shape[0])


_on_cpu.defvjp(_forward, _backward)


def kernel_gradient(x: jax.Array, gradient: jax.Array, size: int) -> jax.Array:
    """x (B, H, W, I), gradient (B, H, W, O) -> the gradient (size, size, I, O) of the kernel.

    Sum over all positions p of x[p + offset] gradient[p], for the size² offsets at once: matrix
    products of a few rows' patches with their gradients. The patches are of the operand with fewer
    channels.
    """
    if x.shape[3] > gradient.shape[3]:
        mirrored = kernel_gradient(gradient, x, size)
        return jnp.flip(mirrored, (0, 1)).swapaxes(2, 3)
    (b, h, w, inputs), outputs = x.shape, gradient.shape[3]
    offsets = [(i, j) for i in range(size) for j in range(size)]
    across = w * inputs * len(offsets)
    rows = max(r for r in range(1, h + 1) if h % r == 0 and (r == 1 or r * across <= BLOCK))
    edge = (size // 2, size // 2)
    padded = jnp.pad(x, ((0, 0), edge, edge, (0, 0)))

    def add(index: jax.Array, total: jax.Array) -> jax.Array:
        image, top = index // (h // rows), index % (h // rows) * rows
        zero = jnp.zeros_like(index)
        start = image, top, zero, zero
        seen = jax.lax.dynamic_slice(padded, start, (1, rows + size - 1, *padded.shape[2:]))[0]
        patches = [seen[i : i + rows, j : j + w] for i, j in offsets]
        patches = jnp.concatenate(patches, axis=-1).reshape(rows * w, -1)
        part = jax.lax.dynamic_slice(gradient, start, (1, rows, w, outputs))
        return total + patches.T @ part.reshape(rows * w, outputs)

    zero = jnp.zeros((len(offsets) * inputs, outputs), x.dtype)
    total = jax.lax.fori_loop(0, b * h // rows, add, zero)
    return total.reshape(size, size, inputs, outputs)
