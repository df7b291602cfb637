"""How many labels are wrong: an estimate with an interval, in all and for each class.

Counting the rows for which another label is likelier counts the experts' own mistakes: a weak encoder, or a small class
that is never the likeliest, then looks full of errors. Confident learning's joint of given and true labels (Northcutt
et al., "Confident Learning", 2021) asks for confidence above the class's mean before it counts, which on hard texts is
still far too often (benchmarks/audit/count.py). Here the same joint is fitted by maximum likelihood. A row's true
class is drawn from what heads, neighbours and words, none of which has seen its label, make of its text; its label is
the true class, or, with a rate of that class, any other (a noise layer as in Goldberger & Ben-Reuven, "Training deep
neural networks using a noise adaptation layer", 2017):

    p(label i | text) = sum_j softmax_j(sum_e w_e log p_e(j | text) + b_j) T_ji,   T_jj = 1 - r_j, else r_j / (C - 1)

Doubt lowers the softmax, and wrong labels are what is left where there is no doubt: so the two are told apart. The
biases b give a small class its share. Every class is taken to exist: its share by the experts is drawn to that of its
labels. A class that no expert recognizes would otherwise be explained away, as nothing but errors in the others. The
rates r_j of the classes are drawn to a common rate, for which every value of a grid is tried: each weighs as much as
the labels are likely under it, and that gives the interval.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from embedcache.common.label_names import visible

FIT_NUMBERS = 100_000  # rows x classes that are looked at, of which rows FIT_ROWS at least
FIT_ROWS = 2_000
SPREAD = 0.7  # of the classes' rates around the common one, a standard deviation in log-odds
EXISTS = 10.0  # how strongly a class's share is drawn to that of its labels, about as so many rows of it would
BIAS = 1e-3  # a weak pull of the biases to 0, for classes that nothing speaks of
RATES = -np.array(  # log-odds
    [9, 7, 6, 5.5, 5, 4.6, 4.3, 4, 3.7, 3.4, 3.1, 2.8, 2.6, 2.4, 2.2, 2, 1.8, 1.6, 1.4, 1.2, 1, 0.7, 0.4, 0]
)
FINE = 600  # rates in between, by interpolation
# Rows are not independent (their experts are trained on each other's labels) and the model is only a model: this factor
# flattens the likelihood and so widens the interval; chosen on other flips than those of docs/audit.md.
FLATTEN, MISFIT = 6.0, 0.10
OPEN = 0.5  # a share of a class: an interval that is wider, or that begins above it, is no estimate
DRAWS = 4_000
LEVEL = 0.95


@dataclass(frozen=True)
class ClassCount:
    """How many rows with this label are wrong, and the interval (both ends included)."""

    label: str
    rows: int
    estimate: int
    interval: tuple[int, int]


@dataclass(frozen=True)
class ErrorCount:
    """How many labels are wrong, and how far down the list to read.

    Attributes:
        estimate, interval: rows; the interval of 95%, both ends included.
        read: rows of the list to read, worst first, the upper end of the interval; expected: how many errors are
            expected among them, and expected_first: among the first ``estimate`` of them.
    """

    estimate: int
    interval: tuple[int, int]
    per_class: list[ClassCount]
    read: int = 0
    expected: float = 0.0
    expected_first: float = 0.0

    @property
    def open(self) -> list[ClassCount]:
        """Classes for which the estimate says next to nothing.

        Where nothing in the texts tells a class from the others, its labels may all be right and hard, or many be
        wrong: both explain them. The interval is then about as wide as the class, or most of it is counted as wrong.
        """
        ends = ((one, *one.interval) for one in self.per_class)
        return [one for one, low, high in ends if max(high - low, low) > OPEN * one.rows]

    def to_dict(self) -> dict[str, Any]:
        """JSON types."""
        return {
            "estimate": self.estimate,
            "interval": list(self.interval),
            "per_class": [asdict(one) | {"interval": list(one.interval)} for one in self.per_class],
            "open": [one.label for one in self.open],
            "read": {
                "rows": self.read,
                "expected": self.expected,
                "first": self.estimate,
                "expected_first": self.expected_first,
            },
        }


@dataclass(frozen=True)
class NoiseLayer:
    """Fitted: weights [E] of the experts, biases [C], rates [C] of wrong labels by true class."""

    weights: np.ndarray
    biases: np.ndarray
    rates: np.ndarray

    def wrong(self, said: np.ndarray, y: np.ndarray) -> np.ndarray:
        """float64 [n]: how likely each label is wrong. said: log-probabilities [E, n, C]; y: int [n]."""
        q = _softmax(_weighed(self.weights, said) + self.biases)
        own, rate = q[np.arange(len(y)), y], self.rates[y]
        others = ((q * self.rates).sum(axis=1) - own * rate) / (q.shape[1] - 1)
        right = own * (1 - rate)
        return 1 - right / np.maximum(right + others, 1e-300)


def count_errors(
    said: np.ndarray, y: np.ndarray, classes: list[str], rows: np.ndarray, seed: int = 0
) -> tuple[ErrorCount, NoiseLayer]:
    """Fit the noise layer; without how far to read.

    said: the experts' out-of-fold log-probabilities, float [E, n, C]; y: the labels as given, int [n]. They may be a
    sample: rows, int [C], are those of each class in the whole table.
    """
    import scipy.optimize  # noqa: F401 - its threads can be limited once they are there
    from threadpoolctl import threadpool_limits

    profile = _Profile(said.astype(np.float64), y)
    with threadpool_limits(1):  # on tiny matrices threads wait for each other, which is eight times slower
        losses, layers = profile.go()
    wrong = np.stack([layer.wrong(profile.said, y) for layer in layers])
    counts, spreads = (_by_class(values, y, rows) for values in (wrong, wrong * (1 - wrong)))
    rate = 1 / (1 + np.exp(-RATES))
    fine = np.linspace(0, rate[-1], FINE)
    rng = np.random.default_rng(seed)

    def draw(flatten: float, misfit: float) -> np.ndarray:
        """Counts [DRAWS, C], by how likely the labels are under each rate."""
        log_weight = -np.interp(fine, rate, losses) / flatten
        weight = np.exp(log_weight - log_weight.max())
        drawn = rng.choice(fine, DRAWS, p=weight / weight.sum())
        mean, spread = (np.stack([np.interp(drawn, rate, one) for one in of.T], axis=1) for of in (counts, spreads))
        mean *= np.exp(misfit * rng.standard_normal((DRAWS, 1)) - misfit**2 / 2)
        return np.minimum(_binomial(rng, mean, spread), rows)

    likely, possible = draw(1.0, 0.0), draw(FLATTEN, MISFIT)
    estimate, interval = _middle(likely.sum(axis=1), possible.sum(axis=1))
    per_class = [
        ClassCount(name, int(n), *_middle(*both))
        for name, n, *both in zip(classes, rows.tolist(), likely.T, possible.T, strict=True)
    ]
    nearest = int(np.abs(counts.sum(axis=1) - estimate).argmin())
    return ErrorCount(estimate, interval, per_class), layers[nearest]


def open_counts(count: ErrorCount) -> list[str]:
    """A note on ``ErrorCount.open``, so that nobody takes the estimate for a finding."""
    found = [f"{visible(one.label)} ({one.interval[0]:,} to {one.interval[1]:,} of {one.rows:,})" for one in count.open]
    if not found:
        return []
    more = f" and {len(found) - 5:,} more" if len(found) > 5 else ""
    return [
        f"heads, neighbours and words can hardly tell {', '.join(found[:5])}{more}: hard texts and wrong labels look "
        "alike there, so the number of errors is open; read some of its rows first"
    ]


class _Profile:
    """The likeliest weights, biases and classes' rates for every common rate."""

    def __init__(self, said: np.ndarray, y: np.ndarray) -> None:
        self.said, self.y, self.rows = said, y, np.arange(len(y))
        self.experts, _, self.classes = said.shape
        self.shares = np.maximum(np.bincount(y, minlength=self.classes), 0.5) / len(y)

    def go(self) -> tuple[np.ndarray, list[NoiseLayer]]:
        """Losses (negative log-likelihoods) [rates] and layers: up through RATES and down again, each from the last."""
        e, c = self.experts, self.classes
        v = np.concatenate([np.full(e, 1 / e), np.zeros(2 * c)])
        ends: list[tuple[float, np.ndarray]] = []
        for rate in RATES:
            ends.append(self._fit(rate, v))
            v = ends[-1][1]
        for i in reversed(range(len(RATES))):
            again = self._fit(RATES[i], v)
            ends[i] = min(ends[i], again, key=lambda end: end[0])
            v = again[1]
        layers = [self._layer(v, rate) for (_, v), rate in zip(ends, RATES, strict=True)]
        return np.array([loss for loss, _ in ends]), layers

    def _layer(self, v: np.ndarray, rate: float) -> NoiseLayer:
        e, c = self.experts, self.classes
        return NoiseLayer(v[:e], v[e : e + c], 1 / (1 + np.exp(-(rate + v[e + c :]))))

    def _fit(self, rate: float, start: np.ndarray) -> tuple[float, np.ndarray]:
        from scipy.optimize import minimize

        bounds = [(0, None)] * self.experts + [(-20, 20)] * self.classes + [(-5, 5)] * self.classes
        options = {"maxiter": 100, "ftol": 1e-9}
        found = minimize(self._loss, start, (rate,), jac=True, method="L-BFGS-B", bounds=bounds, options=options)
        return float(found.fun), found.x

    def _loss(self, v: np.ndarray, rate: float) -> tuple[float, np.ndarray]:
        """Negative log-likelihood of the labels and log-densities of what is known before, and its gradient."""
        layer, c = self._layer(v, rate), self.classes
        q, r, offset = _softmax(_weighed(layer.weights, self.said) + layer.biases), layer.rates, v[-c:]
        own, own_rate = q[self.rows, self.y], r[self.y]
        p = np.maximum(own * (1 - own_rate) + ((q * r).sum(axis=1) - own * own_rate) / (c - 1), 1e-300)
        to_q = np.broadcast_to(r / (c - 1), q.shape).copy()
        to_q[self.rows, self.y] = 1 - own_rate
        missing, to_share = self._missing(q)
        to_q = to_q / p[:, None] - to_share / len(q)
        to_z = q * (to_q - (to_q * q).sum(axis=1, keepdims=True))
        to_r = q / (c - 1)
        to_r[self.rows, self.y] = -own
        to_offset = (to_r / p[:, None]).sum(axis=0) * r * (1 - r)
        loss = missing - np.log(p).sum() + BIAS / 2 * (layer.biases**2).sum() + (offset**2).sum() / (2 * SPREAD**2)
        to_w, to_b = np.array([(one * to_z).sum() for one in self.said]), to_z.sum(axis=0)
        return float(loss), -np.concatenate([to_w, to_b - BIAS * layer.biases, to_offset - offset / SPREAD**2])

    def _missing(self, q: np.ndarray) -> tuple[float, np.ndarray]:
        """How much classes are missing among q [n, C], and its gradient by their shares [C].

        A class's share, as a multiple of that of its labels, is gamma distributed with its mode at 1: every class
        counts alike, however small, and none can vanish, while a share that errors have made larger may shrink.
        """
        multiple = np.maximum(q.mean(axis=0), 1e-300) / self.shares
        loss = EXISTS * (multiple - 1 - np.log(multiple)).sum()
        return float(loss), EXISTS * (1 - 1 / multiple) / self.shares


