"""Every config file and ablation row: what it switches, and that its step compiles."""

import dataclasses
import functools
import re
from pathlib import Path

import jax
import pytest
from ml_collections.config_flags.config_flags import ConfigFileFlagParser

from data import cosod
from gconet_jax.config import Config, ConfigError
from gconet_jax.config_dict import from_config_dict
from gconet_jax.evaluation.paper import TABLE_3
from gconet_jax.training import state as train_state
from gconet_jax.training.step import abstract_batch, make_train_step

CONFIGS = Path(__file__).parent.parent / 'configs'

# Config file and variant, as on the command line -> terms of its loss.
TERMS = {
    'ablations.py:t1_1': 'iou gcm acm',
    'ablations.py:t1_2': 'iou gcm acm',
    'ablations.py:t1_3': 'iou gcm acm',
    'ablations.py:t1_4': 'bce iou gcm acm',
    'ablations.py:t1_5': 'bce iou gcm acm',
    'ablations.py:t2_1': 'bce iou gcm acm',
    'ablations.py:t2_2': 'bce iou gcm acm racm',
    'ablations.py:t2_3': 'bce iou gcm acm racm',
    'ablations.py:t2_4': 'bce iou gcm acm racm gst',
    'ablations.py:t2_5': 'bce iou gcm acm racm gst',
    'coco9k.py': 'bce iou gcm acm racm gst',
    'coco_seg.py': 'bce iou gcm acm racm gst',
    'duts.py': 'bce iou gcm acm racm gst',
    'duts_coco.py': 'bce iou gcm acm racm gst',
    'duts_coco.py:released': 'bce iou gcm acm racm gst',
    'duts_coco9k.py': 'bce iou gcm acm racm gst',
    'packaged.py': 'bce iou gcm acm',
    'synthetic.py': 'bce iou gcm acm',
    'synthetic.py:no_group': 'bce iou acm',
}


def load(name: str) -> Config:
    """Load '<file>' or '<file>:<variant>' as the command line does."""
    return from_config_dict(ConfigFileFlagParser('config').parse(f'{CONFIGS / name}'))


def row(name: str) -> Config:
    """Load a row of the ablations."""
    return load(f'ablations.py:{name}')


def arrays(name: str) -> dict[str, int]:
    """Return parameter and running-statistic sizes of a row, such as 'classifier/bias' -> 291."""
    _, state = train_state.abstract(row(name))
    leaves = jax.tree_util.tree_leaves_with_path((state.params, state.batch_stats))
    return {jax.tree_util.keystr(p[1:], simple=True, separator='/'): x.size for p, x in leaves}


@functools.cache
def metrics_of_step(config: Config, pairs: int) -> set[str]:
    """Trace and lower the step for small groups; configs with the same program share the result.

    `test_models.py` compiles and runs steps of these networks.
    """
    graph, state = train_state.abstract(config)
    lowered = make_train_step(graph, config).lower(state, abstract_batch(pairs, 2, 32))
    return set(lowered.out_info[1])


def test_every_file_is_listed():
    assert {path.name for path in CONFIGS.glob('*.py')} == {name.split(':')[0] for name in TERMS}


@pytest.mark.parametrize('name', TERMS)
def test_the_step_of_a_config_is_a_program(name):
    config = load(name)
    small = Config(
        model=dataclasses.replace(config.model, width=0.0625, num_classes=8),
        loss=config.loss,
        train=config.train,
        run=config.run,
    )
    metrics = metrics_of_step(small, len(config.data.train_sets))
    assert metrics == {*TERMS[name].split(), 'loss', 'k_fell_back', 'grad_norm'}


def test_rows_switch_what_table_1_says():
    def switches(name):
        model, loss = row(name).model, row(name).loss
        # The fields of a switch change together.
        (simplified,) = {
            model.laterals == 'conv',
            not model.block_after_upsampling,
            model.outputs == 1,
        }
        (normed,) = {model.backbone == 'vgg16_bn', model.batch_norm}
        return simplified, normed, loss.bce > 0

    assert {name: switches(name) for name in ('t1_1', 't1_2', 't1_3', 't1_4', 't1_5')} == {
        't1_1': (False, False, False),  # simplified, batch norm, hybrid loss
        't1_2': (True, False, False),
        't1_3': (True, True, False),
        't1_4': (True, False, True),
        't1_5': (True, True, True),
    }


