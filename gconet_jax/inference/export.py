"""Export to ONNX and StableHLO; the network takes one group of any number of images."""

from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
from flax import nnx

from gconet_jax.errors import InputError
from gconet_jax.inference.opsets import DEFAULT_OPSET, OPSETS
from gconet_jax.models.gconet_plus import GCoNetPlus, normalize
from gconet_jax.weights.folding import fold
from gconet_jax.whole_file import whole_file


def export_onnx(
    model: GCoNetPlus, path: str | Path, *, image_size: int, opset: int = DEFAULT_OPSET
) -> None:
    """Write the network with its weights as one ONNX file.

    The input `images` is one group: float32 (N, S, S, 3), RGB in [0, 255], with any N. The outputs
    `map`, `prob` and `thresh` are float32 (N, S, S): M, P and T of the CEM. The graph includes the
    switch from k to `k_fallback`. Weights and computation are float32, regardless of
    `config.model.precision`.

    Args:
        model: the network.
        path: the file to write.
        image_size: S, pixels, a multiple of 16.
        opset: ONNX operator set, one of OPSETS.

    Raises:
        InputError: onnx is not installed, `image_size` or `opset` is not supported, or the weights
            do not fit in an ONNX file.
    """
    if opset not in OPSETS:
        raise InputError(
            f'--opset: {opset} is not supported. Choose {OPSETS[0]} to {OPSETS[-1]}; '
            f'{DEFAULT_OPSET} runs in the most programs'
        )
    if image_size < 16 or image_size % 16:
        raise InputError(f'image_size: {image_size} is not a positive multiple of 16')
    try:
        from gconet_jax.inference.onnx_graph import onnx_model
    except ModuleNotFoundError as error:
        raise InputError("ONNX export needs onnx: pip install 'gconet-jax[export]'") from error
    proto = onnx_model(model, image_size=image_size, opset=opset)
    with whole_file(Path(path)) as partial:
        partial.write_bytes(proto.SerializeToString())


def export_stablehlo(model: GCoNetPlus, path: str | Path, *, image_size: int) -> None:
    """Write the network with its weights as serialized StableHLO, for CPUs and CUDA.

    `jax.export.deserialize(path.read_bytes()).call(images)` runs it without this package. Inputs
    and outputs are those of `export_onnx`.

    Args:
        model: the network.
        path: the file to write.
        image_size: S, pixels, a multiple of 16.
    """
    (n,) = jax.export.symbolic_shape('n')
    images = jax.ShapeDtypeStruct((n, image_size, image_size, 3), jnp.float32)
    exported = jax.export.export(jax.jit(_of_group(model)), platforms=('cpu', 'cuda'))(images)
    with whole_file(Path(path)) as partial:
        partial.write_bytes(exported.serialize())


def _of_group(model: GCoNetPlus) -> Callable[[jax.Array], tuple[jax.Array, ...]]:
    folded = fold(model)
    if folded.gam is not None:
        folded.gam.form = 'blockwise'  # JAX compiles the kernel only where there is a GPU

    def run(images: jax.Array) -> tuple[jax.Array, ...]:
        maps = folded.segment(normalize(images)[None], jnp.ones((1, images.shape[0]), bool))
        return nnx.sigmoid(maps.logits[0]), maps.prob[0], maps.thresh[0]

    return run
