"""Weights from files: loaded by name, all mismatches reported at once, nothing half loaded."""

import hashlib

import golden_cases
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
from flax import nnx
from PIL import Image

from gconet_jax import cli
from gconet_jax.config import ModelConfig
from gconet_jax.errors import InputError
from gconet_jax.models.gconet_plus import GCoNetPlus, normalize
from gconet_jax.models.layers import BatchMoments, with_running_average
from gconet_jax.models.vgg import VGG16
from gconet_jax.weights import backbone, calibration, torch_gconet, torch_names
from gconet_jax.weights.backbone import load_backbone
from gconet_jax.weights.calibration import calibrate
from gconet_jax.weights.torch_file import write_state_dict

META = {'seed': 3, 'db_scale': 1.0, 'thresh_bias': 0.0}


def test_every_mismatch_is_listed_and_the_model_is_left_alone():
    model = GCoNetPlus(ModelConfig(racm_mask='conv'), rngs=nnx.Rngs(0))
    before = jax.tree.map(jnp.copy, nnx.state(model))
    weights = golden_cases.state_dict(META)
    del weights['enlayer3.bn_in.running_var']
    weights['classifier.weight'] = weights['classifier.weight'][:10]
    weights['extra.weight'] = np.zeros(3, np.float32)
    with pytest.raises(torch_gconet.WeightsError) as error:
        torch_gconet.load_state_dict(model, weights)
    message = str(error.value)
    assert message.startswith('3 entries of the weights do not fit')
    assert 'missing: enlayer3.bn_in.running_var (64,)' in message
    assert 'shape of classifier.weight: (512, 10) where (512, 291) is needed' in message
    assert 'unexpected: extra.weight' in message
    for left, right in zip(jax.tree.leaves(before), jax.tree.leaves(nnx.state(model)), strict=True):
        np.testing.assert_array_equal(left, right)


def full(batch_norm: bool) -> VGG16:
    return VGG16(batch_norm=batch_norm, width=1.0, rngs=nnx.Rngs(0))


def plain_file(path, calibrated: bool) -> dict[str, np.ndarray]:
    """Write VGG-16 in the plain layout with seeded numbers, and return its arrays."""
    rng = np.random.default_rng(0)
    arrays, inputs = {}, 3
    widths = (64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512)
    for number, outputs in enumerate(widths):
        kernel = rng.standard_normal((3, 3, inputs, outputs)) * (2 / (9 * inputs)) ** 0.5
        arrays[f'conv{number:02d}/kernel'] = kernel.astype(np.float16)
        arrays[f'conv{number:02d}/bias'] = rng.standard_normal(outputs).astype(np.float16)
        if calibrated:
            arrays[f'calib/conv{number:02d}/preact_mean'] = rng.standard_normal(outputs)
            arrays[f'calib/conv{number:02d}/preact_var'] = rng.uniform(0.5, 2, outputs)
        inputs = outputs
    np.savez(path, **arrays)
    return arrays


def test_calibrated_batch_norm_gives_the_plain_outputs(tmp_path):
    plain_file(tmp_path / 'vgg.npz', calibrated=True)
    plain, normalised = full(False), full(True)
    load_backbone(plain, tmp_path / 'vgg.npz')
    load_backbone(normalised, tmp_path / 'vgg.npz')
    x = jnp.asarray(np.random.default_rng(1).standard_normal((1, 32, 32, 3)), jnp.float32)
    valid = jnp.ones(1, bool)
    expected = plain(x, valid)
    actual = with_running_average(normalised)(x, valid)
    for left, right in zip(expected, actual, strict=True):
        np.testing.assert_allclose(right, left, atol=1e-3 * float(jnp.abs(left).max()))