def _weighed(weights: np.ndarray, said: np.ndarray) -> np.ndarray:
    """[n, C]: the sum over the experts."""
    z = weights[0] * said[0]
    for weight, one in zip(weights[1:], said[1:], strict=True):
        z += weight * one
    return np.asarray(z)


def _softmax(z: np.ndarray) -> np.ndarray:
    z = np.exp(z - z.max(axis=1, keepdims=True))
    return np.asarray(z / z.sum(axis=1, keepdims=True))


def _by_class(values: np.ndarray, y: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """[k, C] sums of values [k, n] over the rows of each class, a sample's carried over to all rows."""
    there = np.bincount(y, minlength=len(rows))
    sums = np.stack([np.bincount(y, one, minlength=len(rows)) for one in values])
    return np.asarray(sums * (rows / np.maximum(there, 1)))


def _binomial(rng: np.random.Generator, mean: np.ndarray, variance: np.ndarray) -> np.ndarray:
    """Counts with these means and, where binomial ones can have them, variances: sums of unequal chances."""
    chance = np.clip(1 - variance / np.maximum(mean, 1e-9), 1e-3, 1)
    trials = mean / chance
    whole = np.floor(trials)
    whole += rng.random(trials.shape) < trials - whole
    return np.asarray(rng.binomial(whole.astype(np.int64), chance))


def _middle(likely: np.ndarray, possible: np.ndarray) -> tuple[int, tuple[int, int]]:
    """The median of the one, and an interval that has those of both inside."""
    (low, high), (lowest, highest) = _narrowest(likely), _narrowest(possible)
    return int(np.median(likely)), (min(low, lowest), max(high, highest))


def _narrowest(drawn: np.ndarray) -> tuple[int, int]:
    """The narrowest interval with LEVEL of the draws: it reaches 0 where none at all is the likeliest."""
    drawn = np.sort(drawn)
    inside = int(np.ceil(LEVEL * len(drawn)))
    start = int((drawn[inside - 1 :] - drawn[: len(drawn) - inside + 1]).argmin())
    return int(drawn[start]), int(drawn[start + inside - 1])
