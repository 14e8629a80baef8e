"""The learning rate: over a stage of a run, and adapted to how far the policy moves."""

from __future__ import annotations

import math

import numpy as np

from rmft.training.config import LocalTraining, NumericTraining

AHEAD = 2.0  # a policy has run ahead when its divergence is so many times what is due
RECENT = 4  # the share of an iteration's steps, one in so many, whose divergences are averaged
MOST_AT_ONCE, MOST = 2.0, 100.0  # how far the scale goes from one iteration to the next, and at all


class StepSize:
    """The learning rate of an iteration's steps, by the KL divergence that each is measured with.

    Without a target it is constant. With one it is multiplied by a `scale`, so that at the end of an
    iteration KL(rollout policy || policy) per decision comes out near the target, whatever the model and its
    adapters are. RSL-RL's "adaptive" schedule does so for PPO; Schulman et al. (2017, section 4) adapt the
    coefficient of the penalty instead. The scale is kept with the optimizer's state and goes on from there.
    """

    def __init__(
        self, rate: float, target_kl: float | None = None, num_steps: int = 1, scale: float = 1.0
    ) -> None:
        self.base, self.target_kl, self.num_steps = rate, target_kl, num_steps
        self.scale = self._first = scale if target_kl else 1.0
        self._kls: list[float] = []
        self._scales: list[float] = []

    @property
    def rate(self) -> float:
        """That of the next step."""
        return self.base * self.scale

    def update(self, kl: float) -> None:
        """Take in the divergence that a step's batch was measured with, before the step changed the policy.

        KL grows with the square of how far the policy went. One that runs ahead is slowed down to the scale
        that would have been right from the iteration's start; at the last step, the scale for the next
        iteration is set by the mean of those that led there.
        """
        self._kls.append(max(kl, 0.0))
        done = len(self._kls)
        if self.target_kl is None or done == 1:
            self._scales.append(self.scale)
            return
        recent = float(np.mean(self._kls[-max(2, self.num_steps // RECENT) :]))
        factor = math.sqrt(self.target_kl * done / self.num_steps / max(recent, 1e-12))
        if done == self.num_steps:
            self.scale = float(np.mean(self._scales)) * min(MOST_AT_ONCE, max(1 / MOST_AT_ONCE, factor))
        elif factor**2 < 1 / AHEAD:
            self.scale = min(self.scale, self._first * factor)
        self.scale = min(MOST, max(1 / MOST, self.scale))
        self._scales.append(self.scale)


def schedule(config: NumericTraining | LocalTraining, progress: float) -> float:
    """The share of the peak rate: a linear rise over the first `warmup` of the stage, then a cosine to 5%."""
    rise = min(1.0, progress / config.warmup) if config.warmup else 1.0
    if config.schedule == "constant":
        return rise
    return rise * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * progress)))


def step_size(
    config: NumericTraining | LocalTraining, progress: float, num_steps: int, scale: float
) -> StepSize:
    """That of an iteration; where the rate falls, the target falls with its square."""
    share = schedule(config, progress)
    target = None if config.target_kl is None else config.target_kl * share**2
    return StepSize(config.learning_rate * share, target, num_steps, scale)
