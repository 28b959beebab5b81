"""The network in other formats gives the same maps, of any number of images."""

import golden_cases
import jax
import numpy as np
import pytest
from test_predictor import SIZE, groups, make_model, whole_batch

from gconet_jax import cli
from gconet_jax.inference.export import export_onnx, export_stablehlo
from gconet_jax.inference.predictor import Predictor
from gconet_jax.weights.folder import load_folder, save_folder

COUNTS = (1, 2, 5, 17)


@pytest.fixture(scope='module')
def model():
    return make_model(k=1e4, k_fallback=2.0)  # which falls back, inside the file


def differences(outputs, model, group):
    expected = whole_batch(model, group)
    return [
        np.abs(np.asarray(left) - np.asarray(right[0])).max()
        for left, right in zip(
            outputs, (expected.logits, expected.prob, expected.thresh), strict=True
        )
    ]


@pytest.mark.filterwarnings('ignore::UserWarning', 'ignore::DeprecationWarning')  # jax2onnx's
def test_onnx(model, tmp_path):
    pytest.importorskip('jax2onnx')
    runtime = pytest.importorskip('onnxruntime')
    # jax2onnx's own code is not as strict as ours is in tests.
    with jax.numpy_rank_promotion('allow'), jax.numpy_dtype_promotion('standard'):
        export_onnx(model, tmp_path / 'new' / 'm.onnx', image_size=SIZE)
    assert [path.name for path in (tmp_path / 'new').iterdir()] == ['m.onnx']
    session = runtime.InferenceSession(tmp_path / 'new' / 'm.onnx')
    assert [output.name for output in session.get_outputs()] == ['map', 'prob', 'thresh']
    for group in groups(*COUNTS):
        outputs = session.run(None, {'images': group.astype(np.float32)})
        assert max(differences(outputs, model, group)) < 1e-3


@pytest.mark.filterwarnings('ignore::UserWarning', 'ignore::DeprecationWarning')  # jax2onnx's
def test_large_weights_are_in_the_onnx_file(tmp_path):
    pytest.importorskip('jax2onnx')
    runtime = pytest.importorskip('onnxruntime')
    model = make_model(width=1 / 2)  # its largest kernels have more than the 1 MiB of a side file
    with jax.numpy_rank_promotion('allow'), jax.numpy_dtype_promotion('standard'):
        export_onnx(model, tmp_path / 'm.onnx', image_size=SIZE)
    assert [path.name for path in tmp_path.iterdir()] == ['m.onnx']
    session = runtime.InferenceSession(tmp_path / 'm.onnx')
    (group,) = groups(2)
    outputs = session.run(None, {'images': group.astype(np.float32)})
    assert max(differences(outputs, model, group)) < 1e-3


@pytest.mark.slow
@pytest.mark.filterwarnings('ignore::UserWarning', 'ignore::DeprecationWarning')  # jax2onnx's
def test_onnx_of_the_whole_network(tmp_path):
    pytest.importorskip('jax2onnx')
    runtime = pytest.importorskip('onnxruntime')
    meta, _ = golden_cases.load(golden_cases.GOLDEN / 'eval_n5_256.npz')
    model = golden_cases.released_model(meta)
    with jax.numpy_rank_promotion('allow'), jax.numpy_dtype_promotion('standard'):
        export_onnx(model, tmp_path / 'm.onnx', image_size=256)
    session = runtime.InferenceSession(tmp_path / 'm.onnx')
    predictor = Predictor(model, image_size=256)
    for group in groups(*COUNTS):
        group = group.repeat(256 // SIZE, axis=1).repeat(256 // SIZE, axis=2)
        _, prob, thresh = session.run(None, {'images': group.astype(np.float32)})
        (expected,) = predictor.predict([group])
        np.testing.assert_allclose(prob, expected.prob, atol=1e-3)
        np.testing.assert_allclose(thresh, expected.thresh, atol=1e-3)


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
