"""The network for other programs: ONNX and StableHLO, one group in, maps out, of any number."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from gconet_jax.errors import InputError
from gconet_jax.models.gconet_plus import GCoNetPlus, normalize
from gconet_jax.weights.folding import fold
from gconet_jax.whole_file import whole_file

OUTPUTS = ('map', 'prob', 'thresh')


def export_onnx(model: GCoNetPlus, path: str | Path, *, image_size: int) -> None:
    """Writes an ONNX file, by jax2onnx, that holds the weights.

    Its input `images` is float32 (N, S, S, 3), RGB in [0, 255], of any N: the whole group. Its
    outputs are `map`, `prob` and `thresh`, float32 (N, S, S): M, P and T of the CEM, whose switch
    of k is in the file.

    Raises:
        InputError: jax2onnx is not installed.
    """
    try:
        import jax2onnx
    except ImportError as error:
        raise InputError("ONNX needs jax2onnx: pip install 'gconet-jax[export]'") from error
    for name in ('jax2onnx', 'onnx_ir'):  # which tell of every plugin and every shape
        logging.getLogger(name).setLevel(logging.CRITICAL)
    proto: Any = jax2onnx.to_onnx(
        _of_group(model),
        [('N', image_size, image_size, 3)],
        model_name='gconet_plus',
        input_names=['images'],
        output_names=OUTPUTS,
    )
    with whole_file(Path(path)) as partial:
        # Written by us: jax2onnx would put large weights into a second file.
        partial.write_bytes(proto.SerializeToString())


def export_stablehlo(model: GCoNetPlus, path: str | Path, *, image_size: int) -> None:
    """Writes what `jax.export.deserialize(path.read_bytes()).call(images)` runs, without this code.

    For CPUs and CUDA, with the inputs and outputs of `export_onnx`.
    """
    (n,) = jax.export.symbolic_shape('n')
    images = jax.ShapeDtypeStruct((n, image_size, image_size, 3), jnp.float32)
    exported = jax.export.export(jax.jit(_of_group(model)), platforms=('cpu', 'cuda'))(images)
    with whole_file(Path(path)) as partial:
        partial.write_bytes(exported.serialize())


def _of_group(model: GCoNetPlus) -> Callable[[jax.Array], tuple[jax.Array, ...]]:
    folded = fold(model)

    def run(images: jax.Array) -> tuple[jax.Array, ...]:
        maps = folded.segment(normalize(images)[None], jnp.ones((1, images.shape[0]), bool))
        return nnx.sigmoid(maps.logits[0]), maps.prob[0], maps.thresh[0]

    return run
