"""ResNet-50: features match torchvision's, and weights load by name."""

import json
import zlib
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from test_folding import has_batch_norm, trained_model

from gconet_jax.config import ModelConfig
from gconet_jax.models.gconet_plus import abstract_model
from gconet_jax.models.layers import with_running_average
from gconet_jax.models.resnet import ResNet50
from gconet_jax.weights.backbone import load_backbone
from gconet_jax.weights.folding import fold
from gconet_jax.weights.pretrained import load_pretrained
from gconet_jax.weights.torch_file import write_state_dict
from gconet_jax.weights.torch_gconet import (
    WeightsError,
    copy_weights,
    released_state_dict,
    variables,
)

# From torchvision 0.28: the shapes of its `state_dict`, and the values of the five features at
# PLACES positions each, for `seeded` weights and `images` under running statistics (`python -m
# tests.golden_resnet`).
GOLDEN = Path(__file__).parent / 'golden' / 'resnet50.json'
PLACES = 200


def seeded(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Return weights that keep the features near 1, different for each name."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    if len(shape) == 4:
        return (rng.standard_normal(shape) * np.sqrt(2 / np.prod(shape[1:]))).astype(np.float32)
    if name.endswith(('running_var', 'weight')):
        return rng.uniform(0.5, 1, shape).astype(np.float32)
    return (0.1 * rng.standard_normal(shape)).astype(np.float32)


def images() -> np.ndarray:
    """Return images (2, 64, 96, 3); height and width differ, to catch a swap."""
    return np.random.default_rng(0).standard_normal((2, 64, 96, 3)).astype(np.float32)


def at_places(feature: np.ndarray) -> np.ndarray:
    flat = np.asarray(feature).ravel()
    return flat[np.random.default_rng(1).integers(0, flat.size, PLACES)]


def test_features_are_those_of_torchvision(tmp_path):
    golden = json.loads(GOLDEN.read_text())
    arrays = {name: seeded(name, tuple(shape)) for name, shape in golden['shapes'].items()}
    write_state_dict(tmp_path / 'resnet50.pth', arrays)
    model = abstract()
    load_backbone(model, tmp_path / 'resnet50.pth')
    graph, weights = nnx.split(with_running_average(model))
    run = jax.jit(lambda weights, x: nnx.merge(graph, weights)(x, jnp.ones(2, bool)))
    features = run(weights, images())
    sizes = [(32, 48, 64), (32, 48, 256), (16, 24, 512), (8, 12, 1024), (4, 6, 2048)]
    assert [feature.shape[1:] for feature in features] == sizes
    for feature, expected in zip(features, golden['features'], strict=True):
        scale = np.abs(expected).max()
        np.testing.assert_allclose(at_places(feature), expected, rtol=0, atol=1e-5 * scale)


def test_a_file_that_does_not_fit_is_told_entry_by_entry(tmp_path):
    shapes = json.loads(GOLDEN.read_text())['shapes']
    arrays = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
    arrays['layer1.0.conv4.weight'] = arrays.pop('layer1.0.conv3.weight')
    arrays['bn1.bias'] = np.zeros(3, np.float32)
    write_state_dict(tmp_path / 'resnet50.pth', arrays)
    with pytest.raises(WeightsError) as error:
        load_backbone(abstract(), tmp_path / 'resnet50.pth')
    told = str(error.value).splitlines()[1:]
    assert [line.strip() for line in told] == [
        'missing: layer1.0.conv3.weight',
        'shape of bn1.bias: (3,), not (64,)',
        'unexpected: layer1.0.conv4.weight',
    ]


def abstract() -> ResNet50:
    return nnx.eval_shape(lambda: ResNet50(width=1.0, rngs=nnx.Rngs(0)))


def test_the_released_names_and_the_width_of_the_decoder():
    named = variables(abstract_model(ModelConfig(backbone='resnet50')))
    shapes = {name: variable.shape for name, variable in named.items()}
    assert shapes['bb.conv1.0.weight'] == (7, 7, 3, 64)
    assert shapes['bb.conv2.0.downsample.0.weight'] == (1, 1, 64, 256)
    assert shapes['bb.conv5.2.bn3.running_var'] == (2048,)
    assert 'bb.conv1.0.bias' not in shapes
    assert shapes['top_layer.conv_out.weight'] == (3, 3, 64, 256)
    assert shapes['latlayer2.weight'] == (1, 1, 64, 32)
    assert shapes['classifier.weight'] == (2048, 291)


def test_a_pth_of_the_whole_network_is_known_for_what_it_is(tmp_path):
    config = ModelConfig(backbone='resnet50', racm_mask='conv', num_classes=3)
    model = abstract_model(config)
    for variable in variables(model).values():
        variable.set_value(jnp.zeros(variable.shape))
    write_state_dict(tmp_path / 'm.pth', released_state_dict(model))
    again, _ = load_pretrained(tmp_path / 'm.pth')
    assert again.config == config


def test_weights_of_another_backbone_are_refused_by_the_field(tmp_path):
    write_state_dict(tmp_path / 'vgg.pth', {'features.0.bias': np.zeros(64, np.float32)})
    with pytest.raises(WeightsError, match=r'has no conv1\.weight.* set model\.backbone'):
        load_backbone(abstract(), tmp_path / 'vgg.pth')
    vgg, resnet = (abstract_model(ModelConfig(backbone=name)) for name in ('vgg16_bn', 'resnet50'))
    with pytest.raises(WeightsError, match=r"model\.backbone='resnet50' does not start .*vgg16_bn"):
        copy_weights(resnet, vgg)


def test_folded_it_gives_the_same_features():
    model = trained_model(ModelConfig(backbone='resnet50'))
    folded = fold(model)
    assert not has_batch_norm(folded)
    assert has_batch_norm(model)
    x, valid = jnp.asarray(images()), jnp.ones(2, bool)
    expected = with_running_average(model).backbone(x, valid)
    for left, right in zip(folded.backbone(x, valid), expected, strict=True):
        np.testing.assert_allclose(left, right, rtol=0, atol=1e-5 * float(right.max()))
