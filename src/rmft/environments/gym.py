"""The environment as Gymnasium's: numbers in, an arm out."""

from __future__ import annotations

from typing import Any

import numpy as np

from rmft.environments.env import Env
from rmft.problems.logged import PartName
from rmft.problems.suites import Suite
from rmft.wiring.policies import extra

with extra("gymnasium"):
    import gymnasium
    from gymnasium import spaces

MAX_NUMBER = 2**31 - 1
Observation = dict[str, Any]


class GymnasiumEnv(gymnasium.Env[Observation, np.int64]):
    """A suite's problems of one setting.

    Action: an arm. Observation: `round`, how many are over; `arm`, that played last, K before round 1;
    `rewards`, what was seen of it, (1,) in a bandit and (K,) under full information;
    of a contextual bandit `numbers` (d,) and `features` (K, m) of the coming round. Info: as `Env.step`, and
    `prompt`, the same in words. A reset with a seed begins the same problems in the same order. setting: the
    suite's first unless given. Raises as `Env`.
    """

    metadata: dict[str, Any] = {"render_modes": ["ansi"]}  # noqa: RUF012  as Gymnasium declares it

    def __init__(
        self,
        suite: str | Suite,
        part: PartName = "train",
        setting: str | None = None,
        render_mode: str | None = None,
    ) -> None:
        named = Env(suite, part)
        self.env = Env(named.suite, part, setting or named.suite.settings(part)[0].name)
        self.render_mode = render_mode
        rules = next(each for each in named.suite.settings(part) if each.name == self.env.setting).rules
        low, high = rules.reward_range
        seen = (rules.num_arms,) if rules.feedback == "full" else (1,)
        self._nothing = np.full(seen, np.clip(0.0, low, high))
        self._prompt = ""
        self.action_space = spaces.Discrete(rules.num_arms)
        self._shown: dict[str, tuple[int, ...]] = {}
        if rules.shown.numbers:
            self._shown["numbers"] = (len(rules.shown.numbers),)
        if rules.shown.features:
            self._shown["features"] = (rules.num_arms, len(rules.shown.features))
        self.observation_space = spaces.Dict(
            {
                "round": spaces.Discrete(rules.horizon + 1),
                "arm": spaces.Discrete(rules.num_arms + 1),
                "rewards": spaces.Box(low, high, seen, np.float64),
                **{name: spaces.Box(-np.inf, np.inf, shape) for name, shape in self._shown.items()},
            }
        )

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """The next problem, or with a seed the first of its order; see `gymnasium.Env.reset`."""
        super().reset(seed=seed, options=options)
        return self._seen(*self.env.reset(int(self.np_random.integers(MAX_NUMBER))))

    def step(self, action: np.int64) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Play an arm; see `gymnasium.Env.step`. No problem is truncated."""
        prompt, reward, done, info = self.env.step(action)
        seen, info = self._seen(prompt, info)
        return seen, reward, done, False, info

    def render(self) -> str | None:
        """What was told last, in the mode "ansi"."""
        return self._prompt if self.render_mode == "ansi" else None

    def _seen(self, prompt: str, info: dict[str, Any]) -> tuple[Observation, dict[str, Any]]:
        self._prompt = prompt
        before = info["round"] == 0
        rewards = self._nothing if before else np.atleast_1d(np.array(info["rewards"], dtype=np.float64))
        arm = self.action_space.n if before else info["arm"]  # type: ignore[attr-defined]
        seen = {"round": np.int64(info["round"]), "arm": np.int64(arm), "rewards": rewards.copy()}
        for name, shape in self._shown.items():  # nothing is shown after the last round
            shown = info.get("shown", {}).get(name, np.zeros(shape))
            seen[name] = np.asarray(shown, dtype=np.float32)
        return seen, {**info, "prompt": prompt}
