"""The Thompson sampling family: play the arm that is best in one draw from the posterior.

Rewards between 0 and 1 update a Beta posterior in part (a reward of 0.3 is 0.3 of a success and 0.7 of
a failure), so that it is a function of the history alone; Agrawal and Goyal (2012) toss a coin instead.
"""

from __future__ import annotations

from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field
from scipy import special

from rmft.policies.baselines.base import Finite, IndexPolicy, Positive
from rmft.policies.baselines.statistics import counts_and_sums
from rmft.streams import Streams
from rmft.types import Feedback, FloatArray, Histories


def beta_from(a: FloatArray, b: FloatArray, normal: FloatArray, uniform: FloatArray) -> FloatArray:
    """Beta(a, b) numbers, exactly, for a and b >= 1, as x / (x + y) of two gamma numbers.

    a, b, uniform: (B, K), uniform on [0, 1); normal: (B, 2 K), standard. The proposals for x and y are
    those of Marsaglia and Tsang (2000), "A simple method for generating gamma variables", and the pair is
    accepted with the product of their probabilities. Where it is not (in 10 % at a = b = 1, and less and
    less as they grow), the uniform number is known to lie above that product and is otherwise unused, so
    the quantile function turns its place there into the answer. So every stream gives up the same count
    of numbers and there is no loop.
    """
    num_arms = a.shape[1]
    d = np.concatenate([a, b], axis=1) - 1 / 3
    root = 1 + normal / np.sqrt(9 * d)
    gammas = d * root * root * root
    x, y = gammas[:, :num_arms], gammas[:, num_arms:]
    squared = normal * normal
    squeeze = np.maximum(1 - 0.0331 * squared * squared, 0)
    rows, arms = np.nonzero(uniform >= squeeze[:, :num_arms] * squeeze[:, num_arms:])

    pair = rows, np.stack([arms, arms + num_arms])  # (2, number unsure): of x and of y
    d, v = d[pair], np.maximum(root[pair], 0) ** 3
    log_accept = 0.5 * squared[pair] + d - d * v + d * np.log(np.maximum(v, 1e-300))
    accept = np.exp(np.minimum(log_accept.sum(axis=0), 0))
    rejected = uniform[rows, arms] >= accept
    rows, arms, accept = rows[rejected], arms[rejected], accept[rejected]
    left = (uniform[rows, arms] - accept) / (1 - accept)
    samples = np.asarray(np.maximum(x, 1e-300) / np.maximum(x + y, 2e-300))
    samples[rows, arms] = special.betaincinv(a[rows, arms], b[rows, arms], left)
    return samples


def beta_samples(
    sums: FloatArray, counts: FloatArray, streams: Streams, sharpness: float = 1.0
) -> FloatArray:
    """(B, K) numbers from Beta(s * (1 + sum), s * (1 + count - sum)) with s the sharpness, >= 1.

    Several times faster than `Streams.beta`, which calls every stream's generator in turn.
    """
    a = sharpness * (1 + np.maximum(sums, 0))
    b = sharpness * (1 + np.maximum(counts - sums, 0))
    return beta_from(a, b, streams.normal(2 * a.shape[1]), streams.uniform(a.shape[1]))


class Thompson(IndexPolicy):
    """One draw from every arm's Beta(1 + sum, 1 + count - sum) posterior.

    Source: Thompson (1933); Agrawal and Goyal (2012), "Analysis of Thompson sampling for the multi-armed
    bandit problem", algorithm 1.
    """

    label: ClassVar[str] = "thompson"
    feedback: ClassVar[Feedback | None] = "bandit"
    continuous: ClassVar[bool] = True
    bounded: ClassVar[bool] = True

    def index(self, histories: Histories, streams: Streams) -> FloatArray:
        counts, sums = counts_and_sums(histories)
        return beta_samples(sums, counts, streams)


class SharpenedThompson(IndexPolicy):
    """Thompson sampling from Beta(s * (1 + sum), s * (1 + count - sum)): a posterior s times as sure.

    sharpness: s >= 1; 1 is Thompson sampling. Source: Chapelle and Li (2011), "An empirical evaluation of
    Thompson sampling", section 3 (posterior reshaping; their alpha is 1/s).
    """

    label: ClassVar[str] = "sharpened-thompson"
    feedback: ClassVar[Feedback | None] = "bandit"
    continuous: ClassVar[bool] = True
    bounded: ClassVar[bool] = True

    sharpness: Annotated[float, Field(ge=1, allow_inf_nan=False)] = 4.0

    def index(self, histories: Histories, streams: Streams) -> FloatArray:
        counts, sums = counts_and_sums(histories)
        return beta_samples(sums, counts, streams, self.sharpness)


class GaussianThompson(IndexPolicy):
    """One draw from every arm's Gaussian posterior, for noise of known size.

    prior_mean, prior_std: of an arm's mean; noise_std: of a reward around it; in units of normalized
    reward. The defaults are N(sum / (count + 1), 1 / (count + 1)). Source: Agrawal and Goyal (2013),
    "Further optimal regret bounds for Thompson sampling", algorithm 2.
    """

    label: ClassVar[str] = "gaussian-thompson"
    feedback: ClassVar[Feedback | None] = "bandit"
    continuous: ClassVar[bool] = True

    prior_mean: Finite = 0.0
    prior_std: Positive = 1.0
    noise_std: Positive = 1.0

    def index(self, histories: Histories, streams: Streams) -> FloatArray:
        counts, sums = counts_and_sums(histories)
        prior, noise = self.prior_std**-2, self.noise_std**-2
        precision = prior + counts * noise
        mean = (self.prior_mean * prior + sums * noise) / precision
        return np.asarray(mean + streams.normal(counts.shape[1]) / np.sqrt(precision))