@pytest.mark.parametrize('batch_norm', [True, False])
def test_torchvision_names(tmp_path, batch_norm):
    target = full(batch_norm)
    rng = np.random.default_rng(0)
    arrays = {'head.fc.weight': np.zeros((2, 2), np.float32)}
    model = GCoNetPlus(
        ModelConfig(backbone='vgg16_bn' if batch_norm else 'vgg16'), rngs=nnx.Rngs(0)
    )
    for name, variable in torch_gconet.variables(model).items():
        if name.startswith('bb.'):
            value = rng.standard_normal(variable.shape).astype(np.float32)
            index, kind = name.split('.')[2:]
            torch = value.transpose(3, 2, 0, 1) if value.ndim == 4 else value
            arrays[f'features.{index}.{kind}'] = np.ascontiguousarray(torch)
            variable.set_value(jnp.asarray(value))
    safetensors.numpy.save_file(arrays, tmp_path / 'vgg.safetensors')
    load_backbone(target, tmp_path / 'vgg.safetensors')
    for left, right in zip(
        jax.tree.leaves(nnx.state(model.backbone)), jax.tree.leaves(nnx.state(target)), strict=True
    ):
        np.testing.assert_array_equal(left, right)


def torchvision_arrays(model: VGG16) -> dict[str, np.ndarray]:
    """Return arrays of a backbone without batch norm, including entries to ignore."""
    layers = [layer for stage in model.stages for layer in stage]
    arrays = {'classifier.0.weight': np.zeros((2, 2), np.float32)}
    indices = [i for stage in torch_names.VGG16_INDICES for i in stage]
    for layer, index in zip(layers, indices, strict=True):
        kernel = np.asarray(layer.conv.kernel[...])
        arrays[f'features.{index}.weight'] = torch_names.to_torch(kernel)
        arrays[f'features.{index}.bias'] = np.asarray(layer.conv.bias[...])
    return arrays


def small(batch_norm: bool, seed: int) -> VGG16:
    return VGG16(batch_norm=batch_norm, width=1 / 16, rngs=nnx.Rngs(seed))


def test_files_of_torch_and_their_digests(tmp_path, monkeypatch):
    source, target = small(False, 0), small(False, 1)
    path = tmp_path / 'vgg16-397923af.pth'
    write_state_dict(path, torchvision_arrays(source))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    with pytest.raises(torch_gconet.WeightsError, match=f'begins with {digest[:8]}, not 397923af'):
        load_backbone(target, path)
    monkeypatch.setitem(backbone.OFFICIAL, path.name, digest[:8])
    load_backbone(target, path)
    for left, right in zip(
        jax.tree.leaves(nnx.state(source)), jax.tree.leaves(nnx.state(target)), strict=True
    ):
        np.testing.assert_array_equal(left, right)


def test_a_backbone_of_the_hub(tmp_path, monkeypatch):
    hub = pytest.importorskip('huggingface_hub')
    source, target = small(False, 0), small(False, 1)
    arrays = {name: np.ascontiguousarray(x) for name, x in torchvision_arrays(source).items()}
    safetensors.numpy.save_file(arrays, tmp_path / 'model.safetensors')
    asked = []
    monkeypatch.setattr(hub, 'snapshot_download', lambda name, **_: asked.append(name) or tmp_path)
    load_backbone(target, 'timm/vgg16.tv_in1k')
    for mistyped in ('weights/vgg16.pth', '../vgg16', './vgg16'):
        with pytest.raises(torch_gconet.WeightsError, match='there is no file'):
            load_backbone(target, mistyped)
    assert asked == ['timm/vgg16.tv_in1k']
    kernel = target.stages[4][2].conv.kernel[...]
    np.testing.assert_array_equal(kernel, source.stages[4][2].conv.kernel[...])


def test_all_that_does_not_fit_is_listed(tmp_path):
    arrays = torchvision_arrays(small(False, 0))
    del arrays['features.5.bias']
    arrays |= {'features.99.weight': arrays['features.0.bias'], 'features.0.bias': np.zeros(1)}
    write_state_dict(tmp_path / 'a.pth', arrays)
    with pytest.raises(torch_gconet.WeightsError) as error:
        load_backbone(small(False, 0), tmp_path / 'a.pth')
    assert str(error.value).splitlines()[1:] == [
        '  missing: features.5.bias',
        '  shape of features.0.bias: (1,), not (4,)',
        '  unexpected: features.99.weight',
    ]
    with pytest.raises(torch_gconet.WeightsError, match='gconet-jax convert VGG16'):
        load_backbone(small(True, 0), tmp_path / 'a.pth')


