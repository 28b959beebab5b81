"""Deviations over runs and the paired bootstrap, compared with direct loops."""

from pathlib import Path

import numpy as np
import pytest

from gconet_jax.evaluation import comparison
from gconet_jax.evaluation.comparison import MAIN, best_methods, deviation, paired_bootstrap
from gconet_jax.evaluation.scores import ImageScores, ScoredImage, SetScores

SIZES = (3, 7, 1, 5, 4, 6)
NOWHERE = Path('nowhere')  # no file is read
CURVES = ('fmeasure', 'emeasure', 'iou', 'dice', 'precision', 'recall', 'false_positive_rate')


def random_run(seed, sizes=SIZES, shift=0.0, protocol='eval-co-sod'):
    rng = np.random.default_rng(seed)
    images = tuple(
        ScoredImage(f'g{g}', f'{i:02}', None, NOWHERE, NOWHERE, resized=False)
        for g, size in enumerate(sizes)
        for i in range(size)
    )
    shapes = {name: (len(images), 9) for name in CURVES} | {'confidence': (len(images), 256)}
    # Curves peak at different thresholds, so that the order of mean and maximum matters.
    scores = ImageScores._make(
        rng.uniform(0.2, 0.7, shapes.get(name, len(images))) for name in ImageScores._fields
    )
    scores = scores._replace(**{m: getattr(scores, m) + shift for m in ('emeasure', 'smeasure')})
    return SetScores('CoCA', protocol, images, scores)


def test_deviation_over_runs():
    runs = [random_run(seed) for seed in range(3)]
    found = deviation(runs)
    values = [run.scores.fmeasure.mean(axis=0).max() for run in runs]
    assert found['max_fmeasure'] == pytest.approx((np.mean(values), np.std(values, ddof=1)))
    assert set(found) == set(runs[0].summary())


def test_one_run_has_no_deviation():
    run = random_run(0)
    mean, spread = deviation([run])['mae']
    assert mean == pytest.approx(run.scores.mae.mean())
    assert np.isnan(spread)


def test_best_methods_are_lowest_in_mae_and_highest_else():
    low, high = random_run(0), random_run(0, shift=0.1)
    high.scores.mae[:] += 0.1
    methods = {'low': [low], 'high': [high]}
    assert best_methods(methods) == [{'high'}, {'high'}, {'low', 'high'}, {'low'}]
    assert best_methods({'low': [low]}) == [set()] * 4
    low.scores.smeasure[0] = np.nan
    assert best_methods(methods)[1] == {'high'}


def slow_bootstrap(first, second, resamples, seed):
    """Compute the bootstrap by definition: pool the images and score them for each draw."""
    groups = list(first[0].groups().values())
    counts = np.random.default_rng(seed).multinomial(
        len(groups), np.full(len(groups), 1 / len(groups)), resamples
    )

    def score(runs, images):
        found = [run.summary(images) for run in runs]
        names = [m.replace('smeasure', 'defined_smeasure') for m in MAIN]
        return np.mean([[s[name] for name in names] for s in found], axis=0)

    drawn = []
    for times in counts:
        images = [i for group, k in zip(groups, times, strict=True) for i in group * k]
        drawn.append(score(second, images) - score(first, images))
    everything = list(range(len(first[0].images)))
    value = score(second, everything) - score(first, everything)
    return np.stack([value, *np.quantile(drawn, (0.025, 0.975), axis=0)], axis=1)


@pytest.mark.parametrize('block', [comparison.BLOCK, 3000])  # bytes: one block, or several
def test_bootstrap_is_as_defined(monkeypatch, block):
    monkeypatch.setattr(comparison, 'BLOCK', block)
    first, second = [random_run(1), random_run(2)], [random_run(3)]
    for run in (*first, *second):
        run.scores.smeasure[[0, 9]] = np.nan
    found = paired_bootstrap(first, second, resamples=200, seed=5)
    expected = slow_bootstrap(first, second, 200, 5)
    assert tuple(found) == MAIN
    np.testing.assert_allclose(list(found.values()), expected, rtol=0, atol=1e-12)


def test_equal_methods_do_not_differ():
    for difference in paired_bootstrap([random_run(1)], [random_run(1)], resamples=50).values():
        assert difference == (0, 0, 0)
        assert not difference.excludes_zero


def test_planted_difference_is_found():
    noise = np.random.default_rng(0).normal(0, 0.01, sum(SIZES))
    first, second = random_run(1), random_run(1, shift=0.05)
    second.scores.smeasure[:] += noise
    found = paired_bootstrap([first], [second], resamples=1000)
    assert found['smeasure'].value == pytest.approx(0.05 + noise.mean())
    assert found['smeasure'].excludes_zero
    assert found['max_emeasure'].value == pytest.approx(0.05)
    assert not found['mae'].excludes_zero
    turned = paired_bootstrap([second], [first], resamples=1000)['smeasure']
    assert turned.value == pytest.approx(-found['smeasure'].value)
    assert turned.excludes_zero


def test_undefined_in_one_run_is_left_out_of_both():
    first, second = random_run(1), random_run(2)
    second.scores.smeasure[4] = np.nan
    expected = np.delete(second.scores.smeasure - first.scores.smeasure, 4).mean()
    found = paired_bootstrap([first], [second], resamples=50)
    assert found['smeasure'].value == pytest.approx(expected)
    assert found['mae'].value == pytest.approx((second.scores.mae - first.scores.mae).mean())


def test_undefined_everywhere():
    first = random_run(1)
    first.scores.smeasure[:] = np.nan
    found = paired_bootstrap([first], [random_run(2)], resamples=50)
    assert np.isnan(found['smeasure']).all()
    assert not found['smeasure'].excludes_zero
    assert not np.isnan(found['mae']).any()


def test_other_images_are_refused():
    with pytest.raises(ValueError, match='CoCA: the scored images differ: g1/06 in one, g2/00 in'):
        paired_bootstrap([random_run(1)], [random_run(1, (3, 6, 1, 5, 4, 6))])
    with pytest.raises(ValueError, match='g5/05 in one, no image in'):
        paired_bootstrap([random_run(1)], [random_run(1, (3, 7, 1, 5, 4, 5))])


def test_other_protocol_is_refused():
    with pytest.raises(ValueError, match='by eval-co-sod and by pysodmetrics'):
        paired_bootstrap([random_run(1)], [random_run(1, protocol='pysodmetrics')])
