"""The exported network gives the same maps for any number of images."""

import sys

import golden_cases
import jax
import numpy as np
import pytest
from test_predictor import SIZE, groups, make_model, whole_batch

from gconet_jax import cli
from gconet_jax.errors import InputError
from gconet_jax.inference.export import export_onnx, export_stablehlo
from gconet_jax.inference.opsets import DEFAULT_OPSET, OPSETS
from gconet_jax.inference.predictor import Predictor
from gconet_jax.weights.folder import load_folder, save_folder

COUNTS = (1, 2, 5, 17)
NEWEST_OPSET, NEWEST_IR = 21, 10  # of onnxruntime 1.20, the oldest that the extra `export` allows


@pytest.fixture(scope='module')
def model():
    return make_model(k=1e4, k_fallback=2.0)  # triggers the fallback inside the file


def differences(outputs, model, group):
    expected = whole_batch(model, group)
    return [
        np.abs(np.asarray(left) - np.asarray(right[0])).max()
        for left, right in zip(
            outputs, (expected.logits, expected.prob, expected.thresh), strict=True
        )
    ]


def onnx_differences(model, path, *, counts=COUNTS, expected=None, **options):
    """Return the largest difference between onnxruntime and JAX, for groups of several sizes."""
    runtime = pytest.importorskip('onnxruntime')
    export_onnx(model, path, image_size=SIZE, **options)
    session = runtime.InferenceSession(path)
    assert [output.name for output in session.get_outputs()] == ['map', 'prob', 'thresh']
    return max(
        difference
        for group in groups(*counts)
        for difference in differences(
            session.run(None, {'images': group.astype(np.float32)}), expected or model, group
        )
    )


def test_onnx(model, tmp_path):
    assert onnx_differences(model, tmp_path / 'new' / 'm.onnx') < 1e-5
    assert [path.name for path in (tmp_path / 'new').iterdir()] == ['m.onnx']


VARIANTS = {
    'no switch of k': {},
    'vgg16': {'backbone': 'vgg16', 'batch_norm': False},
    'no gam': {'gam': False, 'gcm': False},
    'no cem': {'cem': False},
    'conference': {'laterals': 'block', 'block_after_upsampling': True, 'outputs': 4},
    'no classifier': {'acm': False, 'racm': False},
    'wider': {'width': 1 / 8},
    'switch of k': {'k': 1e4, 'k_fallback': 20.0},
}


@pytest.mark.parametrize('changes', VARIANTS.values(), ids=VARIANTS)
def test_onnx_of_each_config(changes, tmp_path):
    assert onnx_differences(make_model(**changes), tmp_path / 'm.onnx', counts=(3,)) < 1e-5


def test_onnx_of_resnet50(tmp_path):
    # Random weights amplify rounding: in JAX, folding batch norm alone changes maps by 1e-4.
    model = make_model(backbone='resnet50')
    assert onnx_differences(model, tmp_path / 'm.onnx', counts=(3,)) < 1e-3


def test_onnx_of_bfloat16_is_float32(tmp_path):
    half, full = make_model(precision='bfloat16'), make_model()
    assert onnx_differences(half, tmp_path / 'm.onnx', counts=(3,), expected=full) < 1e-5


@pytest.mark.parametrize('size', [16, 48])
def test_onnx_of_other_image_sizes(size, tmp_path):
    runtime = pytest.importorskip('onnxruntime')
    model = make_model()
    export_onnx(model, tmp_path / 'm.onnx', image_size=size)
    group = np.random.default_rng(0).integers(0, 256, (3, size, size, 3), np.uint8)
    session = runtime.InferenceSession(tmp_path / 'm.onnx')
    outputs = session.run(None, {'images': group.astype(np.float32)})
    assert max(differences(outputs, model, group)) < 1e-5


@pytest.mark.parametrize('opset', OPSETS)
def test_onnx_of_each_opset(opset, model, tmp_path):
    onnx = pytest.importorskip('onnx')
    path = tmp_path / 'm.onnx'
    assert onnx_differences(model, path, counts=(2,), opset=opset) < 1e-5
    proto = onnx.load(path)
    onnx.checker.check_model(proto, full_check=True)
    assert [imported.version for imported in proto.opset_import] == [opset]
    assert proto.ir_version <= NEWEST_IR


def test_onnxruntime_1_20_supports_the_opsets():
    assert OPSETS[0] <= DEFAULT_OPSET <= OPSETS[-1] <= NEWEST_OPSET


