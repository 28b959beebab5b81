"""Every config file and row of the ablations: what it switches, and that its step compiles."""

import dataclasses
import importlib.util
from pathlib import Path

import jax
import numpy as np
import pytest

from gconet_jax.config import Config
from gconet_jax.config_dict import from_config_dict
from gconet_jax.evaluation.paper import TABLE_3
from gconet_jax.training import state as train_state
from gconet_jax.training.step import make_train_step

CONFIGS = Path(__file__).parent.parent / 'configs'
TABLE_1 = [f't1_{row}' for row in range(1, 6)]
TABLE_2 = [f't2_{row}' for row in range(1, 6)]
# t2_1 and t2_5 are t1_5 and duts.py; the single sets are duts.py with another name.
DISTINCT = [f'ablations:{row}' for row in (*TABLE_1, *TABLE_2[1:4])] + [
    'duts',
    'duts_coco',
    'duts_coco9k',
    'duts_coco:released',
    'synthetic',
    'synthetic:no_group',
]


def load(name: str) -> Config:
    """'<file>' or '<file>:<variant>', as the command line loads it."""
    file, *variant = name.split(':')
    spec = importlib.util.spec_from_file_location(file, CONFIGS / f'{file}.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return from_config_dict(module.get_config(*variant))


@pytest.mark.parametrize('name', DISTINCT)
def test_the_step_of_a_config_compiles(name):
    config = load(name)
    config = dataclasses.replace(config, model=dataclasses.replace(config.model, width=0.0625))
    graph, state = train_state.abstract(config)
    pairs, n, size = len(config.data.train_sets), 2, 32
    batch = {
        'image': jax.ShapeDtypeStruct((pairs, 2, n, size, size, 3), np.uint8),
        'mask': jax.ShapeDtypeStruct((pairs, 2, n, size, size), np.uint8),
        'label': jax.ShapeDtypeStruct((pairs, 2), np.int32),
        'valid': jax.ShapeDtypeStruct((pairs, 2, n), bool),
    }
    lowered = make_train_step(graph, config).lower(state, batch)
    fast = {'xla_backend_optimization_level': 0, 'xla_llvm_disable_expensive_passes': True}
    compiled = lowered.compile(compiler_options=fast)
    terms = {'iou'}
    terms |= {'bce'} if config.loss.bce else set()
    terms |= {'acm'} if config.model.acm else set()
    terms |= {'gcm'} if config.model.gcm else set()
    terms |= {'gst'} if config.loss.gst else set()
    terms |= {'racm'} if config.model.racm else set()
    assert set(compiled.out_info[1]) == terms | {'loss', 'k_fell_back', 'grad_norm'}


def test_rows_switch_what_the_tables_say():
    rows = {row: load(f'ablations:{row}') for row in TABLE_1 + TABLE_2}
    models = {row: config.model for row, config in rows.items()}
    switches = {
        row: (m.racm, m.cem, rows[row].loss.gst > 0) for row, m in models.items() if row in TABLE_2
    }
    assert switches == {
        't2_1': (False, False, False),
        't2_2': (True, False, False),
        't2_3': (True, True, False),
        't2_4': (True, False, True),
        't2_5': (True, True, True),
    }
    table_1 = {
        row: (m.outputs == 1, m.backbone == 'vgg16_bn' and m.batch_norm, rows[row].loss.bce > 0)
        for row, m in models.items()
        if row in TABLE_1
    }
    assert table_1 == {
        't1_1': (False, False, False),  # simplified, batch norm, hybrid loss
        't1_2': (True, False, False),
        't1_3': (True, True, False),
        't1_4': (True, False, True),
        't1_5': (True, True, True),
    }
    assert rows['t2_1'] == rows['t1_5']
    assert rows['t2_5'] == load('duts')


def test_rows_differ_in_their_parameters():
    def shapes(row):
        _, state = train_state.abstract(load(f'ablations:{row}'))
        return {jax.tree_util.keystr(p) for p, _ in jax.tree_util.tree_leaves_with_path(state[1:4])}

    plain, normed, conference = shapes('t1_2'), shapes('t1_3'), shapes('t1_1')
    assert plain < normed
    assert all("['norm']" in name for name in normed - plain)
    assert all(
        any(part in name for part in ("['sides']", "['after']", "['lateral']"))
        for name in conference - plain
    )


def test_an_unknown_row_names_those_there_are():
    with pytest.raises(ValueError, match=r"'t3_1' is none of t1_1, t1_2"):
        load('ablations:t3_1')


@pytest.mark.parametrize(
    ('name', 'groups'),
    [
        ('duts', [291]),
        ('coco9k', [65]),
        ('coco_seg', [78]),
        ('duts_coco9k', [291, 65]),
        ('duts_coco', [291, 78]),
    ],
)
def test_the_five_rows_of_table_3(name, groups):
    config = load(name)
    assert config.data.train_sets in TABLE_3
    assert config.model.num_classes >= sum(groups)
    assert len(config.data.train_sets) == len(groups)
    assert set(config.data.eval_sets) == set(TABLE_3[config.data.train_sets])
    paper = TABLE_3[config.data.train_sets]
    text = (CONFIGS / f'{name}.py').read_text()
    for column in (1, 2):  # S, max F
        values = [f'{paper[s][column]:.3f}'[1:] for s in ('CoCA', 'CoSOD3k', 'CoSal2015')]
        assert ' / '.join(values) in text
