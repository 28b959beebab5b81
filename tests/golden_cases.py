"""Weights and inputs of the golden cases, rebuilt as `tests/golden/README.md` describes."""

import dataclasses
import json
import os
import zlib
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from gconet_jax.config import Config, ModelConfig, released
from gconet_jax.interpolation import interpolation_matrix
from gconet_jax.models.gconet_plus import GCoNetPlus, abstract_model
from gconet_jax.weights import torch_gconet

GOLDEN = Path(__file__).parent / 'golden'


def folders() -> list[Path]:
    """Return `tests/golden`, and the folder that `GCONET_GOLDEN` names."""
    further = os.environ.get('GCONET_GOLDEN')
    return [GOLDEN, *([Path(further)] if further else [])]


def cases(pattern: str) -> list[Path]:
    """Return the files of all folders that match `pattern`."""
    return [path for folder in folders() for path in sorted(folder.glob(pattern))]


def load(path: Path) -> tuple[dict, dict[str, np.ndarray]]:
    """Return the settings of a case and its arrays."""
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files}
    return json.loads(str(arrays['meta'])), arrays


def rng(*seeds: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(list(seeds)))


def state_dict(meta: dict) -> dict[str, np.ndarray]:
    """Return the seeded weights of a case."""
    shapes = json.loads((GOLDEN / 'state_dict.json').read_text())
    weights = {}
    for name, shape in shapes.items():
        random = rng(meta['seed'], zlib.crc32(name.encode()))
        last = name.rsplit('.', 1)[-1]
        if last == 'running_mean':
            value = 0.1 * random.standard_normal(shape)
        elif last == 'running_var':
            value = random.uniform(0.5, 1.5, shape)
        elif last == 'bias':
            value = 0.05 * random.standard_normal(shape)
        elif last == 'num_batches_tracked':
            value = np.zeros(())
        elif len(shape) == 1:
            value = 1 + 0.1 * random.standard_normal(shape)
        else:
            value = random.standard_normal(shape) * np.sqrt(2 / np.prod(shape[1:]))
        weights[name] = np.asarray(value, np.float32)
    for branch in ('binarize', 'thresh'):
        for kind in ('weight', 'bias'):
            weights[f'db_output_decoder.{branch}.6.{kind}'] *= np.float32(meta['db_scale'])
    weights['db_output_decoder.thresh.6.bias'] += np.float32(meta['thresh_bias'])
    return weights


def images(meta: dict, count: int) -> np.ndarray:
    """Return normalised images, (count, h, w, 3) float32."""
    h, w = meta['h'], meta['w']
    random = rng(meta['seed'], 1)
    coarse = random.standard_normal((count, 3, h // 8, w // 8)).astype(np.float32)
    rows, columns = interpolation_matrix(h // 8, h), interpolation_matrix(w // 8, w)
    smooth = np.einsum('hH,ncHW,wW->nchw', rows, coarse, columns, optimize=True)
    x = smooth + 0.25 * random.standard_normal((count, 3, h, w))
    return x.astype(np.float32).transpose(0, 2, 3, 1)


def masks(meta: dict, count: int) -> np.ndarray:
    """Return masks with one ellipse each, (count, h, w) float32."""
    h, w = meta['h'], meta['w']
    random = rng(meta['seed'], 2)
    yy, xx = np.mgrid[:h, :w]
    ellipses = []
    for _ in range(count):
        cy, cx = random.uniform(0.3, 0.7, 2) * [h, w]
        ry, rx = random.uniform(0.1, 0.3, 2) * [h, w]
        ellipses.append(((yy - cy) / ry) ** 2 + ((xx - cx) / rx) ** 2 < 1)
    return np.array(ellipses).astype(np.float32)


def released_config(meta: dict) -> Config:
    """Return the released settings with the case's learning rate and freezing."""
    config = released(Config())
    train = dataclasses.replace(
        config.train,
        learning_rate=meta.get('lr', config.train.learning_rate),
        frozen=('backbone',) if meta.get('freeze', True) else (),
    )
    return dataclasses.replace(config, train=train)


def released_model(meta: dict, config: ModelConfig | None = None) -> GCoNetPlus:
    """Return the released network, or one of the same shapes, with the case's weights."""
    model = abstract_model(config or released_config(meta).model)
    torch_gconet.load_state_dict(model, state_dict(meta))
    return model


def pair_batch(meta: dict) -> dict[str, np.ndarray]:
    """Return the batch of a training case: one pair of groups of n images."""
    n, h, w = meta['n'], meta['h'], meta['w']
    return {
        'image': jnp.asarray(images(meta, 2 * n).reshape(1, 2, n, h, w, 3)),
        'mask': jnp.asarray(masks(meta, 2 * n).reshape(1, 2, n, h, w)),
        'label': jnp.asarray([meta['cls']], jnp.int32),
        'valid': jnp.ones((1, 2, n), bool),
    }