def test_onnx_file_names_its_settings_and_modules(model, tmp_path):
    onnx = pytest.importorskip('onnx')
    export_onnx(model, tmp_path / 'm.onnx', image_size=SIZE)
    proto = onnx.load(tmp_path / 'm.onnx')
    properties = {entry.key: entry.value for entry in proto.metadata_props}
    assert properties == {'image_size': '32', 'k': '10000.0', 'k_fallback': '2.0'}
    weights = {weight.name for weight in proto.graph.initializer}
    assert {'backbone.stages.0.0.conv.kernel', 'cem.prob.predict.bias'} <= weights
    assert not weights & {'classifier.kernel', 'gcm.hidden.kernel'}


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'opset': 17}, '--opset: 17 is not supported. Choose 18 to 21'),
        ({'opset': 22}, '--opset: 22 is not supported. Choose 18 to 21'),
        ({'image_size': 40}, 'image_size: 40 is not a positive multiple of 16'),
        ({'image_size': 0}, 'image_size: 0 is not a positive multiple of 16'),
    ],
)
def test_onnx_refuses(options, message, model, tmp_path):
    with pytest.raises(InputError, match=message):
        export_onnx(model, tmp_path / 'm.onnx', **{'image_size': SIZE, **options})
    assert not list(tmp_path.iterdir())


def test_onnx_refuses_weights_larger_than_a_file(model, tmp_path, monkeypatch):
    pytest.importorskip('onnx')
    monkeypatch.setattr('gconet_jax.inference.onnx_nodes.LARGEST_FILE_BYTES', 100_000)
    with pytest.raises(InputError, match='the weights are larger than 2 GiB'):
        export_onnx(model, tmp_path / 'm.onnx', image_size=SIZE)
    assert not list(tmp_path.iterdir())


def test_onnx_that_is_not_installed(model, tmp_path, monkeypatch):
    for name in [name for name in sys.modules if name.startswith('gconet_jax.inference.onnx_')]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, 'onnx', None)
    with pytest.raises(InputError, match='ONNX export needs onnx: pip install'):
        export_onnx(model, tmp_path / 'm.onnx', image_size=SIZE)


@pytest.mark.slow
def test_onnx_of_the_whole_network(tmp_path):
    runtime = pytest.importorskip('onnxruntime')
    meta, _ = golden_cases.load(golden_cases.GOLDEN / 'eval_n5_256.npz')
    model = golden_cases.released_model(meta)
    export_onnx(model, tmp_path / 'm.onnx', image_size=256)
    session = runtime.InferenceSession(tmp_path / 'm.onnx')
    predictor = Predictor(model, image_size=256)
    for group in groups(*COUNTS):
        group = group.repeat(256 // SIZE, axis=1).repeat(256 // SIZE, axis=2)
        _, prob, thresh = session.run(None, {'images': group.astype(np.float32)})
        expected = predictor.predict(group)
        np.testing.assert_allclose(prob, expected.prob, rtol=0, atol=1e-4)
        np.testing.assert_allclose(thresh, expected.thresh, rtol=0, atol=1e-4)


def test_stablehlo_of_a_bfloat16_network_needs_no_gpu(tmp_path):
    path = tmp_path / 'm.stablehlo'
    export_stablehlo(make_model(precision='bfloat16'), path, image_size=SIZE)
    assert 'triton' not in jax.export.deserialize(path.read_bytes()).mlir_module()


def test_stablehlo(model, tmp_path):
    path = tmp_path / 'm.stablehlo'
    export_stablehlo(model, path, image_size=SIZE)
    exported = jax.export.deserialize(path.read_bytes())
    assert set(exported.platforms) == {'cpu', 'cuda'}
    for group in groups(*COUNTS):
        assert max(differences(exported.call(group.astype(np.float32)), model, group)) < 1e-3


def test_command(model, tmp_path, capsys):
    save_folder(model, tmp_path / 'model', image_size=SIZE, card='')
    source = f'--model={tmp_path / "model"}'
    assert cli.export(['export', str(tmp_path / 'm.stablehlo'), source]) == 0
    assert (tmp_path / 'm.stablehlo').stat().st_size > 1000
    assert cli.export(['export', str(tmp_path / 'again'), source]) == 0
    assert load_folder(tmp_path / 'again')[0].config == model.config
    assert 'safetensors' in (tmp_path / 'again' / 'README.md').read_text()
    assert cli.export(['export', str(tmp_path / 'again'), source]) == 1
    assert 'exists already' in capsys.readouterr().err
    assert cli.export(['export', str(tmp_path / 'm.txt'), source]) == 1
    assert "m.txt: the suffix must be '.onnx', '.stablehlo', or none" in capsys.readouterr().err


def test_command_writes_an_opset(model, tmp_path, capsys):
    onnx = pytest.importorskip('onnx')
    save_folder(model, tmp_path / 'model', image_size=SIZE, card='')
    source = f'--model={tmp_path / "model"}'
    for flags, opset in ([], DEFAULT_OPSET), (['--opset=20'], 20):
        assert cli.export(['export', str(tmp_path / 'm.onnx'), source, *flags]) == 0
        assert onnx.load(tmp_path / 'm.onnx').opset_import[0].version == opset
    with pytest.raises(SystemExit):
        cli.export(['export', str(tmp_path / 'm.onnx'), source, '--opset=22'])
    assert 'choose from' in capsys.readouterr().err
    assert cli.export(['export', str(tmp_path / 'm.stablehlo'), source, '--opset=20']) == 1
    assert '--opset' in capsys.readouterr().err
