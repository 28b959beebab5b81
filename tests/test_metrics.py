"""Scores of one image against the formulas, PySODMetrics, golden numbers and hand-made cases."""

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
from metric_reference import direct, direct_smeasure, random_pair, stretch

from gconet_jax.evaluation import metrics, pysodmetrics, scoring
from gconet_jax.evaluation.scores import stack, summarize

GOLDEN = Path(__file__).parent / 'golden' / 'metrics'
EXPECTED = json.loads((GOLDEN / 'expected.json').read_text())
CURVES = ('precision', 'recall', 'false_positive_rate', 'fmeasure', 'emeasure', 'iou', 'dice')

# Differences, in units in the last place, of torch.linspace(0, 1 - 1e-10, 255) of torch 2.13 on a
# CPU from the nearest float32 to i / 254.
LINSPACE = {9: -1, 13: -1, 18: -1, 26: -1, 36: -1, 52: -1, 72: -1, 104: -1, 174: 1, 238: 1}


@pytest.mark.parametrize('start', range(0, 500, 100))
def test_eval_co_sod_equals_the_formulas(start):
    undefined = 0
    for seed in range(start, start + 100):
        prediction, truth = random_pair(seed)
        got = metrics.score_image(prediction, truth)
        adaptive = min(2 * stretch(prediction).astype(np.float64).mean(), 1)
        thresholds = np.append(metrics.THRESHOLDS, np.float32(adaptive))
        expected = dict(zip(CURVES, direct(prediction, truth, thresholds), strict=True))
        for name, curve in expected.items():
            np.testing.assert_allclose(getattr(got, name), curve[:-1], rtol=0, atol=1e-9)
        for name in ('fmeasure', 'emeasure', 'iou', 'dice'):
            np.testing.assert_allclose(
                getattr(got, f'adaptive_{name}'), expected[name][-1], rtol=0, atol=1e-9
            )
        with warnings.catch_warnings():
            warnings.simplefilter('ignore', RuntimeWarning)
            s = direct_smeasure(prediction, truth)
        np.testing.assert_allclose(got.smeasure, s, rtol=0, atol=1e-7, err_msg=str(seed))
        undefined += np.isnan(s)
        error = np.abs(prediction / 255 - truth / 255).mean()
        np.testing.assert_allclose(got.mae, error, rtol=0, atol=1e-9)
        np.testing.assert_allclose(got.confidence.sum(), 1)
    assert 8 <= undefined <= 25


@pytest.mark.parametrize('start', range(0, 500, 100))
def test_weighted_fmeasure_equals_pysodmetrics(start):
    for seed in range(start, start + 100):
        prediction, truth = random_pair(seed)
        truth = np.where(truth >= 128, 255, 0).astype(np.uint8)  # the library cuts above 128
        if prediction.min() == prediction.max():
            continue  # the library does not normalise this one
        ours, theirs = metrics.score_image(prediction, truth), pysod(prediction, truth)
        np.testing.assert_allclose(ours.wfmeasure, theirs['wfmeasure'], rtol=0, atol=1e-6)


def pysod(prediction, truth):
    """Return the library's numbers for one image, from its classes for single measures."""
    import py_sod_metrics as library

    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # a deprecated class, and means of empty arrays
        measures = [
            getattr(library, name)()
            for name in ('MAE', 'Smeasure', 'Emeasure', 'Fmeasure', 'WeightedFmeasure')
        ]
        for measure in measures:
            measure.step(prediction, truth)
    mae, s, e, f, wf = (measure.get_results() for measure in measures)
    return {
        'mae': mae['mae'],
        'smeasure': s['sm'],
        'max_emeasure': e['em']['curve'].max(),
        'mean_emeasure': e['em']['curve'].mean(),
        'adaptive_emeasure': e['em']['adp'],
        'max_fmeasure': f['fm']['curve'].max(),
        'mean_fmeasure': f['fm']['curve'].mean(),
        'adaptive_fmeasure': f['fm']['adp'],
        'wfmeasure': wf['wfm'],
    }


@pytest.mark.parametrize('start', range(0, 500, 100))
def test_pysodmetrics_protocol_equals_the_library(start):
    for seed in range(start, start + 100):
        pair = random_pair(seed)
        got = summarize(stack([pysodmetrics.score_image(*pair)]))
        for name, value in pysod(*pair).items():
            np.testing.assert_allclose(got[name], value, rtol=0, atol=1e-9, err_msg=name)


