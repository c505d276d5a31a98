"""The law by which generated clicks come about: how rows are drawn, and how labels depend on them."""

from __future__ import annotations

import functools
import math

import numpy as np

from merlin_models.datasets.criteo.columns import CATEGORICAL, CONTINUOUS, LABEL

_SEED = 0x5EED  # of the law, not of the rows
_SAMPLE = 8192  # rows from which the scale of each part is taken
_FACTORS = 3
_STRENGTHS = {"ids": 1.2, "pairs": 0.8, "numbers": 0.8}  # standard deviations of the parts of the log-odds


@functools.lru_cache(maxsize=8)
def click_law(cardinalities: tuple[int, ...], hots: tuple[int, ...], skew: float, click_rate: float) -> ClickLaw:
    """The law of these sizes, made once."""
    return ClickLaw(cardinalities, hots, skew, click_rate)


class ClickLaw:
    """Rows in Criteo's shape, and the chance of a click in each.

    The log-odds are a constant plus three parts. Each id has an effect of its own and a vector of three factors, from a
    hash of it; a list's are its ids' means times sqrt(length). The first part is a weighted sum of the effects over
    the 26 columns, the second the sum of v_i . v_j over their pairs, the third a weighted sum of the numbers' logs. All
    is the same in each process: nothing of it depends on the seed of the rows.

    Args:
        cardinalities: 26 sizes of tables, 2 to 2 ** 31.
        hots: 26 numbers of ids a row.
        skew: of the ids, see :meth:`draw`.
        click_rate: share of clicks that is aimed at.
    """

    def __init__(self, cardinalities: tuple[int, ...], hots: tuple[int, ...], skew: float, click_rate: float):
        self._cardinalities, self._hots, self._skew = cardinalities, hots, skew
        rng = np.random.default_rng(_SEED)
        self._weights = rng.uniform(0.5, 1.5, len(CATEGORICAL)).astype(np.float32)
        self._slopes = rng.standard_normal(len(CONTINUOUS)).astype(np.float32)
        parts = self._parts(self.draw(rng, _SAMPLE))
        self._scales = {name: (part.mean(), _STRENGTHS[name] / max(part.std(), 1e-6)) for name, part in parts.items()}
        self._constant = _constant_for(click_rate, self._log_odds(parts))

    def draw(self, rng: np.random.Generator, rows: int) -> dict[str, np.ndarray]:
        """Features of some rows.

        Ids are bounded Zipf up to rounding: the rank of an id is the whole part of x, whose density is x ** -skew. Ranks
        are spread over the ids 1 to cardinality - 1, so that frequent ones do not lie side by side; 0 is for padding.

        Returns:
            I1 to I13, float32 (rows, 1): exp of a standard normal. C1 to C26, int64 (rows, hot).
        """
        features = {name: np.exp(rng.standard_normal((rows, 1), np.float32)) for name in CONTINUOUS}
        for name, cardinality, hot in zip(CATEGORICAL, self._cardinalities, self._hots, strict=True):
            features[name] = _draw_ids(rng, cardinality - 1, (rows, hot), self._skew)
        return features

    def chances(self, features: dict[str, np.ndarray]) -> np.ndarray:
        """The chance of a click, float32 (rows,): no model can do better on average than to predict this."""
        return _sigmoid(self._log_odds(self._parts(features)) + self._constant)

    def batch(self, rng: np.random.Generator, rows: int) -> dict[str, np.ndarray]:
        """The label, int8 (rows, 1), and the features."""
        features = self.draw(rng, rows)
        clicks = rng.random(rows, np.float32) < self.chances(features)
        return {LABEL: clicks.astype(np.int8)[:, None], **features}

    def _parts(self, features: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        rows = len(features[CONTINUOUS[0]])
        effects = np.zeros(rows, np.float32)
        factors, squares = np.zeros((_FACTORS, rows), np.float32), np.zeros((_FACTORS, rows), np.float32)
        for column, name in enumerate(CATEGORICAL):
            effect, *vector = _hidden(features[name], column)
            effects += self._weights[column] * effect
            for factor, values in enumerate(vector):
                factors[factor] += values
                squares[factor] += values**2
        numbers = np.zeros(rows, np.float32)
        for slope, name in zip(self._slopes, CONTINUOUS, strict=True):
            numbers += slope * np.log(features[name][:, 0])
        return {"ids": effects, "pairs": (factors**2 - squares).sum(axis=0) / 2, "numbers": numbers}

    def _log_odds(self, parts: dict[str, np.ndarray]) -> np.ndarray:
        return sum((parts[name] - mean) * scale for name, (mean, scale) in self._scales.items())


def _draw_ids(rng: np.random.Generator, count: int, shape: tuple[int, int], skew: float) -> np.ndarray:
    """int64 ids 1 to count; see `ClickLaw.draw`."""
    uniform = rng.random(shape)
    if skew == 1:
        uniform *= math.log(count + 1)
        x = np.exp(uniform, out=uniform)
    else:
        power = 1 - skew
        uniform *= (count + 1) ** power - 1
        uniform += 1
        x = np.power(uniform, 1 / power, out=uniform)
    ranks = np.minimum(x.astype(np.int64) - 1, count - 1)
    step = max(1, int(count * 0.6180339887))
    while math.gcd(step, count) != 1:
        step += 1
    ranks *= step
    ranks += count // 3
    ranks %= count
    ranks += 1
    return ranks


def _hidden(ids: np.ndarray, column: int) -> list[np.ndarray]:
    """An effect and the factors of each row's ids: float32 (rows,) each, sqrt(hot) times the mean of values in (-1, 1).

    Four 16-bit parts of a hash: SplitMix64's mixing function (Steele, Lea and Flood, Fast splittable pseudorandom number
    generators, 2014).
    """
    bits = ids.astype(np.uint64)
    bits += np.uint64((column + 1) << 40)
    bits *= np.uint64(0x9E3779B97F4A7C15)
    bits ^= bits >> np.uint64(30)
    bits *= np.uint64(0xBF58476D1CE4E5B9)
    bits ^= bits >> np.uint64(27)
    bits *= np.uint64(0x94D049BB133111EB)
    bits ^= bits >> np.uint64(31)
    hot = ids.shape[1]
    values = []
    for _ in range(1 + _FACTORS):
        means = (bits & np.uint64(0xFFFF)).mean(axis=1, dtype=np.float32)
        values.append((means / 32768 - 1) * np.float32(math.sqrt(hot)))
        bits >>= np.uint64(16)
    return values


def _constant_for(click_rate: float, log_odds: np.ndarray) -> np.float32:
    """What to add to the log-odds so that the mean chance is the rate; by bisection."""
    low, high = -40.0, 40.0
    for _ in range(50):
        middle = (low + high) / 2
        if _sigmoid(log_odds + middle).mean() < click_rate:
            low = middle
        else:
            high = middle
    return np.float32(middle)


def _sigmoid(log_odds: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-np.clip(log_odds, -50, 50)))
