"""How far two methods differ, and with what certainty, over seeds and over groups of images."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import zip_longest
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gconet_jax.evaluation.scores import SetScores

Array = NDArray[np.floating]

# The metrics of `SetScores.summary` in the paper's Table 3, in its order.
MAIN = ('max_emeasure', 'smeasure', 'max_fmeasure', 'mae')
BLOCK = 200_000_000  # bytes for the resamples of one block


class Difference(NamedTuple):
    """Second method minus first: above 0 the second has the larger value, which is worse for MAE.

    `low` and `high` bound the 95 % percentile interval of the bootstrap.
    """

    value: float
    low: float
    high: float

    @property
    def excludes_zero(self) -> bool:
        """Return True if the interval lies on one side of 0; False if it is NaN."""
        return self.low > 0 or self.high < 0


class _Sums(NamedTuple):
    """Sums over the images of each of G groups."""

    images: Array  # (G,) number of images
    defined: Array  # (G,) number of images with a defined S
    smeasure: Array  # (G,)
    mae: Array  # (G,)
    emeasure: Array  # (G, T)
    fmeasure: Array  # (G, T)


def deviation(runs: Sequence[SetScores]) -> dict[str, tuple[float, float]]:
    """Return mean and sample standard deviation over runs of each metric of `SetScores.summary`.

    The deviation is NaN for one run.
    """
    summaries = [run.summary() for run in runs]
    table = {metric: np.array([s[metric] for s in summaries]) for metric in summaries[0]}
    return {
        metric: (float(values.mean()), float(values.std(ddof=1)) if len(runs) > 1 else float('nan'))
        for metric, values in table.items()
    }


def best_methods(methods: Mapping[str, Sequence[SetScores]]) -> list[set[str]]:
    """Return, for each of MAIN, the methods with the best mean to 3 decimals.

    A set is empty if there is only one method.
    """
    values = {method: deviation(runs) for method, runs in methods.items()}
    best = []
    for metric in MAIN:
        rounded = {method: round(numbers[metric][0], 3) for method, numbers in values.items()}
        known = [value for value in rounded.values() if not np.isnan(value)]
        top = (min if metric == 'mae' else max)(known, default=None)
        several = len(methods) > 1
        best.append({m for m, value in rounded.items() if several and value == top})
    return best


def paired_bootstrap(
    first: Sequence[SetScores],
    second: Sequence[SetScores],
    *,
    resamples: int = 10_000,
    seed: int = 0,
) -> dict[str, Difference]:
    """Return the differences in max E, S, max F and MAE, with 95 % intervals.

    Groups, not images, are drawn with replacement, because the images of a group share their object
    and are predicted together. Both methods get the same draws (Efron and Tibshirani 1993). A draw
    is scored over all images of its groups, each with the same weight; curves are averaged before
    the maximum over thresholds. Scores are averaged over the runs of a method. An image whose S is
    undefined in any run is left out of S only.

    Args:
        first: runs of one method.
        second: runs of the other, on the same images in the same order.
        resamples: number of draws.
        seed: seed of the draws.

    Returns:
        Second minus first, keyed by the names of `SetScores.summary`. S is NaN if it is defined
        nowhere. With one group, the interval has no width and no meaning.

    Raises:
        ValueError: the images or the protocols differ.
    """
    _check_same([*first, *second])
    groups = list(first[0].groups().values())
    smeasures = np.stack([run.scores.smeasure for run in (*first, *second)])
    defined = np.where(np.isnan(smeasures).any(axis=0), 0.0, 1.0)
    before, after = (
        [_sum_groups(run, groups, defined) for run in runs] for runs in (first, second)
    )
    whole = _differences(before, after, np.ones((1, len(groups))))
    drawn = [_differences(before, after, counts) for counts in _draws(before[0], resamples, seed)]
    return {
        metric: Difference(
            float(value[0]), *_interval(np.concatenate([part[metric] for part in drawn]))
        )
        for metric, value in whole.items()
    }


def _draws(sums: _Sums, resamples: int, seed: int) -> Iterator[Array]:
    """Yield the draws, (R, G) counts of each group, in blocks to bound memory."""
    n, thresholds = sums.emeasure.shape
    block = max(1, BLOCK // (8 * (2 * n + 2 * thresholds)))
    rng = np.random.default_rng(seed)
    for start in range(0, resamples, block):
        yield rng.multinomial(n, np.full(n, 1 / n), min(block, resamples - start)) * 1.0


def _differences(
    before: Sequence[_Sums], after: Sequence[_Sums], counts: Array
) -> dict[str, Array]:
    """Return second minus first for counts (R, G) of each group: (R,) per score."""
    first, second = _scores(before, counts), _scores(after, counts)
    return {metric: second[metric] - first[metric] for metric in first}


def _check_same(runs: Sequence[SetScores]) -> None:
    expected = runs[0]
    for run in runs[1:]:
        if run.protocol != expected.protocol:
            raise ValueError(
                f'{run.dataset}: scores by {expected.protocol} and by {run.protocol} cannot be '
                'compared; score both by one protocol'
            )
        for one, other in zip_longest(expected.images, run.images):
            names = [f'{i.group}/{i.name}' if i else 'no image' for i in (one, other)]
            if names[0] != names[1]:
                raise ValueError(
                    f'{run.dataset}: the scored images differ: {names[0]} in one, {names[1]} in '
                    'its place in another; score the same images of each method'
                )


def _sum_groups(run: SetScores, groups: Sequence[Sequence[int]], defined: Array) -> _Sums:
    s = run.scores
    columns = _Sums(
        images=np.ones(len(defined)),
        defined=defined,
        smeasure=np.where(defined > 0, s.smeasure, 0),
        mae=s.mae,
        emeasure=s.emeasure,
        fmeasure=s.fmeasure,
    )
    return _Sums._make(
        np.stack([column[images].sum(axis=0) for images in groups]) for column in columns
    )


def _scores(runs: Sequence[_Sums], counts: Array) -> dict[str, Array]:
    """Return the scores for counts (R, G) of each group, averaged over the runs: (R,) per score."""
    images, defined = counts @ runs[0].images, counts @ runs[0].defined

    def best(curve: Array) -> Array:
        return (counts @ curve).max(axis=1) / images

    def of_defined(total: Array) -> Array:
        nothing = np.full(len(counts), np.nan)
        return np.divide(counts @ total, defined, out=nothing, where=defined > 0)

    return {
        'max_emeasure': np.mean([best(run.emeasure) for run in runs], axis=0),
        'smeasure': np.mean([of_defined(run.smeasure) for run in runs], axis=0),
        'max_fmeasure': np.mean([best(run.fmeasure) for run in runs], axis=0),
        'mae': np.mean([counts @ run.mae / images for run in runs], axis=0),
    }


def _interval(values: Array) -> tuple[float, float]:
    values = values[~np.isnan(values)]
    if not values.size:
        return float('nan'), float('nan')
    low, high = np.quantile(values, (0.025, 0.975))
    return float(low), float(high)
