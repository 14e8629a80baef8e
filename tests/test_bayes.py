"""Optimal play where the prior is known: known values, every history by hand, and its refusals."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from rmft.bayes.bandit import choose, greedy_reward, num_states, optimal_choices, optimal_reward
from rmft.bayes.optimum import greedy_regret, optimum, refusal
from rmft.bayes.prior import BernoulliPrior, BetaArms, ListedArms, NormalArms, OneGoodArm
from rmft.errors import ConfigError
from rmft.evaluation.evaluate import evaluate
from rmft.policies.baselines import make_baseline
from rmft.problems.suites import Suite, load_suite, suite_from
from rmft.rivals import baselines, optima
from rmft.rollout import rollout
from rmft.streams import Streams
from rmft.types import Rules

LISTED = {"kind": "listed_means", "means": [0.9, 0.5, 0], "shares": [0.2, 0.6, 0.2]}
PRIORS: dict[str, BernoulliPrior] = {
    "one good arm": OneGoodArm(0.9, 0.2),
    "one certain arm": OneGoodArm(1.0, 0.0),
    "uniform": BetaArms(),
    "beta": BetaArms(2, 3),
    "rare good arm": ListedArms((0.9, 0.5, 0), (0.2, 0.6, 0.2)),
}
every_prior = pytest.mark.parametrize("prior", PRIORS.values(), ids=PRIORS.keys())


def worlds(prior: BernoulliPrior, num_arms: int) -> tuple[np.ndarray, np.ndarray]:
    """All mean vectors (n, K), and what each weighs; of Beta laws by an exact quadrature."""
    if isinstance(prior, OneGoodArm):
        means = np.full((num_arms, num_arms), prior.low) + (prior.high - prior.low) * np.eye(num_arms)
        return means, np.full(num_arms, 1 / num_arms)
    if isinstance(prior, ListedArms):
        values, weights = np.array(prior.values), np.array(prior.probabilities)
    else:
        nodes, weights = np.polynomial.legendre.leggauss(20)
        values = (nodes + 1) / 2
        weights = weights * values ** (prior.a - 1) * (1 - values) ** (prior.b - 1)
        weights = weights / weights.sum()
    chosen = np.array(list(itertools.product(range(len(values)), repeat=num_arms)))
    return values[chosen], weights[chosen].prod(axis=1)


def by_hand(prior: BernoulliPrior, num_arms: int, horizon: int, rule: Callable[..., Sequence[int]]) -> float:
    """The expected reward of a rule, through every history. rule: arms, all as good, from pulls, successes,
    every arm's posterior mean and its value."""
    means, weights = worlds(prior, num_arms)

    def still(likelihood: np.ndarray, pulls: tuple[int, ...], paid: tuple[int, ...]) -> float:
        if sum(pulls) == horizon or likelihood.sum() < 1e-15:
            return 0.0
        posterior = likelihood / likelihood.sum() @ means
        values = []
        for arm in range(num_arms):
            more = tuple(n + (i == arm) for i, n in enumerate(pulls))
            won = still(likelihood * means[:, arm], more, tuple(s + (i == arm) for i, s in enumerate(paid)))
            lost = still(likelihood * (1 - means[:, arm]), more, paid)
            values.append(posterior[arm] * (1 + won) + (1 - posterior[arm]) * lost)
        return float(np.mean([values[arm] for arm in rule(pulls, paid, posterior, values)]))

    return still(weights, (0,) * num_arms, (0,) * num_arms)


def highest(values: Sequence[float]) -> list[int]:
    return [arm for arm, value in enumerate(values) if value > max(values) - 1e-9]


@every_prior
@pytest.mark.parametrize(("num_arms", "horizon"), [(2, 5), (3, 4)])
def test_optimal_and_greedy_play_against_every_history(
    prior: BernoulliPrior, num_arms: int, horizon: int
) -> None:
    best = by_hand(prior, num_arms, horizon, lambda _n, _s, _m, values: highest(values))
    greedy = by_hand(prior, num_arms, horizon, lambda _n, _s, means, _v: highest(means))
    choices = optimal_choices(prior, horizon, num_arms)

    def chosen(pulls: tuple[int, ...], paid: tuple[int, ...], _m: object, _v: object) -> Sequence[int]:
        return np.flatnonzero(choose(choices, np.array([pulls]), np.array([paid]))[0]).tolist()

    assert optimal_reward(prior, horizon, num_arms) == pytest.approx(best)
    assert greedy_reward(prior, horizon, num_arms) == pytest.approx(greedy)
    assert by_hand(prior, num_arms, horizon, chosen) == pytest.approx(best)


