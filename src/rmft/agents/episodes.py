"""Episodes: a policy is asked for a decision each round and told the reward, by whoever plays it.

`rmft.rollout` plays a policy against tables that were drawn beforehand; here the world is the caller's. The
random numbers of a round are addressed by the episode's seed, its place in the batch and the round, so that
an episode which was saved and gone on with decides as it would have.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import numpy as np

from rmft.agents.saved import FORMAT, EpisodeConfig, SavedEpisodes, SavedRound
from rmft.errors import AnswerError, ConfigError, EpisodeError, ShapeError
from rmft.policies.baselines.base import Baseline
from rmft.records.lines import RecordedTurn
from rmft.scenarios.parsing import MARK
from rmft.streams import Streams, seed_sequence
from rmft.types import Decisions, FloatArray, Histories, IntArray, Observation, Policy, Turn, Words

WORDS, DECIDED, DRAWN = range(3)
"""Where the streams of an episode's words, of a policy's decision and of an arm from its distribution branch
off."""

Context = Mapping[str, object] | Sequence[object] | str
"""What is shown before a decision: values by the columns' names, or in their order, or that of the only
one."""

Rewards = Sequence[float] | Sequence[Sequence[float]] | FloatArray


@dataclass(frozen=True, slots=True)
class Choice:
    """One decision.

    arm: the option's number, from 0, in the order in which the options were given. name: what it is called.
    probabilities: (K,) of every option, as the policy stated them; None where it states none, as UCB does.
    reasoning: what a language model wrote before it decided; "" where it writes none.
    """

    arm: int
    name: str
    probabilities: tuple[float, ...] | None
    reasoning: str


class Episodes:
    """Episodes that are played in lock-step, one decision of each per round; `Agent.episodes` begins them."""

    def __init__(self, policy: Policy, agent: str, config: EpisodeConfig) -> None:
        self.config, self._policy, self._agent = config, policy, agent
        rules, size = config.rules, config.size
        if isinstance(policy, Baseline):
            policy.check(rules)
        room = policy.rows_at_once(rules)
        if size > room:
            raise ConfigError(
                f"Found {size} episodes; there is room for {room} of this shape at once. Play them in "
                "several batches, or give the policy more memory (policy.memory_gb)."
            )
        seeds = [seed_sequence(config.seed, row, WORDS).generate_state(1)[0] for row in range(size)]
        names = np.array([config.options] * size, dtype=np.str_)
        self._histories = Histories(
            rules, size, Words(config.contexts, np.array(seeds, dtype=np.int64), names=names)
        )
        self._waiting: Decisions | None = None
        self._closed = False

    @classmethod
    def resumed(cls, policy: Policy, agent: str, saved: SavedEpisodes) -> Episodes:
        """Saved ones, to be gone on with. Raises ConfigError and ShapeError when they are none of this
        agent's."""
        if saved.agent != agent:
            raise ConfigError(f"The episode was played by the agent {saved.agent!r:.200}; this is {agent!r}.")
        about = {name: getattr(saved, name) for name in EpisodeConfig.model_fields}
        episodes = cls(policy, agent, EpisodeConfig.model_construct(**about))
        for each in saved.rounds:
            if episodes.config.context is not None:
                episodes._histories.observe(_observation(each))
            episodes._waiting = episodes._checked(_decisions(each))
            if each.rewards is not None:
                episodes.observe(each.rewards)
        return episodes

    @property
    def num_rounds(self) -> int:
        """How many rounds are over: decided and observed."""
        return self._histories.num_rounds

    @property
    def done(self) -> bool:
        """Whether all rounds are over."""
        return self.num_rounds == self.config.horizon

    @property
    def choices(self) -> list[Choice] | None:
        """What was decided and waits for its rewards, where something does."""
        return None if self._waiting is None else self._choices(self._waiting)

    def decide(self, context: Sequence[Context] | None = None) -> list[Choice]:
        """The next decision of each. context: of each, what is shown before it, where the episodes have some.

        Raises EpisodeError when the last one's rewards are not known, or all rounds are over, ConfigError
        when the context is not what the episodes began with, and AnswerError when a hosted model gave no
        answer that could be read.
        """
        self._check_open()
        if self._waiting is not None:
            raise EpisodeError(
                f"{self._round} is decided already, and what came of it is not known. Call observe() first."
            )
        if self.done:
            raise EpisodeError(
                f"All {self.config.horizon} rounds are over. Begin a new episode, with a longer horizon if "
                "there is more to decide."
            )
        self._observe(context)
        decisions = self._policy.decide(self._histories, self._streams(DECIDED))
        if decisions.failed:
            raise AnswerError(f"{self._round} has no decision: {next(iter(decisions.failed.values()))}")
        self._waiting = self._checked(decisions)
        return self._choices(decisions)

    def _observe(self, context: Sequence[Context] | None) -> None:
        """Keep what is shown before the coming decision."""
        encoder = self.config.context
        if context is None and encoder is None:
            return
        if context is None or encoder is None:
            raise ConfigError(
                "Found a context, but the episode was begun without: give episode(context=[...]) its names."
                if encoder is None
                else f"Found no context; the episode was begun with one: {', '.join(encoder.names)}."
            )
        if len(context) != self.config.size or isinstance(context, str | Mapping):
            raise ShapeError(
                f"Found {len(context)} contexts; expected {self.config.size}, one for each episode."
            )
        shown = encoder.encode([encoder.row(each) for each in context])
        for texts, most in (
            (shown.texts, encoder.text_length),
            (shown.arm_texts, encoder.arm_text_length),
        ):
            longest = 0 if texts is None else max(len(text.encode()) for text in texts.flatten().tolist())
            if longest > most:
                raise ConfigError(f"The context is told in {longest} bytes; expected at most {most}.")
        self._histories.observe(shown)

    def observe(self, rewards: Rewards) -> None:
        """What came of the last decision: (B,) the reward of each episode's choice, or (B, K) those of all
        options under full information.

        Raises EpisodeError before a decision, ShapeError when rewards are missing, not finite or out of
        range.
        """
        self._check_open()
        if self._waiting is None:
            raise EpisodeError(
                f"All {self.config.horizon} rounds are over; there is nothing to observe any more."
                if self.done
                else f"{self._round} is not decided yet, so nothing can be observed. Call decide() first."
            )
        self._histories.append(self._waiting, self._checked_rewards(rewards))
        self._waiting = None

    def to_json(self) -> str:
        """All that is needed to go on in another process, with `Agent.resume_episodes`."""
        shown = self._histories.shown
        rounds = [_saved(*self._past(index), shown(index)) for index in range(self.num_rounds)]
        if self._waiting is not None:
            rounds.append(_saved(self._waiting, None, shown(self.num_rounds)))
        about = {name: getattr(self.config, name) for name in EpisodeConfig.model_fields}
        saved = SavedEpisodes.model_construct(**about, format=FORMAT, agent=self._agent, rounds=tuple(rounds))
        return saved.model_dump_json()

    def close(self) -> None:
        """Let go of the memory that the episodes take. They can still be saved, not gone on with."""
        self._histories.forget()
        self._closed = True

    def __enter__(self) -> Episodes:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __len__(self) -> int:
        return self.config.size

    @property
    def _round(self) -> str:
        return f"Round {self.num_rounds + 1} of {self.config.horizon}"

    def _check_open(self) -> None:
        if self._closed:
            raise EpisodeError("The episode is closed. Begin a new one, or go on with one that was saved.")

    def _streams(self, what: int) -> Streams:
        """The random numbers of the coming round."""
        rows = range(self.config.size)
        return Streams.at(self.config.seed, [(row, what, self.num_rounds) for row in rows])

    def _checked(self, decisions: Decisions) -> Decisions:
        decisions.check(self.config.rules, self.config.size)
        return decisions

    def _checked_rewards(self, rewards: Rewards) -> FloatArray:
        config = self.config
        full = config.feedback == "full"
        expected = (config.size, len(config.options)) if full else (config.size,)
        try:
            given = np.asarray(rewards, dtype=np.float64)
        except (TypeError, ValueError, OverflowError):
            raise ShapeError(f"Found rewards {rewards!r:.80}; expected numbers.") from None
        if given.shape != expected:
            what = "one of every option, for each episode" if full else "one for each episode"
            raise ShapeError(f"Found rewards of shape {given.shape}; expected {expected}: {what}.")
        low, high = config.reward_range
        wrong = given[~(np.isfinite(given) & (given >= low) & (given <= high))]
        if wrong.size:
            raise ShapeError(
                f"Found the reward {wrong[0]:g}; expected a finite number from {low:g} to {high:g}. If "
                "rewards can be others, begin the episode with their reward_range."
            )
        return given

    def _choices(self, decisions: Decisions) -> list[Choice]:
        arms, stated = decisions.arms, decisions.probabilities
        if arms is None:  # the distribution is what is played; whoever acts needs one option of it
            assert stated is not None
            arms = self._streams(DRAWN).choose(stated)
        return [
            Choice(
                arm=arm,
                name=self.config.options[arm],
                probabilities=None if stated is None else tuple(stated[row].tolist()),
                reasoning="" if decisions.turns is None else _reasoning(decisions.turns[row]),
            )
            for row, arm in enumerate(arms.tolist())
        ]

    def _past(self, index: int) -> tuple[Decisions, FloatArray]:
        """The decisions of a round that is over, as the policy made them, and what was seen."""
        kept = self._histories
        arms: IntArray | None = kept.arms[:, index]
        stated = None if kept.probabilities is None else kept.probabilities[:, index]
        turns = kept.words.turns[index] if kept.words.turns else None
        if arms is not None and (arms < 0).any():
            arms, stated = None, kept.played[:, index]
        return Decisions(arms, stated, turns), kept.rewards[:, index]


