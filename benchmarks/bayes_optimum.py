"""The regret of optimal play on Bernoulli bandits with one good arm, by exact dynamic programming.

With K arms, one of mean 1/2 + gap/2 and the others 1/2 - gap/2, all orders equally likely, the posterior
weighs arm a by (hi / lo)^(successes - failures), so that the sorted differences are the state.

Usage: python benchmarks/bayes_optimum.py [SUITE], by default words/bandits. It prints the expected regret of
every setting of the suite's held-out part, and their mean.
"""

from __future__ import annotations

import functools
import sys

from rmft.problems.stationary import Bernoulli
from rmft.problems.suites import load_suite


def optimum(num_arms: int, horizon: int, gap: float) -> float:
    """The expected pseudo-regret of a Bayes-optimal policy. Seconds, for a few arms and some ten rounds."""
    high, low = 0.5 + gap / 2, 0.5 - gap / 2

    @functools.cache
    def earns(left: int, ahead: tuple[int, ...]) -> float:
        """What is still earned in `left` rounds; ahead: successes minus failures of every arm, sorted."""
        if not left:
            return 0.0
        weights = [(high / low) ** each for each in ahead]
        best = 0.0
        for arm, weight in enumerate(weights):
            mean = low + (high - low) * weight / sum(weights)
            won, lost = (
                tuple(sorted((*ahead[:arm], ahead[arm] + step, *ahead[arm + 1 :]))) for step in (1, -1)
            )
            best = max(best, mean * (1 + earns(left - 1, won)) + (1 - mean) * earns(left - 1, lost))
        return best

    return horizon * high - earns(horizon, (0,) * num_arms)


if __name__ == "__main__":
    suite = load_suite(sys.argv[1] if len(sys.argv) > 1 else "words/bandits")
    found = []
    for setting in suite.settings("held_out"):
        process = setting.reward_process
        if not isinstance(process, Bernoulli) or not isinstance(process.gap, float):
            sys.exit(f"{setting.name} is no Bernoulli bandit with a fixed gap.")
        found.append(optimum(setting.num_arms, setting.horizon, process.gap))
        print(f"{setting.name}: {found[-1]:.4f}")
    print(f"mean: {sum(found) / len(found):.4f}")