@every_prior
@pytest.mark.parametrize("kind", ["static", "pseudo"])
def test_full_information_against_every_reward_table(prior: BernoulliPrior, kind: str) -> None:
    num_arms, horizon = 2, 3
    means, weights = worlds(prior, num_arms)
    expected = 0.0
    for cells in itertools.product((0, 1), repeat=horizon * num_arms):
        rewards = np.array(cells).reshape(horizon, num_arms)
        chances = np.where(rewards[None] == 1, means[:, None], 1 - means[:, None]).prod(axis=(1, 2)) * weights
        totals = np.vstack([np.zeros(num_arms), rewards.cumsum(axis=0)])
        leads = totals[:-1] == totals[:-1].max(axis=1, keepdims=True)
        played = leads / leads.sum(axis=1, keepdims=True)
        if kind == "static":
            expected += chances.sum() * (totals[-1].max() - (played * rewards).sum())
        else:
            expected += chances @ (horizon * means.max(axis=1) - means @ played.sum(axis=0))
    found = optimum(Rules("full", horizon, num_arms), prior, kind)  # type: ignore[arg-type]
    # the largest of several means is no polynomial, so that the quadrature has an error there
    assert found == pytest.approx(expected, abs=0.01 if kind == "pseudo" and "Beta" in str(prior) else 1e-9)


def test_known_values() -> None:
    """Other programs found them, the first over sorted differences of successes and failures."""
    told = {setting.name: setting for setting in load_suite("words/bandits").settings("held_out")}
    found = [optimum(s.rules, s.prior, s.regret_kind) for s in told.values()]
    np.testing.assert_allclose(found, [0.62068, 1.22378], atol=1e-5)
    assert optimum(Rules("bandit", 15, 3), OneGoodArm(0.8, 0.2), "pseudo") == pytest.approx(1.59985, abs=1e-5)
    assert optimum(Rules("bandit", 50, 2), BetaArms(), "pseudo") == pytest.approx(1.3366, abs=1e-4)
    # E max of two standard normals is 1 / sqrt(pi); one round has nothing to learn from
    alone = optimum(Rules("full", 1, 2), NormalArms(3, 0.5, 1), "static")
    assert alone == pytest.approx(np.sqrt(0.25 + 1) / np.sqrt(np.pi))


def test_states_are_counted() -> None:
    # K = 2, T = 3: pulls (0,0); (1,0); (2,0), (1,1): 1 + 2 + 3 + 4
    assert num_states(3, 2) == 10
    # K = 5 over 50 rounds, as published beside the results of mab/uniform-means
    assert num_states(50, 5) == pytest.approx(8e8, rel=0.02)


@pytest.mark.parametrize("name", ["words/bandits", "words/fol", "fol/gaussian-gap"])
def test_optimal_play_has_the_regret_that_was_worked_out(name: str) -> None:
    suite = load_suite(name)
    problems = suite.draw("held_out", 600)
    worked_out = optima(problems, lambda _: None)
    result = evaluate(baselines(["bayes-optimal"], suite), problems, num_rollouts=1, seed=0)
    for setting, found in result.settings.items():
        measured = found.policies["bayes-optimal"].measures["regret"]
        assert measured.mean is not None
        assert measured.high is not None
        error = (measured.high - measured.mean) / 1.96
        assert measured.mean == pytest.approx(worked_out[setting], abs=4 * error)


def suite_of(*processes: dict[str, object], **changed: object) -> Suite:
    """A suite with a setting of every process, of one shape."""
    shape: dict[str, object] = {"feedback": "bandit", "horizon": 9, "num_arms": 3} | changed
    listed = [{"name": f"s{i}", **shape, "reward_process": each} for i, each in enumerate(processes)]
    return suite_from({"name": "mine", "title": "Mine", "train": {"settings": listed}}, "mine.yaml")