class Episode:
    """One episode; `Agent.episode` begins it. A context manager, which lets go of its memory at the end."""

    def __init__(self, episodes: Episodes) -> None:
        self._episodes = episodes

    @property
    def config(self) -> EpisodeConfig:
        """What it is about."""
        return self._episodes.config

    @property
    def num_rounds(self) -> int:
        """How many rounds are over: decided and observed."""
        return self._episodes.num_rounds

    @property
    def done(self) -> bool:
        """Whether all rounds are over."""
        return self._episodes.done

    @property
    def choice(self) -> Choice | None:
        """What was decided and waits for its reward, where something does."""
        choices = self._episodes.choices
        return None if choices is None else choices[0]

    def decide(self, context: Context | None = None) -> Choice:
        """The next decision. context: what is shown before it, where the episode was begun with one: values
        by name, such as {"age": 41, "job": "teacher"}, or in the order of the names.

        Raises EpisodeError when the last one's reward is not known, or all rounds are over, and ConfigError
        for another context than the episode was begun with.
        """
        return self._episodes.decide(None if context is None else [context])[0]

    def observe(
        self, reward: float | None = None, *, rewards: Sequence[float] | Mapping[str, float] | None = None
    ) -> None:
        """What came of the last decision.

        reward: of the option that was chosen, in a bandit. rewards: under full information those of all
        options, in their order or by name. Raises EpisodeError before a decision, ShapeError when rewards are
        missing, not finite or out of the episode's range.
        """
        full = self.config.feedback == "full"
        given, other = (rewards, reward) if full else (reward, rewards)
        if given is None or other is not None:
            expected = "rewards=[...], those of all options" if full else "reward=, that of the choice"
            raise ShapeError(
                f"Under {self.config.feedback} feedback observe() takes {expected}, and nothing else."
            )
        if isinstance(given, Mapping):
            if set(given) != set(self.config.options):
                wrong = sorted({str(name) for name in given} ^ set(self.config.options))
                raise ShapeError(f"Found other names than the options': {', '.join(wrong):.200}.")
            given = [given[name] for name in self.config.options]
        one: Any = [given]
        self._episodes.observe(one)

    def to_json(self) -> str:
        """All that is needed to go on in another process, with `Agent.resume`."""
        return self._episodes.to_json()

    def close(self) -> None:
        """Let go of the memory that the episode takes. It can still be saved, not gone on with."""
        self._episodes.close()

    def __enter__(self) -> Episode:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _reasoning(turn: Turn) -> str:
    """What was written before the decision."""
    return turn.completion.rpartition(MARK)[0].strip()


