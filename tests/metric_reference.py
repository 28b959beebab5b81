"""The formulas of eval-co-sod, one threshold at a time, and pairs of maps to test them on."""

import numpy as np


def stretch(prediction):
    p = prediction.astype(np.float32) / np.float32(255)
    return (p - p.min()) / (p.max() - p.min() + np.float32(1e-20))


def ratio(above, below):
    return above / below if below > 0 else 0.0


def direct(prediction, truth, thresholds):
    """Return precision, recall, false-positive rate, F, E, IoU and Dice, each (T,)."""
    p, t = stretch(prediction), truth / 255
    rows = []
    for threshold in thresholds:
        on = (p >= threshold).astype(np.float64)
        hit = np.sum(on * t)
        precision, recall = ratio(hit, on.sum()), ratio(hit, t.sum())
        false_rate = ratio(np.sum(on * (1 - t)), np.sum(1 - t))
        f = ratio(1.3 * precision * recall, 0.3 * precision + recall)
        a, b = on - on.mean(), t - t.mean()
        e = np.sum((2 * a * b / (a * a + b * b + 1e-20) + 1) ** 2 / 4) / (p.size - 1)
        union, sizes = on.sum() + t.sum() - hit, on.sum() + t.sum()
        rows.append((precision, recall, false_rate, f, e, ratio(hit, union), ratio(2 * hit, sizes)))
    return np.array(rows).T


def direct_smeasure(prediction, truth):
    """Return S; NaN where numpy and PyTorch return it for statistics of too few pixels."""
    p, t = stretch(prediction).astype(np.float64), (truth >= 127.5).astype(np.float64)
    if truth.min() == truth.max() in (0, 255):
        return p.mean() if truth.any() else 1 - p.mean()

    def likeness(values):
        mean = values.mean()
        deviation = np.sqrt(np.sum((values - mean) ** 2) / np.float64(values.size - 1))
        return 2 * mean / (mean**2 + 1 + deviation)

    objects = t.mean() * likeness(p[t == 1]) + (1 - t.mean()) * likeness(1 - p[t == 0])
    yy, xx = np.mgrid[: t.shape[0], : t.shape[1]]
    cy, cx = np.round(np.sum(yy * t) / t.sum()), np.round(np.sum(xx * t) / t.sum())
    regions = 0.0
    for inside in (
        (yy < cy) & (xx < cx),
        (yy < cy) & (xx >= cx),
        (yy >= cy) & (xx < cx),
        (yy >= cy) & (xx >= cx),
    ):
        a, b = p[inside], t[inside]
        covariance = np.sum((a - a.mean()) * (b - b.mean()))
        variances = np.sum((a - a.mean()) ** 2) + np.sum((b - b.mean()) ** 2)
        above = 4 * a.mean() * b.mean() * covariance
        below = (a.mean() ** 2 + b.mean() ** 2) * variances
        regions += a.size / p.size * (1.0 if above == below == 0 else above / below)
    return np.maximum(0.5 * objects + 0.5 * regions, 0)


def spot(truth, y, x):
    truth = truth * 0
    truth[y, x] = 255
    return truth


EDGE_CASES = {
    1: lambda p, t: (p, t * 0),
    2: lambda p, t: (p, t * 0 + 255),
    3: lambda p, t: (p * 0, t),
    4: lambda p, t: (p * 0 + 153, t),
    5: lambda p, t: (p, np.where(t > 128, 255, 0)),
    6: lambda p, t: (255 - p, t),
    7: lambda p, t: (np.where(p > 128, 255, 0), t),
    8: lambda p, t: (p, np.minimum(t, 127)),  # the cut empties this truth
    9: lambda p, t: (p, np.maximum(t, 128)),
    10: lambda p, t: (p, spot(t, 3, 4)),  # a single pixel
    11: lambda p, t: (p, spot(t, slice(0, 1), slice(3, 9))),  # centroid in the first row
    12: lambda p, t: (p, spot(t, slice(None), slice(0, 1))),
    13: lambda p, t: (p, spot(t, slice(-1, None), slice(-1, None))),
    14: lambda p, t: (p // 2, t),  # levels that equal thresholds: the span is 127
    15: lambda p, t: (p // 4 * 2, t),
    16: lambda p, t: (t, t),
    17: lambda p, t: (p, np.clip(t, 120, 136)),
}


def random_pair(seed):
    """Return a uint8 map (H, W) and a truth with grey edges; the seed selects the edge case."""
    rng = np.random.default_rng(seed)
    h, w = rng.integers(12, 40, 2)
    yy, xx = np.mgrid[:h, :w]
    cy, cx = rng.uniform(0.2, 0.8, 2) * [h, w]
    distance = np.hypot((yy - cy) / h, (xx - cx) / w)
    truth = np.clip((0.25 - distance) * 20 + 0.5, 0, 1)
    noise = rng.uniform(0, 1, (h, w))
    prediction = rng.uniform(0.2, 1) * np.clip(truth * 0.7 + 0.4 * (noise - 0.3), 0, 1)
    prediction.flat[0], prediction.flat[1] = (0, 1) if seed % 2 else (0.1, 0.9)
    pair = np.rint(prediction * 255).astype(np.uint8), np.rint(truth * 255).astype(np.uint8)
    pair = EDGE_CASES.get(seed % 25, lambda p, t: (p, t))(*pair)
    return tuple(x.astype(np.uint8) for x in pair)
