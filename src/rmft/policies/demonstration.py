"""The decisions of a baseline, played so that a policy can imitate them: distillation (Nie et al. 2025)."""

from __future__ import annotations

from collections.abc import Callable

from rmft.errors import ConfigError
from rmft.policies.baselines.catalogue import CATALOGUE, TUNED, describe, make_baseline, parse_spec
from rmft.streams import Streams
from rmft.types import Decisions, Histories, IntArray, Policy, Rules, Turn

State = Callable[[Histories, IntArray], tuple[Turn, ...]]
"""The turns in which a policy in words would state arms (B,)."""


class Demonstration:
    """Implements `Policy`: an arm in every round, drawn where the baseline plays a distribution.

    state: for a policy in words. Raises ConfigError for a baseline that can't be imitated.
    """

    name = "demonstration"
    max_concurrency = 1

    def __init__(self, baseline: str, state: State | None = None) -> None:
        check(baseline)
        self.baseline: Policy = make_baseline(baseline)
        self.state = state

    def rows_at_once(self, rules: Rules) -> int:
        """See `Policy`."""
        return self.baseline.rows_at_once(rules)

    def decide(self, histories: Histories, streams: Streams) -> Decisions:
        """See `Policy`. Raises ConfigError when the baseline does not suit the rules."""
        made = self.baseline.decide(histories, streams)
        arms = made.arms
        if arms is None:
            assert made.probabilities is not None
            arms = streams.choose(made.probabilities)
        turns = None if self.state is None else self.state(histories, arms)
        return Decisions(arms, made.probabilities, turns)


def check(baseline: str, *played: Rules, key: str = "rollout.policy") -> None:
    """Raises ConfigError or UnknownNameError when the baseline can't play under these rules without knowing
    what is hidden. key: the setting that names it."""
    name, _ = parse_spec(baseline)
    if baseline.startswith(TUNED):
        raise ConfigError(
            f"{key} is '{baseline}'; expected its parameters too. 'rmft evaluate RUN --against "
            f"{baseline}' finds them on validation problems."
        )
    describe(name)
    if name not in CATALOGUE:
        raise ConfigError(
            f"{key} is '{baseline}', which knows what is hidden; expected a baseline that could "
            "play anywhere, such as ucb."
        )
    make_baseline(baseline)
    for rules in played:
        CATALOGUE[name].policy().check(rules)
