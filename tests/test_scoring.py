"""Map files: found, read, scored in processes, with every irregular one listed."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny_data import write_maps, write_set

from gconet_jax.evaluation import maps, scoring
from gconet_jax.futures import in_order
from gconet_jax.input_pipeline.files import DataError
from gconet_jax.input_pipeline.groups import load_groups


@pytest.fixture
def sets(tmp_path):
    """Two sets, by name, with a method's maps of both in tmp_path / 'm'."""
    write_set(tmp_path, 'A', {'cat': 3, 'dog': 2})
    write_set(tmp_path, 'B', {'cow': 2}, seed=1)
    loaded = {name: load_groups(tmp_path, name) for name in ('A', 'B')}
    for seed, (name, groups) in enumerate(loaded.items()):
        write_maps(tmp_path / 'm' / name, groups, seed)
    return loaded


def score(folder: Path, sets, *, workers: int = 0, protocol: str = 'eval-co-sod'):
    found = scoring.find_maps(folder, sets)
    return scoring.score_maps(found, protocol=protocol, workers=workers)


def test_every_image_is_scored_in_order_alike_in_processes_and_here(sets, tmp_path):
    here, there = (score(tmp_path / 'm', sets, workers=workers) for workers in (0, 2))
    assert [(i.group, i.name) for i in here['A'].images] == [
        ('cat', '00'),
        ('cat', '01'),
        ('cat', '02'),
        ('dog', '00'),
        ('dog', '01'),
    ]
    for name, scores in here.items():
        for left, right in zip(scores.scores, there[name].scores, strict=True):
            np.testing.assert_array_equal(left, right)
        for i, image in enumerate(scores.images):
            alone = scoring.score_files(image, 'eval-co-sod').scores
            assert scores.scores.mae[i] == alone.mae
        assert scores.remarks == ()
    assert here['A'].groups() == {'cat': [0, 1, 2], 'dog': [3, 4]}
    assert here['A'].summary([3, 4])['mae'] == pytest.approx(here['A'].scores.mae[3:].mean())


def test_protocols_differ(sets, tmp_path):
    one, other = (
        score(tmp_path / 'm', sets, protocol=protocol)['A'].summary()
        for protocol in scoring.PROTOCOLS
    )
    assert one['mae'] != other['mae']
    assert one['max_fmeasure'] == pytest.approx(other['max_fmeasure'], abs=0.05)


def test_missing_maps_and_groups_are_counted_and_named_before_anything_is_scored(sets, tmp_path):
    (tmp_path / 'm' / 'A' / 'cat' / '01.png').unlink()
    for path in (tmp_path / 'm' / 'A' / 'dog').iterdir():
        path.unlink()
    with pytest.raises(
        DataError, match=r'3 of 5 maps are missing in .*m/A, 1 groups with no map'
    ) as e:
        scoring.find_maps(tmp_path / 'm', sets)
    assert 'dog' in str(e.value)
    assert 'cat/01' in str(e.value)


def test_a_missing_set_and_an_empty_folder(sets, tmp_path):
    (tmp_path / 'empty').mkdir()
    with pytest.raises(DataError, match='has no maps of A; folders that are there: none'):
        scoring.find_maps(tmp_path / 'empty', sets)
    with pytest.raises(DataError, match='5 of 5 maps are missing'):
        scoring.find_maps(tmp_path / 'empty', {'A': sets['A']})
    with pytest.raises(DataError, match='not a folder'):
        scoring.find_maps(tmp_path / 'nowhere', sets)


def test_maps_of_one_set_may_lie_in_the_folder_itself_and_names_in_any_case(sets, tmp_path):
    one = {'A': sets['A']}
    inside = score(tmp_path / 'm' / 'A', one)['A'].summary()
    (tmp_path / 'm' / 'A').rename(tmp_path / 'm' / 'a_')
    assert score(tmp_path / 'm', one)['A'].summary() == inside


