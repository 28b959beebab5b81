"""Conversion between the model and the released code's PyTorch `state_dict`, as numpy arrays."""

from collections.abc import Mapping

import jax.numpy as jnp
import numpy as np
from flax import nnx

from gconet_jax.errors import InputError
from gconet_jax.models.gconet_plus import GCoNetPlus
from gconet_jax.weights.torch_names import backbone_layers, from_torch, layer_variables, to_torch

# Entries of all released files that affect no output: 788,001 parameters. `conv_out1` is our
# `predict`, which is used only with the CEM off.
NEVER_USED = (
    'co_x5.conv_output.',
    'co_x5.conv_transform.',
    'co_x5.fc_transform.',
    'conv_out1.',
)
MASK = 'conv_out_mask.'  # in all released files, needed only for training; our `mask`


class WeightsError(InputError):
    """The weights do not fit the model; the message lists every entry at fault."""


def variables(model: GCoNetPlus) -> dict[str, nnx.Variable]:
    """Return the parameters and running statistics of `model` by the released code's names."""
    names: dict[str, nnx.Variable] = {}
    for name, layer in _layers(model):
        names |= layer_variables(name, layer)
    return names


def save_state_dict(model: GCoNetPlus) -> dict[str, np.ndarray]:
    """Return all weights of `model`, float32, with the released code's names and layout."""
    return {
        name: np.ascontiguousarray(to_torch(np.asarray(variable[...], np.float32)))
        for name, variable in variables(model).items()
    }


def released_state_dict(model: GCoNetPlus) -> dict[str, np.ndarray]:
    """Return `save_state_dict` plus the released code's other entries, which are unused, as zeros.

    The released code needs them to load the weights.
    """
    weights = save_state_dict(model)
    channels, p1 = model.backbone.channels[-1], model.decoder.channels
    unused = {
        'co_x5.conv_output': (channels, channels, 1, 1),
        'co_x5.conv_transform': (channels, channels, 1, 1),
        'co_x5.fc_transform': (channels, channels),
        'conv_out1.0': (1, p1, 1, 1),
        'conv_out_mask.0': (1, p1, 1, 1),
    }
    for name, shape in unused.items():
        weights.setdefault(f'{name}.weight', np.zeros(shape, np.float32))
        weights.setdefault(f'{name}.bias', np.zeros(shape[:1], np.float32))
    norms = [name.removesuffix('.running_var') for name in weights if name.endswith('running_var')]
    return weights | {f'{name}.num_batches_tracked': np.zeros((), np.int64) for name in norms}


def copy_weights(source: GCoNetPlus, target: GCoNetPlus) -> None:
    """Copy the weights of a trained network to `target`, in place.

    `target` keeps its own classifier, GCM and RACM mask, which only training uses, where `source`
    has none or has one of another shape.

    Raises:
      WeightsError: the backbones differ, or other entries do not fit; then the message lists them.
    """
    theirs, ours = source.config.backbone, target.config.backbone
    if theirs != ours:
        raise WeightsError(
            f'a network with model.backbone={theirs!r} does not start one with {ours!r}'
        )
    weights, own = save_state_dict(source), save_state_dict(target)
    heads = ('classifier.', 'pred_layer.', MASK)
    for name in [name for name in weights | own if name.startswith(heads)]:
        loaded = weights.pop(name, None)
        if name in own:
            weights[name] = own[name]
            if loaded is not None and loaded.shape == own[name].shape:
                weights[name] = loaded
    load_state_dict(target, weights)


def load_state_dict(
    model: GCoNetPlus, state_dict: Mapping[str, np.ndarray], *, source: str = 'the weights'
) -> None:
    """Load all weights of `model` from a `state_dict` of the released code, in place.

    Args:
      model: a network with the same config as the weights.
      state_dict: numpy arrays by name.
      source: name of the weights in error messages, such as the path of their file.

    Raises:
      WeightsError: entries are missing, unexpected or of the wrong shape. The message lists all of
        them, and the model is left unchanged.
    """
    targets = variables(model)
    loaded, problems = {}, []
    for name, variable in targets.items():
        if name not in state_dict:
            problems.append(f'missing: {name} {tuple(variable.shape)}')
            continue
        value = from_torch(np.asarray(state_dict[name], np.float32))
        if value.shape != variable.shape:
            problems.append(f'shape of {name}: {value.shape} where {variable.shape} is needed')
        loaded[name] = value
    for name in state_dict.keys() - targets.keys():
        if not name.startswith((*NEVER_USED, MASK)) and not name.endswith('.num_batches_tracked'):
            problems.append(f'unexpected: {name}')
    if problems:
        raise WeightsError(
            f'{len(problems)} entries of {source} do not fit the model:\n  '
            + '\n  '.join(sorted(problems))
        )
    for name, value in loaded.items():
        targets[name].set_value(jnp.asarray(value))


def _layers(model: GCoNetPlus):
    """Yield (name, layer) for each layer with weights, in the order of the released code."""
    for _, name, layer in backbone_layers(model.backbone):
        yield name, layer
    yield from _decoder_layers(model.decoder)
    if model.gam is not None:
        yield 'co_x5.all_attention.query_transform', model.gam.query
        yield 'co_x5.all_attention.key_transform', model.gam.key
        yield 'co_x5.all_attention.conv6', model.gam.value
    if model.gcm is not None:
        yield 'pred_layer.enlayer.0', model.gcm.hidden
        yield 'pred_layer.predlayer.0', model.gcm.predict
    if model.classifier is not None:
        yield 'classifier', model.classifier
    if model.mask is not None:
        yield 'conv_out_mask.0', model.mask
    if model.predict is not None:
        yield 'conv_out1.0', model.predict
    if model.cem is not None:
        for name, branch in (('binarize', model.cem.prob), ('thresh', model.cem.thresh)):
            prefix = f'db_output_decoder.{name}'
            yield from _conv_norm(branch.first, f'{prefix}.0', f'{prefix}.1')
            yield from _conv_norm(branch.second, f'{prefix}.3', f'{prefix}.4')
            yield f'{prefix}.6', branch.predict


def _decoder_layers(decoder):
    yield from _block('top_layer', decoder.top)
    for number, stage in zip((5, 4, 3, 2), decoder.stages, strict=True):
        yield from _block(f'enlayer{number}', stage.block)
        if stage.after is not None:
            first, second, last = stage.after.first, stage.after.middle, stage.after.last
            prefix = f'dslayer{number}'
            yield from _conv_norm(first, f'{prefix}.conv1', f'{prefix}.bn1')
            yield from _conv_norm(second, f'{prefix}.conv2', f'{prefix}.bn2')
            yield from _conv_norm(last, f'{prefix}.pred_conv', f'{prefix}.pred_bn')
        if hasattr(stage.lateral, 'first'):
            yield from _block(f'latlayer{number}', stage.lateral)
        else:
            yield f'latlayer{number}', stage.lateral.conv
    for number, side in zip((4, 3, 2), decoder.sides, strict=False):
        yield f'conv_out{number}.0', side.hidden
        yield f'conv_out{number}.2', side.predict
    yield from _block('enlayer1', decoder.last)


def _block(name, block):
    yield from _conv_norm(block.first, f'{name}.conv_in', f'{name}.bn_in')
    yield from _conv_norm(block.last, f'{name}.conv_out', f'{name}.bn_out')


def _conv_norm(layer, conv_name, norm_name):
    yield conv_name, layer.conv
    if layer.norm is not None:
        yield norm_name, layer.norm