def test_thresholds_are_those_of_torch():
    nearest = (np.arange(255) / 254).astype(np.float32)
    units = metrics.THRESHOLDS.view(np.int32) - nearest.view(np.int32)
    assert {int(i): int(units[i]) for i in np.flatnonzero(units)} == LINSPACE


# --- Hand-computed cases.


def test_perfect_map():
    truth = np.zeros((4, 6), np.uint8)
    truth[1:3, 2:5] = 255
    scores = summarize(stack([metrics.score_image(truth, truth)]))
    assert scores['mae'] == 0
    assert scores['max_fmeasure'] == pytest.approx(1)
    # 254 thresholds match exactly; at the first every pixel is on, so P = 6 / 24 and R = 1.
    assert scores['mean_fmeasure'] == pytest.approx((254 + 1.3 * 0.25 / 1.075) / 255)
    assert scores['max_emeasure'] == pytest.approx(24 / 23)
    for name in ('smeasure', 'wfmeasure', 'max_iou', 'max_dice', 'adaptive_iou', 'ap'):
        assert scores[name] == pytest.approx(1)
    # All 254 ties at (0, 1) and one point at (1, 1).
    assert scores['auc'] == pytest.approx(1)


def test_auc_of_a_map_that_separates_though_it_is_grey():
    truth = np.zeros((10, 10), np.uint8)
    truth[:, 5:] = 255
    grey = np.where(truth > 0, 128 + np.arange(100).reshape(10, 10), 2).astype(np.uint8)
    scores = summarize(stack([metrics.score_image(grey, truth)]))
    assert scores['auc'] == pytest.approx(1)


def test_two_by_two_by_hand():
    prediction = np.array([[0, 64], [127, 254]], np.uint8)  # 0, 64 / 254, 1 / 2, 1
    truth = np.array([[0, 255], [0, 255]], np.uint8)
    got = metrics.score_image(prediction, truth)
    assert got.mae == pytest.approx((0 + 191 + 127 + 1) / 255 / 4)
    # Thresholds 0, 63 / 254, 127 / 254 = 1 / 2 and 1 are reached by 4, 3, 2 and 1 pixels.
    at = [0, 63, 65, 127, 128, 254]
    np.testing.assert_allclose(got.precision[at], [1 / 2, 2 / 3, 1 / 2, 1 / 2, 1, 1])
    np.testing.assert_allclose(got.recall[at], [1, 1, 1 / 2, 1 / 2, 1 / 2, 1 / 2])
    np.testing.assert_allclose(got.false_positive_rate[at], [1, 1 / 2, 1 / 2, 1 / 2, 0, 0])
    np.testing.assert_allclose(got.iou[at], [1 / 2, 2 / 3, 1 / 3, 1 / 3, 1 / 2, 1 / 2])
    np.testing.assert_allclose(got.dice[at], [2 / 3, 4 / 5, 1 / 2, 1 / 2, 2 / 3, 2 / 3])
    # Twice the mean, 2 (64 + 127 + 254) / 254 / 4, is between 1 / 2 and 1.
    assert got.adaptive_iou == pytest.approx(1 / 2)
    # AP: recall 0 to 1/2 at precision 1, 1/2 to 1 at 2/3. AUC: (0, 1/2), (1/2, 1/2 to 1), (1, 1).
    mean = summarize(stack([got]))
    assert mean['ap'] == pytest.approx(1 / 2 + 1 / 3)
    assert mean['auc'] == pytest.approx(1 / 2 * 1 / 2 + 1 / 2 * 1)
    assert list(np.flatnonzero(got.confidence)) == [0, 64, 127, 254]


def test_a_constant_map_counts_as_black():
    truth = np.zeros((4, 4), np.uint8)
    truth[:, 2:] = 255
    grey = metrics.score_image(np.full((4, 4), 90, np.uint8), truth)
    black = metrics.score_image(np.zeros((4, 4), np.uint8), truth)
    np.testing.assert_array_equal(grey.fmeasure, black.fmeasure)
    assert grey.smeasure == black.smeasure
    assert np.all(grey.precision[1:] == 0)
    assert grey.mae == pytest.approx((90 + 165) / 2 / 255)