def test_posterior_greedy_on_beta_means_is_optimistic_greedy() -> None:
    suite = suite_of({"kind": "bernoulli", "beta": [2, 3]})
    batch = suite.draw("validation", 300)[0]
    play = batch.setting.play
    luck = [(row,) for row in range(300)]
    by_prior = baselines(["posterior-greedy"], suite)["posterior-greedy"](batch.table)
    by_counts = make_baseline("optimistic-greedy(pseudo_successes=2, pseudo_failures=3)")
    arms = [
        rollout(policy, play(batch.table), Streams.at(0, luck)).histories.arms
        for policy in (by_prior, by_counts)
    ]
    assert (arms[0] == arms[1]).mean() > 0.99  # equal but for ties that rounding breaks
    assert greedy_regret(batch.setting.rules, batch.setting.prior, "pseudo") > optimum(
        batch.setting.rules, batch.setting.prior, "pseudo"
    )


def test_rewards_of_a_wider_range_change_nothing() -> None:
    plain = suite_of(LISTED)
    wide = suite_of(LISTED, reward_range=[-1, 3])
    for name in ("bayes-optimal", "posterior-greedy"):
        regrets = [
            evaluate(baselines([name], suite), suite.draw("validation", 50), 1, 0)
            .overall[name]
            .measures["regret"]
            for suite in (plain, wide)
        ]
        assert regrets[0] == regrets[1]


@pytest.mark.parametrize(
    ("changed", "process", "said"),
    [
        ({"horizon": 200, "num_arms": 5}, {"kind": "bernoulli"}, "states; dynamic programming takes at most"),
        ({}, {"kind": "gaussian"}, "Gaussian rewards has no finite number of states"),
        ({}, {"kind": "bernoulli", "means": [0.1, 0.2, 0.3]}, "states no prior"),
        ({}, {"kind": "drift", "budget": 1}, "states no prior"),
        ({"feedback": "full"}, {"kind": "gaussian", "low": 0}, "states no prior"),
    ],
)
def test_refused_with_the_reason(changed: dict[str, object], process: dict[str, object], said: str) -> None:
    suite = suite_of(process, **changed)
    with pytest.raises(ConfigError, match=f"'bayes-optimal' can't play 's0'.*{said}.*These can: uniform"):
        baselines(["bayes-optimal"], suite)
    setting = suite.settings("validation")[0]
    assert said.split(";")[0] in (refusal(setting.rules, setting.prior) or "")
    assert optima(suite.draw("validation", 2), lambda _: None) == {}
    with pytest.raises(ConfigError, match="The optimum is not known here"):
        optimum(setting.rules, setting.prior, setting.regret_kind)


def test_settings_that_look_alike_need_one_prior() -> None:
    suite = suite_of({"kind": "bernoulli"}, {"kind": "bernoulli", "gap": 0.6})
    with pytest.raises(ConfigError, match=r"'s1'.*tells it from 's0', which has another prior"):
        baselines(["bayes-optimal"], suite)
    assert optima(suite.draw("validation", 4), lambda _: None).keys() == {"s0", "s1"}


OWN = """
import numpy as np
from rmft.bayes.prior import BetaArms
from rmft.types import RewardTable

class Mine:
    reward_range = (0.0, 1.0)
    def __init__(self, right):
        self.right = right
    def variation_budget(self, horizon, num_arms):
        return 0.0
    def draw(self, generator, horizon, num_arms):
        means = np.tile(generator.beta(1, 4, num_arms), (horizon, 1))
        return RewardTable((generator.random(means.shape) < means) * 1.0, means)
    def prior(self):
        return BetaArms(1, 4) if self.right else "Beta(1, 4)"
"""


def test_an_own_process_states_its_prior(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(OWN)
    text = """
name: mine
title: Mine
train:
  settings:
    - name: own
      feedback: bandit
      horizon: 6
      num_arms: 2
      reward_process: {kind: "mine:Mine", right: RIGHT}
"""
    for right in ("true", "false"):
        (tmp_path / "suite.yaml").write_text(text.replace("RIGHT", right))
        setting = load_suite(tmp_path / "suite.yaml").settings("validation")[0]
        if right == "true":
            assert setting.prior == BetaArms(1, 4)
        else:
            with pytest.raises(ConfigError, match=r"mine:Mine\.prior returned str; expected None or one of"):
                _ = setting.prior
