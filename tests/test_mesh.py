"""The same numbers on any mesh of devices, and with pairs in sequence."""

import functools
import types

import float64_step
import jax
import numpy as np
import pytest

from gconet_jax.config import AugmentConfig, Config, ConfigError, ModelConfig
from gconet_jax.input_pipeline.augment import make_augment
from gconet_jax.input_pipeline.part import Part
from gconet_jax.training import mesh as mesh_lib

CONFIG = Config(model=ModelConfig(width=0.125, num_classes=8))
MORE_SHAPES = [(2, 1), (1, 2), (2, 2), (1, 4), (1, 8)]


def batch() -> dict[str, np.ndarray]:
    """Return two pairs of groups of up to 8 images; one pair has 5."""
    rng = np.random.default_rng(0)
    valid = np.ones((2, 2, 8), bool)
    valid[1, :, 5:] = False
    return {
        'image': rng.integers(0, 256, (2, 2, 8, 32, 32, 3), np.uint8),
        'mask': rng.integers(0, 2, (2, 2, 8, 32, 32), np.uint8) * 255,
        'label': np.array([[0, 3], [5, 2]], np.int32),
        'valid': valid,
    }


def make_mesh(shape):
    return mesh_lib.make_mesh(2, (8,), shape=shape, devices=jax.devices()[: shape[0] * shape[1]])


@functools.cache
def step(shape):
    return float64_step.run(CONFIG, batch(), make_mesh(shape))


@pytest.mark.parametrize(
    'shape', [(2, 4), *(pytest.param(s, marks=pytest.mark.slow) for s in MORE_SHAPES)]
)
def test_every_mesh_gives_the_same_numbers(shape):
    float64_step.assert_same(step(shape), step((1, 1)))


def test_augmentation_does_not_depend_on_the_mesh():
    changed = []
    for shape in ((1, 1), (2, 4)):
        mesh = make_mesh(shape)
        shardings = mesh_lib.batch_shardings(mesh)
        augment = jax.jit(make_augment(AugmentConfig(), 0), out_shardings=shardings)
        changed.append(augment(mesh_lib.put_batch(batch(), mesh), 3))
        assert changed[-1]['image'].sharding == mesh_lib.batch_shardings(mesh)['image']
    jax.tree.map(np.testing.assert_array_equal, *changed)


@pytest.mark.parametrize(
    ('pairs', 'sizes', 'expected'),
    [
        (1, (8, 16), (1, 8)),
        (2, (8, 16), (2, 4)),
        (3, (8,), (1, 8)),
        (2, (6,), (2, 3)),
        (1, (5,), (1, 5)),
        (16, (7,), (8, 1)),
    ],
)
def test_a_mesh_is_chosen(pairs, sizes, expected, capsys):
    mesh = mesh_lib.make_mesh(pairs, sizes)
    assert (mesh.shape['pair'], mesh.shape['image']) == expected
    idle = 8 - expected[0] * expected[1]
    assert (f'{idle} of 8 devices stay idle' in capsys.readouterr().out) == (idle > 0)


@pytest.mark.parametrize('shape', [(2, 1), (1, 3), (1, 16)])
def test_a_mesh_that_does_not_fit_names_the_field(shape):
    with pytest.raises(ConfigError, match=r'config\.run\.mesh: \(\d, \d+\) does not fit 1 pairs'):
        mesh_lib.make_mesh(1, (16,), shape=shape)


def of_processes(devices_of_each, shape):
    """Return a mesh whose devices belong to consecutive processes."""
    count = shape[0] * shape[1]
    devices = [types.SimpleNamespace(process_index=i // devices_of_each) for i in range(count)]
    return types.SimpleNamespace(
        devices=np.array(devices).reshape(shape), shape={'pair': shape[0], 'image': shape[1]}
    )


def test_processes_load_parts_of_the_batch(monkeypatch):
    monkeypatch.setattr(jax, 'process_index', lambda: 2)
    assert mesh_lib.part_of_process(of_processes(2, (2, 4))) == Part((1, 2), (0, 2))
    assert mesh_lib.part_of_process(of_processes(4, (4, 4))) == Part((2, 4), (0, 1))
    monkeypatch.setattr(jax, 'process_index', lambda: 1)
    assert mesh_lib.part_of_process(of_processes(3, (2, 3))) == Part((1, 2), (0, 1))


@pytest.mark.parametrize(
    ('process', 'each', 'shape', 'problem'),
    [
        (4, 2, (2, 4), 'process 4 has none'),
        (0, 4, (1, 6), 'process 0 has no equal part'),
        (1, 3, (3, 4), 'process 1 has those that are no block'),
    ],
)
def test_processes_that_no_mesh_serves_are_told(monkeypatch, process, each, shape, problem):
    monkeypatch.setattr(jax, 'process_index', lambda: process)
    mesh = of_processes(each, shape)
    with pytest.raises(ConfigError, match=rf'config\.run\.mesh: .*{problem}.*data\.group_sizes'):
        mesh_lib.part_of_process(mesh)


def test_one_process_loads_everything():
    assert mesh_lib.part_of_process(make_mesh((2, 4))) == Part((0, 1), (0, 1))
