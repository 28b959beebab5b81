"""The run as a user starts it: train, stop, resume, evaluate, and failures."""

import dataclasses
import json
import os
import re
import shutil
import signal

import jax
import numpy as np
import pytest
import tiny_data
from flax import nnx
from PIL import Image

from gconet_jax import cli
from gconet_jax.config import (
    Config,
    ConfigError,
    DataConfig,
    LossConfig,
    ModelConfig,
    RunConfig,
    TrainConfig,
)
from gconet_jax.errors import CheckpointError
from gconet_jax.input_pipeline.files import DataError
from gconet_jax.input_pipeline.sets import training_sets
from gconet_jax.models.gconet_plus import GCoNetPlus
from gconet_jax.training import config_file, restore, state, trainer
from gconet_jax.training.metric_writer import MetricWriter
from gconet_jax.training.safeguards import TrainingError
from gconet_jax.training.step import make_train_step
from gconet_jax.training.trainer import train

CONFIG_FILE = """
from gconet_jax.config_dict import as_config_dict, from_config_dict
import json
def get_config():
    return as_config_dict(from_config_dict(json.loads({text!r})))
"""


@pytest.fixture(scope='module')
def root(tmp_path_factory):
    return make_sets(tmp_path_factory.mktemp('data'))


def make_sets(root):
    """Write two tiny sets with three and two groups."""
    tiny_data.write_set(root, 'A', {'cat': 3, 'dog': 2, 'emu': 4}, size=(40, 36), seed=0)
    tiny_data.write_set(root, 'B', {'fox': 3, 'gnu': 3}, size=(36, 40), seed=1)
    return root


def lines(workdir):
    """Return the lines that a run wrote to metrics.jsonl."""
    return [json.loads(line) for line in (workdir / 'metrics.jsonl').read_text().splitlines()]


def config(root, *, run=None, **train_fields) -> Config:
    return Config(
        model=ModelConfig(width=0.125, num_classes=5, racm=False),
        loss=LossConfig(gst=0.0),
        data=DataConfig(
            root=str(root),
            train_sets=('A', 'B'),
            eval_sets=('A', 'B'),
            image_size=32,
            max_images=3,
            group_sizes=(3,),
            workers=0,
        ),
        train=TrainConfig(**{'steps': 2, **train_fields}),
        run=RunConfig(**{'log_every': 1, 'checkpoint_every': 1, 'picture_every': 0, **(run or {})}),
    )


def command(tmp_path, root, *flags: str) -> list[str]:
    path = tmp_path / 'config.py'
    path.write_text(CONFIG_FILE.format(text=json.dumps(dataclasses.asdict(config(root)))))
    return ['train', f'--config={path}', f'--workdir={tmp_path / "run"}', *flags]


@pytest.fixture(scope='module')
def trained(root, tmp_path_factory):
    """The folder of a finished run of two steps, and its last state."""
    workdir = tmp_path_factory.mktemp('runs') / 'whole'
    return workdir, train(config(root), workdir)


def test_resumed_run_equals_an_uninterrupted_one(root, trained, tmp_path):
    _, whole = trained
    first = train(config(root, steps=1), tmp_path)
    assert int(first.step) == 1
    resumed = train(config(root), tmp_path)
    assert int(resumed.step) == int(whole.step) == 2
    for left, right in zip(jax.tree.leaves(whole), jax.tree.leaves(resumed), strict=True):
        np.testing.assert_array_equal(left, right)


def test_run_writes_scalars_of_every_term(trained):
    workdir, _ = trained
    scalars = lines(workdir)
    assert [line['step'] for line in scalars] == [1, 2]
    assert {'loss', 'bce', 'iou', 'gcm', 'acm', 'k_fell_back', 'grad_norm'} <= set(scalars[0])
    assert all(np.isfinite(value) for line in scalars for value in line.values())
    assert list((workdir / 'tensorboard').iterdir())


def test_evaluate_writes_maps_at_the_images_sizes_and_prints_scores(trained, capsys):
    workdir, _ = trained
    assert cli.evaluate(['evaluate', f'--workdir={workdir}']) == 0
    printed = capsys.readouterr().out
    assert 'max E' in printed
    folder = workdir / 'maps' / '2'
    scores = json.loads((workdir / 'evaluations' / '2' / 'scores.json').read_text())['sets']
    assert set(scores) == {'A', 'B'}
    assert len(list(folder.glob('A/*/*.png'))) == 9
    with Image.open(next(folder.glob('A/cat/*.png'))) as written:
        assert written.size == (40, 36)
        assert written.mode == 'L'
    assert (folder / 'A.png').is_file()
    root = json.loads((workdir / 'config.json').read_text())['data']['root']
    # Score the same maps like maps of any method.
    out = workdir / 'again'
    flags = [f'--maps=x={folder}', f'--root={root}', '--sets=A', f'--out={out}']
    assert cli.evaluate(['evaluate', *flags]) == 0
    again = json.loads((out / 'scores.json').read_text())['sets']['A']['x']
    assert again == scores['A'][workdir.name]
    assert f'{again["mean"]["smeasure"]:.3f}' in capsys.readouterr().out


