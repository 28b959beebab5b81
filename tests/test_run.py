"""A run between its steps: what is written, which checkpoints are kept, what survives failures."""

import dataclasses
import gc
import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
import types
from pathlib import Path

import jax
import numpy as np
import pytest
import test_training
from flax import nnx
from PIL import Image

from gconet_jax import cli
from gconet_jax.config import ConfigError
from gconet_jax.errors import CheckpointError
from gconet_jax.training import config_file, observer, programs, restore
from gconet_jax.training.metric_writer import MetricWriter
from gconet_jax.training.safeguards import Interruption, TrainingError
from gconet_jax.training.trainer import train

config, lines = test_training.config, test_training.lines


@pytest.fixture(scope='module')
def root(tmp_path_factory):
    return test_training.make_sets(tmp_path_factory.mktemp('data'))


def kept(workdir: Path) -> list[int]:
    return sorted(int(p.name) for p in (workdir / 'checkpoints').iterdir() if p.name.isdigit())


@pytest.fixture(scope='module')
def watched(root, tmp_path_factory):
    """A run of six steps with moving averages, scored after each step."""
    workdir = tmp_path_factory.mktemp('runs') / 'watched'
    run = {
        'evaluate_every': 1,
        'picture_every': 4,
        'checkpoint_every': 100,
        'keep_latest': 1,
        'keep_best': 1,
        'profile': (2, 3),
    }
    return workdir, train(moving(config(root, steps=6, ema=0.5, run=run)), workdir)


def moving(config):
    """Change a config so that six steps change the maps."""
    return dataclasses.replace(
        config,
        model=dataclasses.replace(config.model, k=10.0, k_fallback=10.0),
        train=dataclasses.replace(config.train, learning_rate=1e-2),
    )


def test_scores_on_the_way_are_those_of_evaluate(watched):
    workdir, _ = watched
    file = workdir / 'evaluations' / '6' / 'scores.json'
    on_the_way = json.loads(file.read_text())
    file.unlink()
    assert cli.evaluate(['evaluate', f'--workdir={workdir}']) == 0
    assert json.loads(file.read_text()) == on_the_way
    raw, averaged = (on_the_way['sets']['A'][f'{workdir.name}{suffix}'] for suffix in ('', '-ema'))
    assert raw != averaged
    line = next(line for line in lines(workdir) if line['step'] == 6 and 'eval/A/mae' in line)
    assert line['eval/A/mae'] == raw['mean']['mae']
    assert not any(path.is_dir() for path in (workdir / 'evaluations' / '5').iterdir())


def test_the_best_and_the_latest_checkpoints_stay(watched):
    workdir, _ = watched
    s = {}
    for line in lines(workdir):
        for kind in ('eval', 'eval-ema'):
            if f'{kind}/A/smeasure' in line:
                mean = np.mean([line[f'{kind}/{name}/smeasure'] for name in ('A', 'B')])
                s[line['step']] = max(mean, s.get(line['step'], 0))
    assert set(s) == {1, 2, 3, 4, 5, 6}
    best = max(s, key=lambda step: np.float32(s[step]))
    assert kept(workdir) == sorted({best, 6})
    assert restore.load_model(workdir, 'best')[2] == best
    assert restore.load_model(workdir, '6')[2] == 6
    with pytest.raises(CheckpointError, match="no step '7'; give 'latest', 'best'"):
        restore.load_model(workdir, '7')


@pytest.mark.slow
def test_watching_changes_nothing(watched, root, tmp_path):
    _, state = watched
    plain = train(moving(config(root, steps=6, run={'checkpoint_every': 100})), tmp_path)
    for name in ('params', 'batch_stats', 'opt_state'):
        jax.tree.map(np.testing.assert_array_equal, getattr(plain, name), getattr(state, name))


def test_pictures_and_a_profile_are_written(watched):
    workdir, _ = watched
    pictures = sorted((workdir / 'pictures').iterdir())
    assert [path.name for path in pictures] == ['4.png', '6.png']
    with Image.open(pictures[0]) as first, Image.open(pictures[1]) as second:
        tile, gap = observer.pictures.TILE, observer.pictures.GAP
        assert first.size == (first.width, 2 * (tile + gap))
        difference = np.asarray(first) != np.asarray(second)
    part = (np.arange(first.width) - gap) % (3 * tile + 3 * gap) // tile
    assert not difference[:, part < 2].any()  # the same images and masks
    assert difference[:, part == 2].any()  # other maps
    assert list((workdir / 'profile').rglob('*.xplane.pb'))


