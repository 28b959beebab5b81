"""The synthetic set: layout, determinism, and the rules that make the group necessary."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data import synthetic
from data.synthetic_objects import PALETTES, PATTERNS, SHAPES, ObjectClass
from data.synthetic_scenes import COVERAGE, VISIBLE, render

TINY = {'seed': 3, 'size': 96, 'train': (2, 3), 'test': (1, 2)}


def files_of(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob('*') if p.is_file()}


def classes_of(plan: list[synthetic.PlannedGroup], dataset: str) -> set[ObjectClass]:
    """Return every class of a set, shared or distracting."""
    groups = [group for group in plan if group.dataset == dataset]
    others = {other for group in groups for other in group.distractors}
    return others | {group.shared for group in groups}


@pytest.fixture(scope='module')
def made(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp('synthetic') / 'set'
    synthetic.generate(root, **TINY)
    return root


@pytest.fixture(scope='module', params=[0, 1, 2])
def plan(request) -> list[synthetic.PlannedGroup]:
    return synthetic.plan_groups(seed=request.param)


def test_layout(made):
    counts = {'synthetic_train': [3, 3], 'synthetic_test': [2]}
    for dataset, expected in counts.items():
        groups = sorted((made / 'images' / dataset).iterdir())
        assert [len(list(group.glob('*.jpg'))) for group in groups] == expected
        for image in (made / 'images' / dataset).rglob('*.jpg'):
            mask = made / 'gts' / dataset / image.parent.name / f'{image.stem}.png'
            with Image.open(image) as colour, Image.open(mask) as grey:
                assert colour.size == grey.size
                assert (colour.mode, grey.mode) == ('RGB', 'L')
                assert set(np.unique(np.asarray(grey))) == {0, 255}
    assert len(list((made / 'gts').rglob('*.png'))) == 8
    assert [p.name for p in made.parent.iterdir()] == ['set']  # no partial folder remains


def test_same_seed_same_bytes_for_any_number_of_processes(made, tmp_path, monkeypatch):
    monkeypatch.setattr(os, 'cpu_count', lambda: 1)
    synthetic.generate(tmp_path / 'again', **TINY)
    assert files_of(tmp_path / 'again') == files_of(made)


def test_another_seed_another_plan():
    assert synthetic.plan_groups(seed=0) == synthetic.plan_groups(seed=0)
    assert synthetic.plan_groups(seed=0) != synthetic.plan_groups(seed=1)


def test_rerun_changes_nothing(made, capsys):
    before = {path: path.stat().st_mtime_ns for path in made.rglob('*')}
    synthetic.generate(made, **TINY)
    assert {path: path.stat().st_mtime_ns for path in made.rglob('*')} == before
    assert 'already' in capsys.readouterr().out


def test_other_settings_are_refused(made):
    before = files_of(made)
    with pytest.raises(FileExistsError, match='something else'):
        synthetic.generate(made, **{**TINY, 'seed': 4})
    assert files_of(made) == before


def test_foreign_folder_is_refused(tmp_path):
    (tmp_path / 'thesis.txt').write_text('do not lose')
    with pytest.raises(FileExistsError, match='something else'):
        synthetic.generate(tmp_path, **TINY)
    assert files_of(tmp_path) == {'thesis.txt': b'do not lose'}


def test_interrupted_leaves_nothing(tmp_path, monkeypatch):
    def fail(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(synthetic, 'tqdm', fail)
    with pytest.raises(KeyboardInterrupt):
        synthetic.generate(tmp_path / 'set', **TINY)
    assert not list(tmp_path.iterdir())


def test_test_classes_are_unseen(plan):
    train, test = (classes_of(plan, name) for name in ('synthetic_train', 'synthetic_test'))
    assert not train & test
    for part, names in enumerate((SHAPES, PATTERNS, PALETTES)):
        assert {kind[part] for kind in train} == set(names)


def test_groups_share_distinct_classes(plan):
    shared = [group.shared for group in plan]
    assert len(set(shared)) == len(shared) == synthetic.TRAIN[0] + synthetic.TEST[0]


def test_distractors(plan):
    for group in plan:
        shared = group.shared
        for other in group.distractors:
            assert other.palette != shared.palette
            assert (other.shape, other.pattern) != (shared.shape, shared.pattern)
        # No distractor could be mistaken for the shared object.
        assert len(set(group.distractors)) == len(group.distractors)


def test_more_groups_than_classes_is_an_error():
    with pytest.raises(ValueError, match='400 groups are more than the classes allow'):
        synthetic.plan_groups(seed=0, train=(400, 2))


def test_scenes_keep_coverage_and_visibility():
    group = synthetic.plan_groups(seed=0)[0]
    for number, other in enumerate(group.distractors):
        rng = np.random.default_rng(number)
        height, width = ((112, 144), (144, 112))[number % 2]
        scene = render(rng, group.shared, (other,), height, width)
        assert scene.image.shape == (height, width, 3)
        assert COVERAGE[0] <= scene.mask.mean() <= COVERAGE[1]
        assert not (scene.mask & ~scene.whole).any()
        assert scene.mask.sum() >= VISIBLE * scene.whole.sum()