def test_a_sweep_says_which_checkpoint_it_shows(trained, capsys):
    workdir, _ = trained
    assert cli.evaluate(['evaluate', f'--workdir={workdir}', '--step=last50']) == 0
    printed = capsys.readouterr().out
    out = workdir / 'evaluations' / '1-2'
    shown = json.loads((out / 'scores.json').read_text())['sets']['A']
    listed = re.search(r'mean S of each checkpoint, by step: 1 (0\.\d+), 2 (0\.\d+)\.', printed)
    assert listed
    best = 2 if listed[2] > listed[1] else 1
    assert f'{workdir.name} step {best} (best of 2)' in shown
    assert 'flatters' in printed
    assert 'flatters' in (out / 'report.html').read_text()


def test_evaluate_names_a_checkpoint_of_another_architecture(trained, tmp_path, capsys):
    workdir, _ = trained
    copy = tmp_path / 'copy'
    shutil.copytree(workdir, copy)
    noted = json.loads((copy / 'config.json').read_text())
    noted['model']['width'] = 0.25
    (copy / 'config.json').write_text(json.dumps(noted))
    assert cli.evaluate(['evaluate', f'--workdir={copy}']) == 1
    message = capsys.readouterr().err
    assert 'another architecture' in message
    assert (
        'batch_stats/backbone/stages/0/0/norm/mean: (8,) in the checkpoint, (16,) needed' in message
    )


def test_resume_into_another_architecture_is_refused(root, trained):
    workdir, _ = trained
    other = config(root)
    other = dataclasses.replace(other, model=dataclasses.replace(other.model, k=100.0))
    with pytest.raises(CheckpointError, match=r'model\.k is 300\.0 there and 100\.0 here'):
        train(other, workdir)


def test_half_written_checkpoints(root, trained, tmp_path):
    workdir, _ = trained
    copy = tmp_path / 'copy'
    shutil.copytree(workdir, copy)
    # A kill leaves a temporary folder, which is ignored.
    shutil.copytree(copy / 'checkpoints' / '2', copy / 'checkpoints' / '3.orbax-checkpoint-tmp')
    assert restore.load_model(copy)[2] == 2
    # A broken disk leaves a finished folder with truncated arrays.
    for file in (copy / 'checkpoints' / '2' / 'model').rglob('*'):
        if file.is_file() and file.stat().st_size > 5000:
            file.write_bytes(file.read_bytes()[:2000])
    with pytest.raises(CheckpointError, match=r'checkpoints/2 is broken.*remove it'):
        restore.load_model(copy)
    shutil.rmtree(copy / 'checkpoints' / '2')
    assert restore.load_model(copy)[2] == 1


def test_no_run_and_no_checkpoint(tmp_path):
    with pytest.raises(CheckpointError, match='holds no run'):
        restore.load_model(tmp_path)
    config_file.write_config(tmp_path, Config())
    with pytest.raises(CheckpointError, match='no checkpoints yet'):
        restore.load_model(tmp_path)


def test_a_broken_image_stops_the_run_before_it_starts(root, tmp_path):
    shutil.copytree(root, tmp_path / 'data')
    broken = next((tmp_path / 'data' / 'images' / 'B' / 'fox').iterdir())
    broken.write_bytes(broken.read_bytes()[:50])
    with pytest.raises(DataError, match=broken.name):
        train(config(tmp_path / 'data'), tmp_path / 'run')
    assert not (tmp_path / 'run').exists()


def test_a_signal_saves_the_step_and_loses_nothing(root, trained, tmp_path, monkeypatch):
    write = MetricWriter.write

    def write_and_interrupt(self, step, scalars):
        write(self, step, scalars)
        if step == 1:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(MetricWriter, 'write', write_and_interrupt)
    every = {'checkpoint_every': 100}
    stopped = train(config(root, run=every), tmp_path)
    assert int(stopped.step) == 2  # the signal arrived after the first step, during the second
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    monkeypatch.undo()
    resumed = train(config(root, run=every), tmp_path)
    _, whole = trained
    jax.tree.map(np.testing.assert_array_equal, resumed.params, whole.params)