def test_a_profile_goes_on_with_the_run(root, tmp_path):
    train(config(root, steps=2, run={'profile': (2, 9)}), tmp_path)  # ends within the profile
    assert len(list((tmp_path / 'profile').rglob('*.xplane.pb'))) == 1
    train(config(root, steps=3, run={'profile': (2, 3)}), tmp_path)  # begins within it
    assert len(list((tmp_path / 'profile').rglob('*.xplane.pb'))) == 2


def test_a_second_ctrl_c_acts_as_ever():
    before = signal.getsignal(signal.SIGINT)
    with Interruption() as interruption:
        signal.raise_signal(signal.SIGINT)
        assert interruption.asked_at(1, every=10)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


def test_averages_that_a_run_does_not_keep(root, tmp_path):
    train(config(root, steps=1), tmp_path)
    with pytest.raises(CheckpointError, match=r'no moving averages \(train\.ema=0\)'):
        restore.load_model(tmp_path, ema=True)


def test_checkpoints_at_an_interval_stay(root, tmp_path):
    run = {'checkpoint_every': 1, 'keep_latest': 1, 'keep_every': 2}
    train(config(root, steps=5, run=run), tmp_path)
    assert kept(tmp_path) == [2, 4, 5]


def test_going_on_with_another_config_names_the_fields(root, tmp_path):
    train(config(root, steps=1), tmp_path)
    before = (tmp_path / 'config.json').read_text()
    with pytest.raises(CheckpointError) as caught:
        train(config(root, steps=2, learning_rate=1e-4, clip_norm=1.0), tmp_path)
    assert 'train.learning_rate is 0.0003 there and 0.0001 here' in str(caught.value)
    assert 'train.clip_norm' in str(caught.value)
    assert 'train.steps' not in str(caught.value)
    assert (tmp_path / 'config.json').read_text() == before
    with pytest.raises(CheckpointError, match=r'train\.steps is 1 there and 2 here'):
        config_file.write_config(tmp_path, config(root, steps=2, schedule='cosine'))


@pytest.mark.slow
def test_another_number_of_devices_goes_on(root, tmp_path):
    train(config(root, steps=2, run={'mesh': (1, 1)}), tmp_path / 'whole')
    train(config(root, steps=1, run={'mesh': (2, 1)}), tmp_path / 'run')
    went_on = train(config(root, steps=2, run={'mesh': (1, 1)}), tmp_path / 'run')
    assert len(jax.tree.leaves(went_on.params)[0].sharding.device_set) == 1
    whole, several = ([line['loss'] for line in lines(tmp_path / run)] for run in ('whole', 'run'))
    np.testing.assert_allclose(several, whole, rtol=1e-3)
    assert len(set(whole)) == 2


def test_weights_and_biases_gets_the_scalars(tmp_path, monkeypatch):
    logged, given = [], {}
    run = types.SimpleNamespace(
        log=lambda values, step: logged.append((step, values)), finish=lambda: logged.append('end')
    )
    fake = types.ModuleType('wandb')
    fake.init = lambda **kwargs: given.update(kwargs) or run
    fake.Image = lambda picture: picture.size
    monkeypatch.setitem(sys.modules, 'wandb', fake)
    writer = MetricWriter(tmp_path, wandb='cosod', config={'model': 1})
    writer.write(3, {'loss': 1.5})
    writer.picture(4, Image.new('RGB', (8, 6)))
    writer.close()
    assert logged == [(3, {'loss': 1.5}), (4, {'maps': (8, 6)}), 'end']
    assert given['project'] == 'cosod'
    assert given['resume'] == 'allow'
    monkeypatch.setitem(sys.modules, 'wandb', None)
    with pytest.raises(ConfigError, match=r'config\.run\.wandb: needs `pip install wandb`'):
        MetricWriter(tmp_path, wandb='cosod')


