"""From the means of every round to the rewards paid: the kinds of noise.

Every function takes means of shape (T, K) and returns a RewardTable of that shape, whose
expected_rewards are the means of what is actually drawn.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.special import log_ndtr, ndtri_exp

from rmft.types import FloatArray, RewardTable


def bernoulli(generator: np.random.Generator, means: FloatArray, low: float, high: float) -> RewardTable:
    """`high` with probability (mean - low) / (high - low), else `low`. Means must be on [low, high]."""
    pays_high = generator.random(means.shape) * (high - low) < means - low
    return RewardTable(np.where(pays_high, high, low), means)


def gaussian(generator: np.random.Generator, means: FloatArray, std: float) -> RewardTable:
    """Mean plus normal noise of standard deviation `std`; unbounded."""
    return RewardTable(means + std * generator.standard_normal(means.shape), means)


def truncated_gaussian(
    generator: np.random.Generator,
    means: FloatArray,
    std: float,
    low: float = -math.inf,
    high: float = math.inf,
) -> RewardTable:
    """A normal number of mean `means` and deviation `std`, given that it falls on [low, high].

    Truncation pulls the mean towards the inside; expected_rewards is that of the truncated law. Its
    slope in the untruncated mean is Var(truncated) / std^2 <= 1, so means never move further than
    the untruncated ones: a variation budget of those holds for these. Drawn by inverting the
    distribution function in logs, which is exact far into the tails.
    """
    below, above = (low - means) / std, (high - means) / std
    right = below > 0  # all of it right of the mean: mirrored, so that logs keep their precision
    below, above = np.where(right, -above, below), np.where(right, -below, above)
    log_below, log_above = log_ndtr(below), log_ndtr(above)
    log_mass = log_above + np.log1p(-np.exp(log_below - log_above))
    log_share = np.log(1 - generator.random(means.shape))  # of a number on (0, 1]
    drawn = ndtri_exp(np.logaddexp(log_below, log_share + log_mass))
    density = 0.5 * np.log(2 * np.pi) + log_mass
    middle = np.exp(-0.5 * below**2 - density) - np.exp(-0.5 * above**2 - density)
    sign = np.where(right, -std, std)
    return RewardTable(np.clip(means + sign * drawn, low, high), np.clip(means + sign * middle, low, high))