def test_updates_that_are_not_finite_are_skipped_and_stop_the_run(root, tmp_path, capsys):
    run = {'max_skipped': 3, 'checkpoint_every': 100}
    wild = config(root, run=run, steps=20, learning_rate=1e30)
    with pytest.raises(TrainingError, match=r'groups [AB]/\w+.* 3 in a row: lower train\.learning'):
        train(wild, tmp_path)
    skipped = [line['skipped_loss'] + line['skipped_gradient'] for line in lines(tmp_path)]
    assert skipped == [0, 1, 2]
    assert 'updates were skipped' in capsys.readouterr().out


def test_a_skipped_update_changes_nothing(root):
    fields = config(root)
    graph, before = state.create(GCoNetPlus(fields.model, rngs=nnx.Rngs(0)), fields)
    expected = jax.tree.map(np.array, before)
    bad = {
        'image': np.full((1, 2, 3, 32, 32, 3), np.nan, np.float32),
        'mask': np.zeros((1, 2, 3, 32, 32), np.float32),
        'label': np.zeros((1, 2), np.int32),
        'valid': np.ones((1, 2, 3), bool),
    }
    after, metrics = make_train_step(graph, fields)(before, jax.device_put(bad))
    assert not np.isfinite(metrics['loss'])
    assert [int(count) for count in after.skipped] == [1, 0, 1, 0]
    assert int(after.step) == 1
    for part in ('params', 'batch_stats', 'opt_state'):
        jax.tree.map(np.testing.assert_array_equal, getattr(after, part), getattr(expected, part))


def test_batch_norm_freezes_after_its_steps(root, tmp_path):
    before = train(config(root, steps=1), tmp_path / 'before')
    after = train(config(root, freeze_batch_norm_after=1), tmp_path / 'after')
    assert int(after.step) == 2
    jax.tree.map(np.testing.assert_array_equal, after.batch_stats, before.batch_stats)
    moved = jax.tree.map(lambda a, b: bool((a != b).any()), after.params, before.params)
    assert np.mean(jax.tree.leaves(moved)) > 0.9


def test_the_identity_goes_over_initial_weights(root, trained, tmp_path):
    fields = {
        'initial_weights': str(trained[0]),
        'identity_gam': True,
        'frozen': ('gam',),
        'steps': 1,
    }
    after = train(config(root, **fields), tmp_path)
    assert set(after.frozen) == {'gam'}
    for part in after.frozen['gam'].values():
        np.testing.assert_array_equal(part['kernel'][0, 0], np.eye(part['kernel'].shape[2]))
        assert not part['bias'].any()
    with pytest.raises(ConfigError, match=r'config\.train\.identity_gam: needs model\.gam'):
        Config(model=ModelConfig(gam=False, gcm=False), train=TrainConfig(identity_gam=True))


def test_an_epoch_and_the_largest_batch(root):
    base = config(root, steps=0, epochs=5)
    cut = dataclasses.replace(base, data=dataclasses.replace(base.data, cut_epochs=True))
    assert trainer._total_steps(base, [3, 2]) == 15
    assert trainer._total_steps(cut, [3, 2]) == 10
    data = dataclasses.replace(base.data, max_images=4, group_sizes=(2, 3, 4))
    # Groups of 3, 2, 4 and of 3, 3: the 4 is never paired with another 4.
    assert trainer._largest(dataclasses.replace(base, data=data), training_sets(base.data)) == 3


def test_labels_of_joint_sets(root):
    joint = config(root).data

    def labels(**fields):
        return [each.labels for each in training_sets(dataclasses.replace(joint, **fields))]

    assert labels() == [(0, 1, 2), (3, 4)]
    assert labels(labels='per_set') == [(0, 1, 2), (0, 1)]
    (pooled,) = training_sets(dataclasses.replace(joint, train_sets=('A+B',), exclude=('*/fox',)))
    assert [group.key for group in pooled.groups] == ['A/cat', 'A/dog', 'A/emu', 'B/gnu']
    assert pooled.labels == (0, 1, 2, 3)


def test_too_few_classes_name_the_field(root, tmp_path):
    few = config(root)
    few = dataclasses.replace(few, model=dataclasses.replace(few.model, num_classes=4))
    with pytest.raises(ConfigError, match=r'config\.model\.num_classes: 4 .* 5 classes'):
        train(few, tmp_path)