def _saved(decisions: Decisions, rewards: FloatArray | None, shown: Observation | None) -> SavedRound:
    arms, stated, turns = decisions.arms, decisions.probabilities, decisions.turns
    shown = shown or Observation()
    return SavedRound.model_construct(
        numbers=None if shown.numbers is None else shown.numbers.tolist(),
        features=None if shown.features is None else shown.features.tolist(),
        texts=None if shown.texts is None else shown.texts.tolist(),
        arm_texts=None if shown.arm_texts is None else shown.arm_texts.tolist(),
        arms=None if arms is None else arms.tolist(),
        probabilities=None if stated is None else stated.tolist(),
        turns=None if turns is None else [RecordedTurn.of(turn) for turn in turns],
        rewards=None if rewards is None else rewards.tolist(),
    )


def _observation(saved: SavedRound) -> Observation:
    try:
        numbers, features = (
            None if each is None else np.array(each, dtype=np.float64)
            for each in (saved.numbers, saved.features)
        )
    except ValueError:
        raise ShapeError("The saved numbers that were shown are not of one length.") from None
    try:
        texts, arm_texts = (
            None if each is None else np.array(each, dtype=np.str_) for each in (saved.texts, saved.arm_texts)
        )
    except ValueError:
        raise ShapeError("The saved texts that were shown are not of one number of options.") from None
    return Observation(numbers, features, texts, arm_texts)


def _decisions(saved: SavedRound) -> Decisions:
    arms, stated, turns = saved.arms, saved.probabilities, saved.turns
    try:
        probabilities = None if stated is None else np.array(stated, dtype=np.float64)
    except ValueError:
        raise ShapeError("The saved probabilities are not of one length.") from None
    return Decisions(
        None if arms is None else np.array(arms, dtype=np.int64),
        probabilities,
        None if turns is None else tuple(said.turn for said in turns),
    )