def test_odd_maps_are_scored_and_told(sets, tmp_path):
    folder = tmp_path / 'm' / 'A'
    before = score(tmp_path / 'm', sets)['A'].scores.mae
    plain = np.asarray(Image.open(folder / 'cat' / '00.png'))
    # The same map in 16 bits and in colour gives the same score.
    Image.fromarray(plain.astype(np.uint16) * 257).save(folder / 'cat' / '00.png')
    Image.open(folder / 'cat' / '01.png').convert('RGB').save(folder / 'cat' / '01.png')
    Image.open(folder / 'cat' / '02.png').save(folder / 'cat' / '02.bmp')
    (folder / 'cat' / '02.png').unlink()
    Image.open(folder / 'dog' / '00.png').resize((48, 40)).save(folder / 'dog' / '00.png')
    Image.fromarray(plain).save(folder / 'dog' / 'other.png')
    (folder / 'extra').mkdir()
    Image.fromarray(plain).save(folder / 'extra' / '00.png')
    scores = score(tmp_path / 'm', sets)['A']
    np.testing.assert_array_equal(np.delete(scores.scores.mae, 3), np.delete(before, 3))
    assert [image.resized for image in scores.images] == [False, False, False, True, False]
    resized, modes, stray = scores.remarks
    assert resized.startswith('1 maps of another size')
    assert 'dog/00.png' in resized
    assert modes.startswith('2 maps not 8-bit grey')
    assert '(I;16)' in modes
    assert '(RGB)' in modes
    assert stray.startswith('2 maps of no image')
    assert 'dog/other.png' in stray
    assert 'extra/00.png' in stray


def test_written_maps_are_cut_off_and_not_rounded(tmp_path):
    image = tmp_path / 'photo.png'
    Image.new('RGB', (5, 4)).save(image)
    levels = np.array([[0.9, 0.9], [127.9, 127.9], [255, 255]], np.float32)
    written = maps.write_map(levels / 255, image, tmp_path / 'new' / 'map.png')
    # Rows at 0, 2/3, 4/3 and 2 of the three, because corners are aligned.
    np.testing.assert_array_equal(written[:, 0], [0, 85, 170, 255])
    with Image.open(tmp_path / 'new' / 'map.png') as file:
        np.testing.assert_array_equal(np.asarray(file), written)


def test_resized_as_the_toolbox_does(tmp_path):
    rng = np.random.default_rng(0)
    small = rng.integers(0, 256, (10, 14), np.uint8)
    expected = Image.fromarray(small).resize((20, 15), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(maps.resize_map(small, (15, 20)), np.asarray(expected))


@pytest.mark.parametrize('workers', [0, 2])
@pytest.mark.parametrize('keep', [0, 30, 60])
def test_broken_maps_are_named(sets, tmp_path, keep, workers):
    path = tmp_path / 'm' / 'A' / 'cat' / '01.png'
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(DataError, match=r'A/cat/01\.png'):
        score(tmp_path / 'm', sets, workers=workers)


def test_what_waits_is_bounded():
    alive = 0
    most = 0

    class Result:
        def __init__(self):
            nonlocal alive, most
            alive += 1
            most = max(most, alive)

        def result(self):
            nonlocal alive
            alive -= 1
            return alive

    assert len(list(in_order((Result() for _ in range(100)), ahead=7))) == 100
    assert most == 8


def test_evaluate_maps_wants_truths_and_a_known_protocol(tmp_path):
    with pytest.raises(DataError, match='no ground truth'):
        scoring.evaluate_maps(tmp_path, tmp_path)
    with pytest.raises(ValueError, match=r'unknown protocol .*other'):
        scoring.evaluate_maps(tmp_path, tmp_path, protocol='other')


def test_scores_survive_json(sets, tmp_path):
    summary = score(tmp_path / 'm', sets)['A'].summary()
    assert json.loads(json.dumps(summary)) == summary
