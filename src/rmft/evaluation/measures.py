"""What is measured beside regret, trajectory by trajectory. Arrays in, arrays out.

Shapes: played is (..., T, K), the distribution played in each round, one-hot where an arm was; best_arms is
(..., T, K), true of a best arm; curves are (..., T). A measure "up to round t" is that of the first t rounds.

Four rules hold everywhere:

- The best arm a* is what regret compares with. Dynamic regret: the arm of the largest expected reward
  in that round, so it moves with the means, since an arm that is best over the whole horizon says
  little when they do. Static and pseudo-regret: the arm of the largest total expected reward. Where
  several tie, to within rounding, any of them is a best arm; where all do there is none, and such rounds
  are left out.
- Where a distribution is played (full information), pulls are its probability mass: N_t(a) is the
  sum of pi_s(a) over s <= t, which is a count where arms are played.
- A rollout that failed half-way counts, or else failing would pay: in the rounds without a decision it earns
  what the worst arm does and has played none. The measure `failed` says how many there are.
- Where a measure asks whether an arm was played at all (SuffFailFreq, coverage, first_arm_only), the
  most probable arm was; where several tie, each of them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import entr
from scipy.stats import binom
from scipy.stats import t as student_t

from rmft.regret import RegretKind, highest, regret, round_regret
from rmft.results import ExponentTest
from rmft.statistics import bootstrap, exponent_test, ratio
from rmft.types import BoolArray, FloatArray, IntArray, OtherSide, Trajectories

LOG_FLOOR = -10.0
"""What the logarithm of regret is floored at in the regression check."""

MEASURES = (
    "regret",
    "suff_fail_freq",
    "k_min_frac",
    "greedy_frac",
    "best_arm_freq",
    "coverage",
    "first_arm_only",
    "entropy",
    "failed",
    "early_switching",
    "late_regret",
    "rounds_to_switch",
    "win_stay",
    "lose_shift",
)
"""The measures that are reported, in their order."""

RATES = {"win_stay": "wins", "lose_shift": "losses"}
"""Those that are a ratio of two means, and what the second is the mean of; see `win_stay_lose_shift`."""

RECORDED = (*MEASURES, *RATES.values())
"""What is measured of one trajectory: means of it over trajectories give what is reported (`reported`)."""

OF_GAMES = ("opponent_regret", "cce_distance")
"""Those that come after them where a policy plays another: see `deviation_gains`."""

INDICATORS = ("suff_fail_freq", "first_arm_only", "failed")
"""Those that are 0 or 1 for a trajectory, so that their means are shares."""


@dataclass(frozen=True, slots=True)
class TrendCheck:
    """s: (...) how often R_t/t fell, 0 to T - 1. p_trend: (...) the chance of as many by fair coins."""

    s: IntArray
    p_trend: FloatArray


@dataclass(frozen=True, slots=True)
class RegressionCheck:
    """b0: (...) fitted exponent. p_reg: (...) its two-sided p-value against 0. floored: (...) points.

    b0 is NaN below 2 rounds, p_reg below 3.
    """

    b0: FloatArray
    p_reg: FloatArray
    floored: IntArray


def trend_check(curve: FloatArray) -> TrendCheck:
    """s = #{t < T : R_t/t > R_{t+1}/(t+1)}, p_trend = 2^-(T-1) sum_{j>=s} C(T-1, j).

    A small p_trend says that regret per round falls more often than coin flips would make it. A fall
    smaller than rounding error (1e-12 of the value) is none, so that exactly linear regret has s = 0.
    Source: the trend-checking framework of Park et al. (2025), "Do LLM agents have regret?".
    """
    horizon = curve.shape[-1]
    per_round = curve / np.arange(1, horizon + 1)
    before, after = per_round[..., :-1], per_round[..., 1:]
    margin = 1e-12 * np.maximum(np.abs(before), np.abs(after))
    s = np.asarray((before - after > margin).sum(axis=-1), dtype=np.int64)
    return TrendCheck(s, np.asarray(binom.sf(s - 1, horizon - 1, 0.5), dtype=np.float64))


def regression_check(curve: FloatArray, first_round: int = 1) -> RegressionCheck:
    """Least squares of log R_t on log t over t = first_round..T; its slope is b0 ("beta hat").

    The first rounds have most leverage in it, and with them what is lost before there is anything to know; a
    fit from `late_round` on tells how regret grows after them. log R_t is floored at -10, where R_t <= 0 or
    is tinier than e^-10; `floored` counts those points, and a fit with many of them means little. p_reg is
    the t-test of slope 0, with two degrees of freedom fewer than rounds: it says that regret grows, not how
    fast (for that see `exponent_below_1`). Source: the regression-based framework of Park et al. (2025), from
    round 1; the later start is this project's.
    """
    curve = curve[..., first_round - 1 :]
    horizon = curve.shape[-1]
    above = curve > np.exp(LOG_FLOOR)
    logs = np.log(curve, out=np.full(curve.shape, LOG_FLOOR), where=above)
    floored = np.asarray((~above).sum(axis=-1), dtype=np.int64)
    undefined = np.full(curve.shape[:-1], np.nan)
    if horizon < 2:
        return RegressionCheck(undefined, undefined, floored)
    x = np.log(np.arange(first_round, first_round + horizon))
    x = x - x.mean()
    spread = x @ x
    deviations = logs - logs.mean(axis=-1, keepdims=True)
    b0 = np.asarray(deviations @ x / spread)
    if horizon < 3:
        return RegressionCheck(b0, undefined, floored)
    residual = ((deviations - b0[..., None] * x) ** 2).sum(axis=-1)
    error = np.sqrt(residual / (horizon - 2) / spread)
    statistic = np.abs(b0) / np.maximum(error, 1e-9)  # a perfect fit has error 0
    return RegressionCheck(b0, np.asarray(2 * student_t.sf(statistic, horizon - 2)), floored)


def late_round(horizon: int) -> int:
    """The first round at or after T/4."""
    return math.ceil(horizon / 4)


def best_arms(expected_rewards: FloatArray, kind: RegretKind) -> BoolArray:
    """(..., T, K) which arms are a best one a* of every round; none where all arms are expected the same."""
    values = expected_rewards if kind == "dynamic" else expected_rewards.sum(axis=-2, keepdims=True)
    best = highest(values)
    best &= ~best.all(axis=-1, keepdims=True)
    return np.broadcast_to(best, expected_rewards.shape)


def _was_played(played: FloatArray) -> NDArray[np.bool_]:
    """(..., T, K) whether an arm was played, that is, none was more probable."""
    return np.asarray((played >= played.max(axis=-1, keepdims=True) - 1e-9) & (played > 0))


def suff_fail(played: FloatArray, best_arms: BoolArray, first_round: int | None = None) -> FloatArray:
    """(...) 1 where no round in [t, T] plays a best arm, else 0; its mean is SuffFailFreq(t).

    first_round: t, from 1 to T; by default the first round at or after T/2. With a best arm that
    moves: no round in [t, T] plays a best arm of that round. 0 where none of these rounds has one.
    Source: Krishnamurthy et al. (2024), "Can large language models explore in-context?", sec. 3.1.
    """
    start = (played.shape[-2] + 1) // 2 - 1 if first_round is None else first_round - 1
    best = best_arms[..., start:, :]
    hit = (_was_played(played[..., start:, :]) & best).any(axis=(-2, -1))
    return np.asarray(~hit & best.any(axis=(-2, -1)), dtype=np.float64)


def min_frac(played: FloatArray) -> FloatArray:
    """(...) MinFrac(T) = min_a N_T(a) / T, from 0 to 1/K; K * MinFrac is 1 for uniform play.

    Source: Krishnamurthy et al. (2024), sec. 3.1.
    """
    return np.asarray(played.mean(axis=-2).min(axis=-1))


def greedy_frac(played: FloatArray, rewards: FloatArray) -> FloatArray:
    """(...) GreedyFrac, the share of rounds that play an arm of the highest empirical mean so far.

    rewards: what was seen, (..., T) under bandit feedback or (..., T, K) under full information. Any
    arm tied for the highest mean (to within 1e-9) counts as greedy. The first round, before which
    there is no mean, does not count; nor can an arm without a mean be the greedy one, so a first
    pull is not greedy. NaN when T = 1. Source: Krishnamurthy et al. (2024), sec. 3.1.
    """
    horizon = played.shape[-2]
    if horizon < 2:
        return np.full(played.shape[:-2], np.nan)
    if rewards.ndim == played.ndim:
        means = np.cumsum(rewards, axis=-2)[..., :-1, :] / np.arange(1, horizon)[:, None]
    else:
        pulls = np.cumsum(played, axis=-2)[..., :-1, :]
        sums = np.cumsum(played * rewards[..., None], axis=-2)[..., :-1, :]
        means = np.divide(sums, pulls, out=np.full(pulls.shape, -np.inf), where=pulls > 0)
    highest = means.max(axis=-1, keepdims=True)
    greedy = means >= highest - 1e-9 * np.maximum(1.0, np.abs(highest))
    return np.asarray((played[..., 1:, :] * greedy).sum(axis=-1).mean(axis=-1))


def best_arm_pulls(played: FloatArray, best_arms: BoolArray) -> FloatArray:
    """(...) N_T(a*), from 0 to T. Its histogram shows what its mean hides: always or never."""
    return np.asarray((played * best_arms).sum(axis=(-2, -1)))


def best_arm_freq(played: FloatArray, best_arms: BoolArray) -> FloatArray:
    """(...) BestArmFreq(T) = N_T(a*) / T, from 0 to 1, over the rounds that have a best arm; 1 if none."""
    rounds = best_arms.any(axis=-1).sum(axis=-1)
    pulls = best_arm_pulls(played, best_arms)
    return np.asarray(np.divide(pulls, rounds, out=np.ones(pulls.shape), where=rounds > 0))


def coverage(played: FloatArray) -> FloatArray:
    """(...) Coverage_T, the share of the arms played at least once, from 1/K to 1."""
    return np.asarray(_was_played(played).any(axis=-2).mean(axis=-1))


def first_arm_only(played: FloatArray) -> FloatArray:
    """(...) 1 where the arm of round 1 is played in every round, else 0: it locked onto its first arm."""
    was = _was_played(played)
    return np.asarray((was & was[..., :1, :]).any(axis=-1).all(axis=-1), dtype=np.float64)


def early_switching(played: FloatArray) -> FloatArray:
    """(...) share of rounds 2 to 2K, or to T if that comes first, that play another arm than the one before.

    Where distributions are played, half the sum of absolute differences. NaN when T = 1. In so many rounds
    every arm could be tried twice: a policy that explores switches there, one that is greedy when it must.
    """
    if played.shape[-2] < 2:
        return np.full(played.shape[:-2], np.nan)
    early = played[..., : 2 * played.shape[-1], :]
    return np.asarray(0.5 * np.abs(np.diff(early, axis=-2)).sum(axis=-1).mean(axis=-1))


def late_regret(by_round: FloatArray) -> FloatArray:
    """(...) mean regret of a round in the last quarter of the horizon, from that of every round (..., T).

    Of a policy that has settled on a wrong arm it stays what a wrong arm costs, where an exponent below 1 can
    come from the first rounds alone.
    """
    last = math.ceil(by_round.shape[-1] / 4)
    return np.asarray(by_round[..., -last:].mean(axis=-1))


def rounds_to_switch(played: FloatArray, best_arms: BoolArray) -> FloatArray:
    """(...) how many rounds pass before a best arm is played, from when it is one.

    The mean over the stretches of rounds in which the best arms stay the same, the first included; of a
    stretch in which none of them is played, all of its rounds. Rounds without a best arm are left out.
    """
    hits = np.asarray((_was_played(played) & best_arms).any(axis=-1))
    found = np.zeros(hits.shape[:-1], dtype=np.bool_)
    waited, stretches = np.zeros(found.shape), np.ones(found.shape)
    for t in range(hits.shape[-1]):
        if t:
            moved = (best_arms[..., t, :] != best_arms[..., t - 1, :]).any(axis=-1)
            found &= ~moved
            stretches += moved
        found |= hits[..., t]
        waited += ~found & best_arms[..., t, :].any(axis=-1)
    return np.asarray(waited / stretches)


def win_stay_lose_shift(arms: IntArray, won: BoolArray) -> dict[str, FloatArray]:
    """(...) shares of rounds 1 to T - 1: "wins", "losses", wins with the same arm after, losses with another.

    arms: (..., T), -1 where nothing was decided; neither such a round nor the one before it counts. won:
    (..., T). The last two are "win_stay" and "lose_shift". The rates P(stay | win) and P(shift | loss) are
    ratios of means of these over trajectories, of which many have no loss at all. NaN when T = 1. Source:
    Worthy and Maddox (2014), A comparison model of reinforcement-learning and win-stay-lose-shift
    decision-making processes.
    """
    if arms.shape[-1] < 2:
        return dict.fromkeys((*RATES, *RATES.values()), np.full(arms.shape[:-1], np.nan))
    before, after, won = arms[..., :-1], arms[..., 1:], won[..., :-1]
    both, stays = (before >= 0) & (after >= 0), before == after
    found = {
        "win_stay": both & won & stays,
        "lose_shift": both & ~won & ~stays,
        "wins": both & won,
        "losses": both & ~won,
    }
    return {name: np.asarray(rounds.mean(axis=-1)) for name, rounds in found.items()}


def entropy(probabilities: FloatArray) -> FloatArray:
    """(...) mean over rounds of the entropy of the stated probabilities (..., T, K), 0 to ln K, nats."""
    return np.asarray(entr(probabilities).sum(axis=-1).mean(axis=-1))


def histogram(pulls: FloatArray, horizon: int) -> tuple[IntArray, FloatArray]:
    """Counts (n,) and edges (n + 1,) of best-arm pulls: one bin per pull, or at most 51 equal ones."""
    width = -(-(horizon + 1) // 51)
    edges = np.arange(0, horizon + 1 + width, width, dtype=np.float64) - 0.5
    return np.histogram(pulls, edges)[0].astype(np.int64), edges


def measure(trajectories: Trajectories, kind: RegretKind) -> dict[str, FloatArray]:
    """Every one of `RECORDED`, (B,) each, and of games those of `OF_GAMES`.

    NaN where undefined: entropy when no probabilities were stated.
    """
    histories, num_arms = trajectories.histories, trajectories.rules.num_arms
    played, stated = histories.played, histories.probabilities
    best = best_arms(trajectories.table.expected_rewards, kind)
    return {
        "regret": regret(trajectories, kind),
        "suff_fail_freq": suff_fail(played, best),
        "k_min_frac": num_arms * min_frac(played),
        "greedy_frac": greedy_frac(played, histories.rewards),
        "best_arm_freq": best_arm_freq(played, best),
        "coverage": coverage(played),
        "first_arm_only": first_arm_only(played),
        "entropy": np.full(len(trajectories), np.nan) if stated is None else entropy(stated),
        "failed": np.isin(np.arange(len(trajectories)), list(histories.failed)).astype(np.float64),
        "early_switching": early_switching(played),
        "late_regret": late_regret(round_regret(trajectories, kind)),
        "rounds_to_switch": rounds_to_switch(played, best),
        **_after_wins_and_losses(trajectories),
        **_of_game(played, trajectories.table.other),
    }


def _after_wins_and_losses(trajectories: Trajectories) -> dict[str, FloatArray]:
    """`win_stay_lose_shift`, where a win pays more than half of the range of rewards; NaN without either."""
    histories, rules = trajectories.histories, trajectories.rules
    if rules.feedback == "full" or not np.isfinite(rules.reward_range).all():
        return dict.fromkeys((*RATES, *RATES.values()), np.full(len(trajectories), np.nan))
    return win_stay_lose_shift(histories.arms, rules.normalize(histories.rewards) > 0.5)


def reported(means: FloatArray) -> FloatArray:
    """(..., m) what is reported, `MEASURES`, from means (..., n) over trajectories of `RECORDED`.

    Of games both have those of `OF_GAMES` at their end.
    """
    found = np.concatenate([means[..., : len(MEASURES)], means[..., len(RECORDED) :]], axis=-1)
    for rate, of in RATES.items():
        found[..., MEASURES.index(rate)] = ratio(
            means[..., RECORDED.index(rate)], means[..., RECORDED.index(of)]
        )
    return found


def deviation_gains(payoffs: FloatArray, joint: FloatArray) -> FloatArray:
    """(..., 2) what each side would gain a round by the best fixed arm in place of what it played.

    payoffs: (..., 2, K, K), see `OtherSide`. joint: (..., K, K), the share of rounds of every pair of arms.
    With u_s(i, j) the payoff of side s:

        gain_1 = max_a sum_ij joint(i, j) (u_1(a, j) - u_1(i, j)), and gain_2 alike.

    T times that is the side's external regret. `joint` is a coarse correlated equilibrium if neither is above
    0. The larger one, or 0, is its distance from one: the least epsilon for which it is an epsilon-coarse
    correlated equilibrium. Source: Moulin and Vial (1978), "Strategically zero-sum games"; Roughgarden
    (2016), "Twenty Lectures on Algorithmic Game Theory", lectures 13 and 17.
    """
    ours, theirs = payoffs[..., 0, :, :], payoffs[..., 1, :, :]
    own_arm = np.einsum("...aj,...j->...a", ours, joint.sum(axis=-2)).max(axis=-1)
    their_arm = np.einsum("...ia,...i->...a", theirs, joint.sum(axis=-1)).max(axis=-1)
    earned = (payoffs * joint[..., None, :, :]).sum(axis=(-2, -1))
    return np.asarray(np.stack([own_arm, their_arm], axis=-1) - earned)


def _of_game(played: FloatArray, other: OtherSide | None) -> dict[str, FloatArray]:
    """The measures of `OF_GAMES` of a policy and what it met; none where it met nobody.

    The joint play of a round is the product of what both sides played. A round without a decision counts as
    one of every arm equally often, as the other side met it.
    """
    if other is None or other.played is None:
        return {}
    horizon, num_arms = played.shape[-2:]
    own = np.where(played.any(axis=-1, keepdims=True), played, 1 / num_arms)
    joint = np.einsum("...ti,...tj->...ij", own, other.played) / horizon
    gains = deviation_gains(other.payoffs, joint)
    return {"opponent_regret": horizon * gains[..., 1], "cce_distance": np.maximum(gains.max(axis=-1), 0.0)}


def exponent_below_1(curves: FloatArray, seed: int = 0) -> ExponentTest:
    """One-sided test of H0: b0 >= 1 against b0 < 1, for the exponent of the *mean* regret curve.

    curves: (num_problems, T), each problem's mean over its rollouts. Problems are resampled and b0 is
    fitted to the mean curve of each resample; the p-value is the share of resamples with b0 >= 1.

    p rejects exactly linear regret from round 1, and nothing else: a policy that tries each arm once and then
    keeps to the best-looking one, whose regret is linear from there on, has b0 < 1 at any horizon and is
    rejected. b0 from `late_round` on and `late_regret` tell such a policy.

    Why the mean curve: one trajectory's log R_t starts at a few lucky or unlucky rounds, which have
    most leverage in a fit on log t, and its points are sums of one another, so that residuals are
    anything but independent. Fitted to single trajectories whose regret is linear, b0 < 1 comes out
    in about half of them, and p_reg is tiny in nearly all. And why not this test alone: static regret
    under noise has a part that grows as sqrt(t) whatever is played, so that uniform play passes too
    where gaps are small. Compare with uniform play as well.
    """
    return exponent_test(bootstrap(curves, lambda means: regression_check(means).b0, seed))