def test_each_misfit_is_listed_once(tmp_path):
    np.savez(tmp_path / 'a.npz', **{'conv00/kernel': np.zeros((3, 3, 3, 4))})
    with pytest.raises(torch_gconet.WeightsError) as error:
        load_backbone(small(True, 0), tmp_path / 'a.npz')
    lines = str(error.value).splitlines()
    assert len(lines) == len(set(lines))
    assert '  missing: calib/conv00/preact_mean' in lines


def test_calibration_measures_what_batch_norm_would_and_changes_nothing(tmp_path):
    plain, normalised = small(False, 0), small(True, 1)
    images = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), np.uint8)
    arrays = calibrate(plain, [images[:2], images[2:]])
    safetensors.numpy.save_file(arrays, tmp_path / 'bn.safetensors')
    load_backbone(normalised, tmp_path / 'bn.safetensors')
    x, valid = normalize(jnp.asarray(images)), jnp.ones(5, bool)
    expected = plain(x, valid)
    for left, right in zip(with_running_average(normalised)(x, valid), expected, strict=True):
        np.testing.assert_allclose(left, right, atol=1e-4 * float(jnp.abs(right).max()))
    # In training, batch statistics over the same images equal the running ones in every layer.
    trained, _ = nnx.capture(normalised, BatchMoments)(x, valid)
    for left, right in zip(trained, expected, strict=True):
        np.testing.assert_allclose(left, right, atol=1e-3 * float(jnp.abs(right).max()))
    with pytest.raises(InputError, match='no photos to calibrate'):
        calibrate(plain, [])


def test_calibration_from_files(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(calibration, 'VGG16', lambda **_: small(False, 2))
    write_state_dict(tmp_path / 'vgg.pth', torchvision_arrays(small(False, 0)))
    (tmp_path / 'photos').mkdir()
    for i in range(3):
        noise = np.random.default_rng(i).integers(0, 256, (20, 30, 3), np.uint8)
        Image.fromarray(noise).save(tmp_path / 'photos' / f'{i}.png')
    (tmp_path / 'broken').mkdir()
    for folder in ('photos', 'broken'):
        (tmp_path / folder / 'broken.jpg').write_text('no photo')
    out = tmp_path / 'bn.safetensors'
    flags = [str(tmp_path / 'vgg.pth'), str(out), f'--calibrate={tmp_path / "photos"}']
    assert cli.convert(['convert', *flags]) == 0
    assert 'the statistics of 3 photos' in capsys.readouterr().out
    flags[-1] = f'--calibrate={tmp_path / "broken"}'
    assert cli.convert(['convert', *flags]) == 1
    told = capsys.readouterr().err
    assert f'{tmp_path / "broken"} has no photo that can be read' in told
    assert 'broken.jpg: it is no picture' in told
    target = small(True, 3)
    load_backbone(target, out)
    kernel = target.stages[0][0].conv.kernel[...]
    np.testing.assert_array_equal(kernel, small(False, 0).stages[0][0].conv.kernel[...])


def test_backbone_files_that_do_not_fit(tmp_path):
    with pytest.raises(torch_gconet.WeightsError, match='there is no file'):
        load_backbone(full(True), tmp_path / 'none.npz')
    (tmp_path / 'bad.npz').write_bytes(b'PK nonsense')
    with pytest.raises(torch_gconet.WeightsError, match=r'bad\.npz is neither'):
        load_backbone(full(True), tmp_path / 'bad.npz')
    plain_file(tmp_path / 'vgg.npz', calibrated=False)
    with pytest.raises(torch_gconet.WeightsError, match='missing: calib/conv00/preact_mean'):
        load_backbone(full(True), tmp_path / 'vgg.npz')
    # Reading a pickle can run code, so an array of objects is rejected.
    np.savez(tmp_path / 'pickle.npz', a=np.array([object()], dtype=object))
    with pytest.raises(torch_gconet.WeightsError, match=r'pickle\.npz'):
        load_backbone(full(True), tmp_path / 'pickle.npz')