def test_rows_switch_what_table_2_says():
    def switches(name):
        config = row(name)
        return config.model.racm, config.model.cem, config.loss.gst > 0

    assert {name: switches(name) for name in ('t2_1', 't2_2', 't2_3', 't2_4', 't2_5')} == {
        't2_1': (False, False, False),  # RACM, CEM, GST
        't2_2': (True, False, False),
        't2_3': (True, True, False),
        't2_4': (True, False, True),
        't2_5': (True, True, True),
    }
    assert row('t2_1') == row('t1_5')
    assert row('t2_5') == load('duts.py')


def test_rows_of_table_1_differ_in_their_parameters():
    conference, plain, normed = arrays('t1_1'), arrays('t1_2'), arrays('t1_3')
    assert not any('/norm/' in name for name in conference | plain)
    assert plain == {name: size for name, size in normed.items() if '/norm/' not in name}
    assert any(name.startswith('backbone/') for name in normed.keys() - plain.keys())
    assert any(name.startswith('decoder/') for name in normed.keys() - plain.keys())
    # The loss has no parameters.
    assert arrays('t1_4') == plain
    assert arrays('t1_5') == normed
    own = conference.keys() - plain.keys()
    found = {re.search('sides|after|lateral|$', name)[0] for name in own}
    assert found == {'sides', 'after', 'lateral'}
    assert all('/lateral/' in name for name in plain.keys() - conference.keys())
    assert sum(conference.values()) > sum(plain.values())


def test_rows_of_table_2_differ_in_their_parameters():
    without, with_cem = arrays('t2_1'), arrays('t2_5')
    assert {name.split('/')[0] for name in without.keys() - with_cem.keys()} == {'predict'}
    assert {name.split('/')[0] for name in with_cem.keys() - without.keys()} == {'cem'}
    # The RACM reuses the map, the backbone and the classifier.
    assert arrays('t2_2') == without
    assert arrays('t2_4') == without
    assert arrays('t2_3') == with_cem


def test_an_unknown_row_names_those_there_are():
    known = ', '.join(name.split(':')[1] for name in TERMS if name.startswith('ablations'))
    with pytest.raises(ValueError, match=f"'t3_1' is none of {known}"):
        row('t3_1')


@pytest.mark.parametrize(
    'name', ['duts.py', 'coco9k.py', 'coco_seg.py', 'duts_coco9k.py', 'duts_coco.py']
)
def test_the_five_rows_of_table_3(name):
    config = load(name)
    groups = {builder.DATASET: builder.GROUPS for builder in cosod.BUILDERS.values()}
    assert config.model.num_classes == sum(groups[s] for s in config.data.train_sets)
    paper = TABLE_3[config.data.train_sets]
    assert config.data.eval_sets == tuple(paper)
    text = (CONFIGS / name).read_text()
    for column, score in ((1, 'S'), (2, 'max F')):
        values = ' / '.join(f'{scores[column]:.3f}'[1:] for scores in paper.values())
        assert f'{score} {values}' in text


@pytest.mark.parametrize(
    ('fields', 'message'),
    [
        ({'model': {'width': 0.02}}, r'model\.width: 0\.02 is not in \[1/32, 4\]'),
        ({'data': {'image_size': 16}}, r'data\.image_size: 16 is no multiple of 16, or below 32'),
        ({'train': {'seed': -1}}, r'train\.seed: must not be negative'),
        ({'train': {'steps': 5, 'warmup_steps': 5}}, r'train\.warmup_steps: 5 must be below'),
        ({'data': {'eval_sets': ()}, 'run': {'evaluate_every': 1}}, r'data\.eval_sets: names no'),
        ({'augment': {'colour': (0, '2')}}, r"augment\.colour: '2' is not of type float"),
        ({'data': {'eval_sets': 'CoCA'}}, r"data\.eval_sets: 'CoCA' is not a tuple of str"),
    ],
)
def test_bad_values_name_their_field(fields, message):
    with pytest.raises(ConfigError, match=rf'config\.{message}'):
        from_config_dict(fields)


def test_whole_numbers_are_numbers():
    config = from_config_dict({'augment': {'colour': (0, 2)}, 'train': {'learning_rate': 1}})
    assert config.augment.colour == (0.0, 2.0)
    assert type(config.augment.colour[0]) is type(config.train.learning_rate) is float
