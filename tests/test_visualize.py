"""Looking inside the network: pictures show what the whole batch computes."""

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from test_predictor import SIZE, groups, make_model

from gconet_jax import cli
from gconet_jax.inference.predictor import Predictor
from gconet_jax.inference.visualize import group_figure, look_inside, similarity
from gconet_jax.models.consensus import consensus
from gconet_jax.models.gconet_plus import normalize
from gconet_jax.models.layers import with_running_average
from gconet_jax.weights.folder import save_folder


@pytest.fixture(scope='module')
def model():
    return make_model()


def test_parts_are_those_of_the_whole_batch(model):
    (images,) = groups(11)
    inside = look_inside(Predictor(model, image_size=SIZE), images, shown=3)
    np.testing.assert_array_equal(inside.images, images[[0, 5, 10]])

    plain = with_running_average(model)
    valid = jnp.ones((1, 11), bool)
    features = plain.encode(normalize(jnp.asarray(images))[None], valid)
    x5 = features[-1][None]
    attention = plain.gam.attention(x5, valid)
    np.testing.assert_allclose(inside.attention, attention[0, ::5], atol=1e-5)
    np.testing.assert_allclose(inside.attention.sum(axis=(1, 2)), 1, atol=1e-5)
    shared = consensus(plain.gam(x5, valid), valid)
    np.testing.assert_allclose(inside.consensus, shared.ravel(), rtol=1e-3, atol=1e-5)
    weighted = (x5 * shared)[0]
    decoded = plain.decoder(weighted, features[:-1], (SIZE, SIZE), valid[0])
    assert len(inside.stages) == 5
    for ours, whole in zip(inside.stages, decoded.stages, strict=True):
        expected = np.abs(whole).mean(axis=-1)[::5]
        np.testing.assert_allclose(ours, expected, rtol=1e-3, atol=1e-4)
    maps = plain.decode(weighted[None], features, valid)[0]
    np.testing.assert_allclose(inside.prob, maps.prob[0, ::5], atol=1e-4)

    # The mean of a class activation map is the logit of its class without the bias.
    bias = np.asarray(plain.classifier.bias[...])[None]
    logits = np.asarray(plain.classifier(features[-1].mean(axis=(1, 2))))[::5]
    likely = logits.argmax(axis=-1)[:, None]
    expected = np.take_along_axis(logits - bias, likely, 1)[:, 0]
    np.testing.assert_allclose(
        inside.class_activation.mean(axis=(1, 2)), expected, rtol=1e-3, atol=1e-5
    )


def test_parts_that_a_network_lacks_are_left_out():
    model = make_model(gam=False, gcm=False, acm=False, racm=False, cem=False)
    inside = look_inside(Predictor(model, image_size=SIZE), groups(2)[0])
    assert inside.attention is None
    assert inside.class_activation is None
    titles = [axes.get_title() for axes in group_figure(inside).axes[:8]]
    assert titles == ['image', *(f'stage {i}' for i in (5, 4, 3, 2, 1)), 'P', 'T']


def test_similarity_is_the_cosine():
    x = np.array([[1.0, 0, 0], [2, 2, 0], [-3, 0, 0], [0, 0, 0]])
    expected = [
        [1, 0.5**0.5, -1, 0],
        [0.5**0.5, 1, -(0.5**0.5), 0],
        [-1, -(0.5**0.5), 1, 0],
        [0] * 4,
    ]
    np.testing.assert_allclose(similarity(list(x)), expected, atol=1e-12)


def test_the_command_draws_each_group_and_their_similarity(model, tmp_path, capsys, monkeypatch):
    for group, images in zip(('a', '$b$', 'similarity'), groups(2, 3, 1), strict=True):
        folder = tmp_path / 'photos' / group
        folder.mkdir(parents=True)
        for i, image in enumerate(images):
            Image.fromarray(image).save(folder / f'{i}.png')
    (tmp_path / 'photos' / 'a' / 'broken.png').write_text('no picture')
    save_folder(model, tmp_path / 'model', image_size=SIZE, card='')
    out = tmp_path / 'out'
    arguments = [str(tmp_path / 'photos'), str(out), f'--model={tmp_path / "model"}']
    made = []
    monkeypatch.setattr(Predictor, '__init__', _counted(made))
    assert cli.look(['look', *arguments]) == 0
    assert len(made) == 1  # of eight devices
    figures = ['$b$.png', 'a.png', 'similarity.png', 'similarity_of_groups.png']
    assert sorted(path.name for path in out.iterdir()) == figures
    assert 'passed over: cannot read' in capsys.readouterr().err
    with Image.open(out / '$b$.png') as figure:
        assert len(np.unique(np.asarray(figure))) > 50  # the figure is not blank


def _counted(made, before=Predictor.__init__):
    def init(predictor, *arguments, **settings):
        made.append(predictor)
        before(predictor, *arguments, **settings)

    return init
