"""The environment as TRL's trainers take it: a factory of objects whose public methods are the model's
tools."""

from __future__ import annotations

from collections.abc import Callable

from rmft.environments.env import Env
from rmft.problems.logged import PartName
from rmft.problems.suites import Suite, load_suite
from rmft.scenarios.wording import Wording


class TrlEnvironment:
    """One rollout's problem at a time; `environment_factory` makes them."""

    def __init__(self, suite: Suite, part: PartName, wording: Wording | None) -> None:
        self._env = Env(suite, part, wording=wording)

    def reset(self, seed: int = 0, **_row: object) -> str:
        """Begin the problem whose number is in the data set's column `seed`; its words follow the prompt."""
        prompt, _ = self._env.reset(seed)
        return f"{prompt}\nDecide by calling choose with one letter, once for every round."

    def choose(self, option: str) -> str:
        """Choose one option in the current round.

        Args:
            option: The letter of the option.

        Returns:
            What came of it, and the next question.
        """
        if self._env.over:
            return "The problem is over."
        return self._env.step(option.strip())[0]

    def get_reward(self) -> float:
        """Minus the regret of the whole problem; rounds that were not played count as the worst arm's."""
        return -self._env.regret()


def environment_factory(
    suite: str | Suite, part: PartName = "train", wording: Wording | None = None
) -> Callable[[], TrlEnvironment]:
    """For TRL's `GRPOTrainer(environment_factory=...)`: rows of its data set need a prompt and a seed.

    Rollouts of one row play one problem, so their rewards are compared with equal luck. Raises as `Env`.
    """
    loaded = suite if isinstance(suite, Suite) else load_suite(suite)
    TrlEnvironment(loaded, part, wording)
    return lambda: TrlEnvironment(loaded, part, wording)