def test_empty_and_full_truth():
    prediction = np.array([[0, 51], [102, 255]], np.uint8)
    empty = metrics.score_image(prediction, np.zeros((2, 2), np.uint8))
    full = metrics.score_image(prediction, np.full((2, 2), 255, np.uint8))
    assert empty.smeasure == pytest.approx(1 - 1.6 / 4)
    assert full.smeasure == pytest.approx(1.6 / 4)
    assert np.all(empty.fmeasure == 0)
    assert empty.wfmeasure == 0
    np.testing.assert_allclose(empty.emeasure, 0.25 * 4 / 3)  # the centred truth is 0: no alignment


def test_a_grey_constant_quadrant_is_alike():
    truth = np.zeros((40, 40), np.uint8)
    truth[20:, 20:] = 255  # centroid at (30, 30): the quadrant above it is background
    prediction = np.where(truth > 0, 255, 77).astype(np.uint8)
    prediction[35:, :3] = 0  # so that 77 is not black
    with_grey = metrics.score_image(prediction, truth).smeasure
    prediction[:30, :30] = np.where(prediction[:30, :30] == 77, 78, prediction[:30, :30])
    assert with_grey == pytest.approx(metrics.score_image(prediction, truth).smeasure, abs=0.01)


def test_summary_averages_curves_before_the_maximum():
    one, two = (metrics.score_image(*random_pair(seed)) for seed in (18, 21))
    summary = summarize(stack([one, two]))
    assert summary['max_fmeasure'] == pytest.approx(((one.fmeasure + two.fmeasure) / 2).max())
    assert summary['mean_emeasure'] == pytest.approx(np.mean([one.emeasure, two.emeasure]))
    assert summary['smeasure'] == pytest.approx((one.smeasure + two.smeasure) / 2)
    assert summary['max_iou'] < max(one.iou.max(), two.iou.max())


def test_balanced_error_rate_is_the_least_mean_of_misses_and_false_alarms():
    truth = np.zeros((4, 4), np.uint8)
    truth[0] = 255  # 4 pixels of 16
    prediction = np.where(truth > 0, 255, 0).astype(np.uint8)
    prediction[0, 0], prediction[1, :3] = 0, 255  # 1 of 4 missed, 3 false alarms among 12
    scores = metrics.score_image(prediction, truth)
    assert summarize(stack([scores]))['min_ber'] == pytest.approx((1 / 4 + 3 / 12) / 2)


def test_an_undefined_score_is_nan_and_told_apart():
    good, bad = (metrics.score_image(*random_pair(seed)) for seed in (18, 10))
    summary = summarize(stack([good, bad]))
    assert np.isnan(summary['smeasure'])
    assert summary['defined_smeasure'] == good.smeasure
    assert np.isfinite([v for k, v in summary.items() if k != 'smeasure']).all()


# --- Published numbers.


@pytest.mark.parametrize('group', ['alpha', 'beta', 'gamma', 'all'])
def test_golden_scores(group, tmp_path):
    gt_dir = GOLDEN / 'gt'
    if group != 'all':
        gt_dir = tmp_path / 'gt'
        gt_dir.mkdir()
        (gt_dir / group).symlink_to(GOLDEN / 'gt' / group, target_is_directory=True)
    scores = scoring.evaluate_maps(GOLDEN / 'pred', gt_dir)
    for name in EXPECTED[group].keys() & scores.keys():
        assert scores[name] == pytest.approx(EXPECTED[group][name], rel=0, abs=1e-6)
    assert len(EXPECTED[group].keys() & scores.keys()) == 8


def test_golden_pysodmetrics():
    scores = scoring.evaluate_maps(GOLDEN / 'pred', GOLDEN / 'gt', protocol='pysodmetrics')
    for name, value in EXPECTED['pysodmetrics'].items():
        name = name.replace('adp_', 'adaptive_')
        assert scores[name] == pytest.approx(value, rel=0, abs=1e-6)


# --- Errors.


def test_shapes_must_match():
    with pytest.raises(ValueError, match=r'\(4, 5\).*\(5, 4\)'):
        metrics.score_image(np.zeros((4, 5), np.uint8), np.zeros((5, 4), np.uint8))


@pytest.mark.parametrize('score', [metrics.score_image, pysodmetrics.score_image])
@pytest.mark.parametrize(
    ('bad', 'message'),
    [
        (np.zeros((2, 2)), 'uint8.*float64'),
        (np.zeros((2, 2), np.int32), 'int32'),
        (np.zeros((2, 2, 3), np.uint8), 'H, W'),
        (np.zeros((0, 2), np.uint8), 'non-empty'),
    ],
)
def test_bad_maps_are_refused(score, bad, message):
    with pytest.raises(ValueError, match=message):
        score(bad, bad)