def test_a_step_that_does_not_fit_is_refused_before_it_starts(root, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(programs, 'memory_of', lambda device: 2**20)
    with pytest.raises(TrainingError, match=r"which has 0\.0: set run\.remat='light'"):
        train(config(root), tmp_path)
    assert 'Step of 2 x 2 x 3 images of 32 x 32' in capsys.readouterr().out
    assert not (tmp_path / 'metrics.jsonl').read_text()


def test_running_out_of_memory_says_what_to_change():
    with pytest.raises(TrainingError, match=r'model\.precision'), programs.memory_errors():
        raise jax.errors.JaxRuntimeError('RESOURCE_EXHAUSTED: out of memory\nmore')
    with pytest.raises(jax.errors.JaxRuntimeError, match='INTERNAL'), programs.memory_errors():
        raise jax.errors.JaxRuntimeError('INTERNAL: something else')


def test_a_full_disk_costs_no_checkpoint(root, tmp_path, monkeypatch, capsys):
    """Files cannot grow beyond 100 kB during the second save and the last."""
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)

    def room(self, step):
        self._checkpoints.wait()
        small = step in (2, 5)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000 if small else limit[0], limit[1]))

    monkeypatch.setattr(observer.Observer, 'before', room)
    try:
        with pytest.raises(CheckpointError, match=r'Step 5 .* step 4 is whole'):
            train(config(root, steps=5), tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    printed = capsys.readouterr().out
    assert 'Step 2 could not be saved' in printed
    assert 'step 1 is whole' in printed
    assert kept(tmp_path) == [3, 4]
    assert not list((tmp_path / 'checkpoints').glob('*tmp*'))
    assert restore.load_model(tmp_path)[2] == 4
    monkeypatch.undo()
    whole = train(config(root, steps=5), tmp_path / 'whole')
    resumed = train(config(root, steps=5), tmp_path)
    jax.tree.map(np.testing.assert_array_equal, resumed.params, whole.params)


def latest(workdir: Path) -> int:
    return max(kept(workdir), default=0) if (workdir / 'checkpoints').is_dir() else 0


@pytest.mark.slow
def test_killed_twenty_times_and_resumed_is_bit_equal(root, tmp_path):
    steps, kills = 120, 20
    length = f'--config.train.steps={steps}'
    command = [sys.executable, 'train.py', *test_training.command(tmp_path, root, length)[1:]]
    env = os.environ | {'JAX_COMPILATION_CACHE_DIR': jax.config.jax_compilation_cache_dir}
    place = Path(__file__).parent.parent
    workdir, peaceful = tmp_path / 'run', tmp_path / 'peaceful'
    again = [*command, f'--workdir={peaceful}']
    subprocess.run(again, cwd=place, env=env, check=True, capture_output=True)
    moments, done = random.Random(0), 0
    for _ in range(kills):
        process = subprocess.Popen(
            command, cwd=place, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        # Starting Python takes most of the time, but the kill must hit steps and saves.
        started = time.monotonic()
        while process.poll() is None and time.monotonic() - started < 300:
            if latest(workdir) > done:
                break
            time.sleep(0.002)
        time.sleep(moments.uniform(0, 0.3))
        process.send_signal(signal.SIGKILL)
        process.wait()
        done = latest(workdir)
        if done:
            assert restore.load_model(workdir)[2] >= done  # no partial checkpoint is offered
    subprocess.run(command, cwd=place, env=env, check=True, capture_output=True)
    assert kept(workdir)[-1] == kept(peaceful)[-1] == steps
    forms = [restore.load_model(folder) for folder in (workdir, peaceful)]
    states = [jax.tree.leaves(nnx.state(model)) for _, model, _ in forms]
    for a, b in zip(*states, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.slow
def test_a_thousand_steps_leak_nothing_and_compile_nothing(root, tmp_path, monkeypatch):
    seen, compiled = [], []
    write = MetricWriter.write

    def note(self, step, scalars):
        write(self, step, scalars)
        pages = int(Path('/proc/self/statm').read_text().split()[1])
        arrays = sum(x.nbytes for x in jax.live_arrays())
        memory = pages * os.sysconf('SC_PAGE_SIZE')
        seen.append((step, memory, arrays, len(gc.get_objects())))

    def listen(event, duration, **_):
        if event.endswith('backend_compile_duration'):
            compiled.append(seen[-1][0] if seen else 0)

    monkeypatch.setattr(MetricWriter, 'write', note)
    jax.monitoring.register_event_duration_secs_listener(listen)
    run = {'log_every': 50, 'checkpoint_every': 100}
    sizes = dataclasses.replace(config(root).data, group_sizes=(2, 3))
    train(dataclasses.replace(config(root, steps=1000, run=run), data=sizes), tmp_path)
    assert compiled
    assert max(compiled) < 200  # after both sizes and the first saves
    _, memory, arrays, objects = np.array(seen)[6:].T  # from step 350 on
    assert len(set(arrays)) == 1
    assert np.median(objects[7:]) - np.median(objects[:7]) < 500
    # The allocator itself varies by 20 MiB; leaking a state per step would be 1 GiB.
    assert np.median(memory[7:]) - np.median(memory[:7]) < 24 * 2**20
