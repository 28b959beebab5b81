"""Scores against hand-computed cases, a direct loop over the formulas, and published numbers."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gconet_jax.evaluation import maps, metrics
from gconet_jax.input_pipeline.files import DataError

GOLDEN = Path(__file__).parent / 'golden' / 'metrics'
EXPECTED = json.loads((GOLDEN / 'expected.json').read_text())
KEYS = set(EXPECTED['alpha']) - {'n'}


# --- The formulas, one threshold at a time, in float32.


def stretch(prediction):
    span = prediction.max() - prediction.min()
    return (prediction - prediction.min()) / span if span > 0 else prediction * 0


def direct_curves(prediction, truth):
    """Precision, recall, false-positive rate, F and E, each (255,)."""
    p = stretch(prediction)
    rows = []
    for i in range(255):
        on = (p >= np.float32(i / 254)).astype(np.float32)
        hit = np.sum(on * truth)
        precision = hit / on.sum() if on.any() else 0.0
        recall = hit / truth.sum() if truth.any() else 0.0
        background = np.sum(1 - truth)
        false_rate = np.sum(on * (1 - truth)) / background if background > 0 else 0.0
        bottom = 0.3 * precision + recall
        f = 1.3 * precision * recall / bottom if bottom > 0 else 0.0
        a, b = on - on.mean(), truth - truth.mean()
        xi = 2 * a * b / (a * a + b * b + np.float32(1e-20))
        rows.append((precision, recall, false_rate, f, np.sum((xi + 1) ** 2 / 4) / (p.size - 1)))
    return np.array(rows).T


def direct_smeasure(prediction, truth):
    p = stretch(prediction)
    t = (truth >= 0.5).astype(np.float32)
    if t.sum() in (0, t.size):
        return p.mean() if t.any() else 1 - p.mean()

    def likeness(values):
        mean = values.mean()
        deviation = np.sqrt(np.sum((values - mean) ** 2) / (values.size - 1))
        return 2 * mean / (mean**2 + 1 + deviation)

    objects = t.mean() * likeness(p[t == 1]) + (1 - t.mean()) * likeness(1 - p[t == 0])
    yy, xx = np.mgrid[: t.shape[0], : t.shape[1]]
    cy, cx = int(np.round(np.sum(yy * t) / t.sum())), int(np.round(np.sum(xx * t) / t.sum()))
    regions = 0.0
    for top, left in ((True, True), (True, False), (False, True), (False, False)):
        inside = ((yy < cy) == top) & ((xx < cx) == left)
        a, b = p[inside], t[inside]
        if a.size == 0:
            continue
        n = max(a.size - 1, 1)
        covariance = np.sum((a - a.mean()) * (b - b.mean())) / n
        variances = np.sum((a - a.mean()) ** 2) / n + np.sum((b - b.mean()) ** 2) / n
        above = 4 * a.mean() * b.mean() * covariance
        below = (a.mean() ** 2 + b.mean() ** 2) * variances
        regions += a.size / p.size * (above / below if below > 0 else 1.0)
    return max(0.5 * objects + 0.5 * regions, 0)


EDGE_CASES = {
    0: lambda p, t: (p, t * 0),
    1: lambda p, t: (p, t * 0 + 1),
    2: lambda p, t: (p * 0, t),
    3: lambda p, t: (p * 0 + 0.6, t),
    4: lambda p, t: (p, (t > 0.5) * 1.0),
    5: lambda p, t: (1 - p, t),
    6: lambda p, t: ((p > 0.5) * 1.0, t),
}


def random_pair(seed):
    """(H, W) float32 prediction and truth on the 8-bit grid; the seed picks the edge case."""
    rng = np.random.default_rng(seed)
    h, w = rng.integers(12, 40, 2)
    yy, xx = np.mgrid[:h, :w]
    cy, cx = rng.uniform(0.3, 0.7, 2) * [h, w]
    distance = np.hypot((yy - cy) / h, (xx - cx) / w)
    truth = np.clip((0.25 - distance) * 20 + 0.5, 0, 1)  # an ellipse with grey edges
    noise = rng.uniform(0, 1, (h, w))
    prediction = rng.uniform(0.2, 1) * np.clip(truth * 0.7 + 0.4 * (noise - 0.3), 0, 1)
    if seed % 8 in EDGE_CASES:
        prediction, truth = EDGE_CASES[seed % 8](prediction, truth)
    grid = np.float32(255)
    return tuple(np.rint(x * 255).astype(np.float32) / grid for x in (prediction, truth))


@pytest.mark.parametrize('seed', range(41))
def test_scores_equal_the_formulas(seed):
    prediction, truth = random_pair(seed)
    if seed == 40:  # a float truth of some 1,200 greys
        prediction, truth = np.random.default_rng(0).uniform(0, 1, (2, 30, 40)).astype(np.float32)
    got = metrics.score_image(prediction, truth)
    curves = [got.precision, got.recall, got.false_positive_rate, got.fmeasure, got.emeasure]
    np.testing.assert_allclose(curves, direct_curves(prediction, truth), rtol=0, atol=1e-6)
    assert got.smeasure == pytest.approx(direct_smeasure(prediction, truth), rel=0, abs=1e-6)
    assert got.mae == pytest.approx(np.mean(np.abs(prediction - truth)), rel=0, abs=1e-6)


def test_dtypes_agree():
    prediction, truth = random_pair(7)
    expected = metrics.score_image(prediction, truth)
    as_bytes = [np.rint(x * 255).astype(np.uint8) for x in (prediction, truth)]
    as_double = [x / 255 for x in as_bytes]
    for pair in (as_bytes, as_double, (as_bytes[0], truth)):
        for a, b in zip(metrics.score_image(*pair), expected, strict=True):
            np.testing.assert_array_equal(a, b)


# --- By hand.


def test_perfect_map():
    truth = np.zeros((4, 6), np.uint8)
    truth[1:3, 2:5] = 255
    scores = metrics.summarize([metrics.score_image(truth, truth)])
    assert scores['mae'] == 0
    assert scores['max_fmeasure'] == pytest.approx(1)
    # 254 thresholds are met exactly; at the first everything is on, so P = 6 / 24 and R = 1.
    assert scores['mean_fmeasure'] == pytest.approx((254 + 1.3 * 0.25 / 1.075) / 255)
    assert scores['max_emeasure'] == pytest.approx(24 / 23)
    assert scores['smeasure'] == pytest.approx(1)
    assert scores['ap'] == pytest.approx(1)
    # All 254 ties at (0, 1) and one point at (1, 1).
    assert scores['auc'] == pytest.approx(1)


def test_two_by_two_by_hand():
    prediction = np.array([[0.0, 0.25], [0.5, 1.0]])
    truth = np.array([[0.0, 1.0], [0.0, 1.0]])
    got = metrics.score_image(prediction, truth)
    assert got.mae == pytest.approx((0 + 0.75 + 0.5 + 0) / 4)
    # Thresholds 0, 63 / 254 < 0.25, 127 / 254 = 0.5 exactly, and 1 pass 4, 3, 2 and 1 pixels.
    at = [0, 63, 64, 127, 128, 254]
    np.testing.assert_allclose(got.precision[at], [1 / 2, 2 / 3, 1 / 2, 1 / 2, 1, 1])
    np.testing.assert_allclose(got.recall[at], [1, 1, 1 / 2, 1 / 2, 1 / 2, 1 / 2])
    np.testing.assert_allclose(got.false_positive_rate[at], [1, 1 / 2, 1 / 2, 1 / 2, 0, 0])
    # AP: recall 0 to 1/2 at precision 1, 1/2 to 1 at 2/3. AUC: (0, 1/2), (1/2, 1/2 to 1), (1, 1).
    mean = metrics.summarize([got])
    assert mean['ap'] == pytest.approx(1 / 2 + 1 / 3)
    # Ties at rate 1/2 keep the thresholds' order: 1 first and 1/2 last, 0 to 1/2 slopes up to 1.
    assert mean['auc'] == pytest.approx(0.75 / 2 + 0.75 / 2)


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
    np.testing.assert_allclose(empty.emeasure, 0.25 * 4 / 3)  # centred truth is 0: no alignment


@pytest.mark.parametrize(
    'truth',
    [
        np.eye(1, 16, 5).reshape(4, 4),  # one foreground pixel
        np.eye(1, 16, 0).reshape(4, 4),  # in the corner: three empty quadrants
        1 - np.eye(1, 16, 5).reshape(4, 4),
        np.full((4, 4), 0.3),  # empty only after the cut at 0.5
        np.ones((1, 1)),
    ],
)
def test_every_map_has_finite_scores(truth):
    prediction = np.linspace(0, 1, truth.size).reshape(truth.shape)
    for value in metrics.score_image(prediction, truth):
        assert np.all(np.isfinite(value))


def test_summary_averages_curves_before_the_maximum():
    one, two = (metrics.score_image(*random_pair(seed)) for seed in (4, 7))
    mean = metrics.mean_scores([one, two])
    np.testing.assert_allclose(mean.fmeasure, (one.fmeasure + two.fmeasure) / 2)
    summary = metrics.summarize(iter([one, two]))
    assert set(summary) == KEYS
    assert summary['max_fmeasure'] == pytest.approx(mean.fmeasure.max())
    assert summary['mean_emeasure'] == pytest.approx(mean.emeasure.mean())
    assert summary['smeasure'] == pytest.approx((one.smeasure + two.smeasure) / 2)


# --- Published numbers.


@pytest.mark.parametrize('group', ['alpha', 'beta', 'gamma', 'all'])
def test_golden_scores(group, tmp_path):
    gt_dir = GOLDEN / 'gt'
    if group != 'all':
        gt_dir = tmp_path / 'gt'
        gt_dir.mkdir()
        (gt_dir / group).symlink_to(GOLDEN / 'gt' / group, target_is_directory=True)
    scores = maps.evaluate_maps(GOLDEN / 'pred', gt_dir)
    assert scores == pytest.approx({key: EXPECTED[group][key] for key in KEYS}, rel=0, abs=1e-6)


def test_golden_curves():
    mean = metrics.mean_scores(maps.score_maps(maps.pair_files(GOLDEN / 'pred', GOLDEN / 'gt')))
    for name in ('fmeasure', 'emeasure'):
        expected = EXPECTED['all'][f'{name}_curve']
        np.testing.assert_allclose(getattr(mean, name), expected, rtol=0, atol=1e-6)


# --- Errors.


def test_shapes_must_match():
    with pytest.raises(ValueError, match=r'\(4, 5\).*\(5, 4\)'):
        metrics.score_image(np.zeros((4, 5)), np.zeros((5, 4)))


@pytest.mark.parametrize(
    ('bad', 'message'),
    [
        (np.full((2, 2), 255.0), 'must lie in'),
        (np.full((2, 2), np.nan), 'must lie in'),
        (np.zeros((2, 2), np.int32), 'int32'),
        (np.zeros((2, 2, 3)), 'H, W'),
        (np.zeros((0, 2)), 'non-empty'),
    ],
)
def test_bad_maps_are_refused(bad, message):
    with pytest.raises(ValueError, match=message):
        metrics.score_image(bad, bad)


def test_missing_maps_are_counted_and_named(tmp_path):
    for name in [f'gt/cat/{i}.png' for i in range(8)] + ['pred/cat/0.png', 'pred/cat/extra.png']:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.eye(8, dtype=np.uint8) * 255).save(tmp_path / name)
    with pytest.raises(DataError, match=r'7 of 8 maps are missing: .*1\.png.*5\.png, \.\.\.'):
        maps.evaluate_maps(tmp_path / 'pred', tmp_path / 'gt')


def test_nothing_to_score_and_unknown_protocol(tmp_path):
    with pytest.raises(ValueError, match='at least one'):
        metrics.summarize([])
    with pytest.raises(ValueError, match='no ground truth'):
        maps.evaluate_maps(tmp_path, tmp_path)
    with pytest.raises(ValueError, match=r'unknown protocol .*other'):
        maps.evaluate_maps(tmp_path, tmp_path, protocol='other')


@pytest.mark.parametrize('keep', [0, 30, 60])
def test_broken_maps_are_named(tmp_path, keep):
    path = tmp_path / 'a.png'
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 32), np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ValueError, match=r'a\.png'):
        maps.load_map(path)
    path.unlink()
    with pytest.raises(DataError, match=r'a\.png'):
        maps.load_map(path)
