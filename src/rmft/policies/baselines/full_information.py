"""Online learning that sees every arm's reward: leaders, exponential weights, regularized leaders."""

from __future__ import annotations

import math
from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field
from scipy import special

from rmft.policies.baselines.base import IndexPolicy, NonNegative, Positive, ProbabilityPolicy
from rmft.policies.baselines.statistics import cumulative_rewards
from rmft.streams import Streams
from rmft.types import Feedback, FloatArray, Histories, Round, Rules


class FollowTheLeader(IndexPolicy):
    """The arm with the highest sum of rewards so far. Source: Shalev-Shwartz (2012), "Online learning and
    online convex optimization", section 2.2; its example 2.2 shows linear regret."""

    label: ClassVar[str] = "ftl"
    feedback: ClassVar[Feedback | None] = "full"

    def index(self, histories: Histories, streams: Streams) -> FloatArray:  # noqa: ARG002
        return cumulative_rewards(histories)


class FadingLeader(IndexPolicy):
    """The arm with the highest sum of rewards, each weighing `discount` times less with every round since.

    discount: on (0, 1], 1 is `ftl`. Source: discounted regret, Cesa-Bianchi and Lugosi (2006), section 2.11.
    """

    label: ClassVar[str] = "fading-leader"
    feedback: ClassVar[Feedback | None] = "full"

    discount: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] = 0.8

    def index(self, histories: Histories, streams: Streams) -> FloatArray:  # noqa: ARG002
        return cumulative_rewards(histories, self.discount)


def hedge_rate(rules: Rules) -> float:
    """sqrt(8 ln K / T). Source: Cesa-Bianchi and Lugosi (2006), theorem 2.2."""
    return math.sqrt(8 * math.log(rules.num_arms) / rules.horizon)


class Hedge(ProbabilityPolicy):
    """Probabilities proportional to exp(learning_rate * sum of rewards).

    learning_rate: > 0, or None for sqrt(8 ln K / T). Source: Freund and Schapire (1997); the rate from
    Cesa-Bianchi and Lugosi (2006), Prediction, Learning, and Games, theorem 2.2.
    """

    label: ClassVar[str] = "hedge"
    feedback: ClassVar[Feedback | None] = "full"

    learning_rate: Positive | None = None

    def probabilities(self, histories: Histories) -> FloatArray:
        rate = self.learning_rate or hedge_rate(histories.rules)
        return np.asarray(special.softmax(rate * cumulative_rewards(histories), axis=1))


class FixedShare(ProbabilityPolicy):
    """Hedge whose weights are mixed with equal ones after every round, so that it can move to another arm.

    share: on [0, 1], what is mixed in; 0 is `hedge`. learning_rate: > 0, or None for Hedge's own. Source:
    Herbster and Warmuth (1998), "Tracking the best expert", in the form of Cesa-Bianchi and Lugosi (2006),
    section 5.2.
    """

    label: ClassVar[str] = "fixed-share"
    feedback: ClassVar[Feedback | None] = "full"

    learning_rate: Positive | None = None
    share: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] = 0.04

    def probabilities(self, histories: Histories) -> FloatArray:
        rules = histories.rules
        rate = self.learning_rate or hedge_rate(rules)

        def step(weights: FloatArray, last: Round) -> FloatArray:
            grown = special.softmax(np.log(weights) + rate * rules.normalize(last.rewards), axis=1)
            return np.asarray((1 - self.share) * grown + self.share / rules.num_arms)

        start = np.full((histories.size, rules.num_arms), 1 / rules.num_arms)
        with np.errstate(divide="ignore"):  # without a share a weight may vanish for good
            return histories.fold(("fixed share", rate, self.share), lambda: start, step)


def project_on_simplex(points: FloatArray) -> FloatArray:
    """(B, K) the nearest point of the probability simplex to each row, in Euclidean distance.

    Source: Duchi et al. (2008), "Efficient projections onto the l1-ball", figure 1.
    """
    descending = -np.sort(-points, axis=1)
    size = np.arange(1, points.shape[1] + 1)
    excess = (np.cumsum(descending, axis=1) - 1) / size
    support = (descending > excess).sum(axis=1)
    threshold = excess[np.arange(len(points)), support - 1]
    return np.asarray(np.maximum(points - threshold[:, None], 0))


class FTRL(ProbabilityPolicy):
    """argmax_p <p, learning_rate * sum of rewards> - |p|^2 / 2: the projection of the scaled sums.

    learning_rate: > 0, or None for sqrt((1 - 1/K) / (K T)), which balances the source's bound for rewards
    on [0, 1]. Source: Shalev-Shwartz (2012), theorem 2.11.
    """

    label: ClassVar[str] = "ftrl-l2"
    feedback: ClassVar[Feedback | None] = "full"

    learning_rate: Positive | None = None

    def probabilities(self, histories: Histories) -> FloatArray:
        num_arms, horizon = histories.rules.num_arms, histories.rules.horizon
        rate = self.learning_rate or math.sqrt((1 - 1 / num_arms) / (num_arms * horizon))
        return project_on_simplex(rate * cumulative_rewards(histories))


class FTPL(IndexPolicy):
    """The arm with the highest sum of rewards after Gaussian noise, fresh in every round, is added.

    noise_std: >= 0 in units of normalized reward, or None for sqrt(T). 0 is `ftl`. Source: Kalai and
    Vempala (2005); Gaussian noise from Abernethy et al. (2014), "Online linear optimization via
    smoothing".
    """

    label: ClassVar[str] = "ftpl"
    feedback: ClassVar[Feedback | None] = "full"

    noise_std: NonNegative | None = None

    def index(self, histories: Histories, streams: Streams) -> FloatArray:
        rules = histories.rules
        scale = math.sqrt(rules.horizon) if self.noise_std is None else self.noise_std
        return cumulative_rewards(histories) + scale * streams.normal(rules.num_arms)
