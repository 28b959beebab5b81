"""The packaged model: present, small, and usable on its own."""

import numpy as np
import pytest
import safetensors.numpy
from PIL import Image

from gconet_jax import cli
from gconet_jax.app.group import decode, example
from gconet_jax.weights.pretrained import BOX


def test_is_small_and_says_what_it_is():
    weights = safetensors.numpy.load_file(BOX / 'model.safetensors')
    assert (BOX / 'model.safetensors').stat().st_size < 40e6
    assert {str(x.dtype) for x in weights.values() if x.ndim > 1} == {'float16'}
    card = (BOX / 'README.md').read_text().lower()
    for word in ('pseudo-labels', 'held-out', 'paired bootstrap', 'bad at'):
        assert word in card


@pytest.mark.filterwarnings('ignore::DeprecationWarning')
def test_predicts_at_once(tmp_path):
    (tmp_path / 'photos').mkdir()
    for photo in example():
        (tmp_path / 'photos' / f'{photo.name}.jpg').write_bytes(photo.pixels)
    arguments = ['predict', str(tmp_path / 'photos'), str(tmp_path / 'out'), '--save=maps']
    assert cli.predict(arguments) == 0
    for photo in example():
        pixels = decode(photo.pixels).astype(int)
        golden = pixels[..., 0] - pixels[..., 2] > 120  # the ring, which every photo shows
        path = tmp_path / 'out' / 'maps' / 'photos' / f'{photo.name}.png'
        found = np.asarray(Image.open(path)) / 255
        assert found[golden].mean() > 0.5
        assert found[~golden].mean() < 0.25
