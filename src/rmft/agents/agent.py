"""An agent: a policy out of a run, a checkpoint, an exported folder, or a baseline, ready to decide."""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Literal

from rmft.agents.episodes import Episode, Episodes
from rmft.agents.saved import EpisodeConfig, read_episodes
from rmft.errors import ConfigError
from rmft.problems.encoding import Encoder
from rmft.reading import read
from rmft.scenarios.contexts import as_text, own_contexts
from rmft.targets import load_agent
from rmft.types import Feedback, Policy

Columns = Sequence[str] | Mapping[str, Literal["number", "text"]] | Encoder

CARRIED = ("optimizer.safetensors", "README.md")
"""Files beside a policy that its decisions do not depend on."""


class Agent:
    """A policy in one's own program. It may be used from one thread at a time.

    agent = rmft.Agent.load("runs/demo-...")
    with agent.episode(options=["red", "green", "blue"], horizon=14) as episode:
        while not episode.done:
            choice = episode.decide()
            episode.observe(reward=try_out(choice.name))
    """

    def __init__(self, policy: Policy, folder: Path | None = None) -> None:
        """folder: where the policy lies; None for a baseline."""
        self.policy, self._folder = policy, folder

    @classmethod
    def load(cls, target: str | Path) -> Agent:
        """The agent that `target` names.

        A run, whose best policy is taken; a checkpoint's folder; a folder that `rmft export` wrote; or a
        baseline, such as "thompson" or "ucb(coefficient=0.3)". Raises RunDirectoryError, UnknownNameError,
        ConfigError, and MissingExtraError where torch or transformers are needed and not installed.
        """
        return cls(*load_agent(str(target)))

    @cached_property
    def identity(self) -> str:
        """What its decisions depend on: a baseline's name and parameters, or a digest of a policy's files.

        A policy of a language model names the model that it starts from, which is not a part of the digest.
        """
        if self._folder is None:
            return self.policy.name
        digest = hashlib.sha256()
        for path in sorted(self._folder.iterdir()):
            if path.is_file() and path.name not in CARRIED:
                digest.update(f"{path.name} {os.path.getsize(path)}\n".encode())
                with path.open("rb") as file:
                    digest.update(hashlib.file_digest(file, "sha256").digest())
        return f"{self.policy.name}:{digest.hexdigest()}"

    def episode(
        self,
        options: Sequence[str],
        horizon: int,
        *,
        feedback: Feedback = "bandit",
        reward_range: tuple[float, float] = (0.0, 1.0),
        contexts: str | Mapping[str, object] = "train",
        context: Columns | None = None,
        seed: int | None = None,
    ) -> Episode:
        """A new episode of `horizon` rounds, in each of which one of `options` is chosen.

        options: what they are called, 2 to 1,000; at most 26 for a language model, which is told their names.
        feedback: "bandit", where the reward of the choice is told, or "full", where those of all options are.
        reward_range: where every reward lies. contexts: what a language model is told that it is about: a
        context's name, a group of them ("train", "held_out", "all") of which one is drawn, or words of your
        own, as a mapping with keys such as situation, arm, arms, unit and units (docs/language.md). context:
        what `decide` is shown in a contextual bandit: names of numbers, read as they are; or names with
        "number" or "text"; or `Suite.context`, that of the columns which the agent was trained with. seed: of
        all draws, from 0; unless given, a fresh one. Raises ConfigError when the agent can't play this.
        """
        return Episode(
            self.episodes(
                1,
                options,
                horizon,
                feedback=feedback,
                reward_range=reward_range,
                contexts=contexts,
                context=context,
                seed=seed,
            )
        )

    def episodes(
        self,
        size: int,
        options: Sequence[str],
        horizon: int,
        *,
        feedback: Feedback = "bandit",
        reward_range: tuple[float, float] = (0.0, 1.0),
        contexts: str | Mapping[str, object] = "train",
        context: Columns | None = None,
        seed: int | None = None,
    ) -> Episodes:
        """As many new episodes, played in lock-step, which takes a fraction of the time. See `episode`.

        The first is the one that `episode` begins with the same seed.
        """
        values = {
            "size": size,
            "options": tuple(options) if not isinstance(options, str) else options,
            "horizon": horizon,
            "feedback": feedback,
            "reward_range": reward_range,
            "contexts": contexts
            if isinstance(contexts, str)
            else as_text(own_contexts([{"name": "own", **contexts}], "contexts")),
            "context": context if context is None or isinstance(context, Encoder) else Encoder.of(context),
            "seed": secrets.randbits(63) if seed is None else seed,
        }
        return Episodes(self.policy, self.identity, read(EpisodeConfig, values, "episode"))

    def resume(self, saved: str | bytes) -> Episode:
        """The episode that `Episode.to_json` saved, to be gone on with: it decides as it would have.

        Raises ConfigError when this is no saved episode, is damaged, or is another agent's.
        """
        episodes = self.resume_episodes(saved)
        if len(episodes) > 1:
            raise ConfigError(f"Found {len(episodes)} episodes; go on with several by resume_episodes().")
        return Episode(episodes)

    def resume_episodes(self, saved: str | bytes) -> Episodes:
        """The episodes that `Episodes.to_json` saved. See `resume`."""
        return Episodes.resumed(self.policy, self.identity, read_episodes(saved))
