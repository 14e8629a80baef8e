"""The policy that an open-weight language model plays: told in words, reasoning freely, answering legally.

Each round it is told what happened, may write reasoning of its own, and then decides by tokens that are
sampled among the legal answers only: so it never gives an answer that can't be read, and the
probabilities of its decisions are exact. Reasoning ends where the model marks its answer, and the decision is
sampled right there; after any other end the mark is put there. What was sampled is kept as tokens in the
history's turns, the end of reasoning included.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from transformers import PreTrainedTokenizerBase

from rmft.errors import ConfigError, ShapeError
from rmft.generators.chat import ChatFormat
from rmft.generators.loading import HeldModel, load_model
from rmft.generators.local import LocalEngine
from rmft.generators.tokens import TokenEngine, TokenSession
from rmft.models.catalogue import find_model
from rmft.policies.checkpoint import adapter_in, model_of, read_policy
from rmft.policies.completion import Completion
from rmft.policies.config import LocalConfig
from rmft.scenarios.contexts import as_text, context_group
from rmft.scenarios.parsing import MARKS, THOUGHT, ends, to_answer
from rmft.scenarios.scenario import Scenario, draw_scenario, scenarios_of
from rmft.streams import Streams
from rmft.types import Decisions, FloatArray, Histories, IntArray, Observation, RowHistory, Rules, Turn, Words

TURN_START = "\n"  # what every chat template, and every line of a log, has before the model's first token
PROBES = 3  # wordings of each context that are measured for the longest
SPARE_TOKENS = 1  # a round, for wordings that were not
LONGEST = -0.000012  # a number of no known range that is written with many digits

State = tuple[list[int], IntArray]
Names = tuple[tuple[str, ...], ...]
"""What arms are called in the rows of a batch, each of which is there once; () where they are anonymous."""


@dataclass
class Playing:
    """What is kept beside the histories of a batch: its scenarios, and the session that has read them."""

    scenarios: list[Scenario]
    session: TokenSession | None = None


class LanguagePolicy:
    """Decides with a language model; `name` is "local".

    temperature: divides the logits, > 0. sample_arms: under full information, play the arm that was
    said (so that rollouts differ, for training) instead of the distribution that it was drawn from.
    """

    name = "local"

    def __init__(
        self,
        engine: TokenEngine,
        tokenizer: PreTrainedTokenizerBase,
        config: LocalConfig,
        temperature: float = 1.0,
        *,
        sample_arms: bool = False,
    ) -> None:
        self.engine, self.tokenizer, self.config = engine, tokenizer, config
        self.temperature, self.sample_arms = temperature, sample_arms
        thinking = config.wording.reasoning == "free"
        self.chat = ChatFormat.from_tokenizer(tokenizer, thinking=thinking, stop_ids=engine.stop_ids)
        self.budget = 0 if config.wording.reasoning == "off" else config.reasoning_budget
        self._choice_ids: dict[tuple[str, str], int] = {}
        self._may_end: dict[int, bool] = {}
        self._longest: dict[tuple[Rules, str, Names], int] = {}

    @property
    def max_concurrency(self) -> int:
        """See `Policy`; as many as the engine has sessions at once."""
        return self.engine.sessions_at_once

    def rows_at_once(self, rules: Rules) -> int:
        """See `Policy`; as many as the engine has room for of the longest history. Raises ConfigError."""
        return self.engine.rows_at_once(self.longest(rules))

    def longest(self, rules: Rules, words: Words | None = None) -> int:
        """Tokens that the longest history takes. Raises ConfigError when the context does not hold it.

        words: in which, where names or contexts are not the package's own; those of all its contexts count.
        """
        contexts, names = "all", Names()
        if words is not None and (words.names is not None or words.contexts.startswith("[")):
            contexts = words.contexts
            names = () if words.names is None else tuple(map(tuple, np.unique(words.names, axis=0).tolist()))
        key = rules, contexts, names
        if key not in self._longest:
            opening, per_round = self._lengths(*key)
            longest = opening + (rules.horizon - 1) * per_round
            context = self.engine.context
            if longest > context:
                fits = max(1 + (context - opening) // per_round, 0)
                raise ConfigError(
                    f"{rules.horizon} rounds of {rules.num_arms} arms take up to {longest} tokens "
                    f"({opening} to begin, {per_round} a round); {self.config.model} reads {context}. "
                    f"The longest horizon that fits is {fits}; policy.wording.style terse, "
                    "policy.wording.history raw and a smaller policy.reasoning_budget need less."
                )
            self._longest[key] = longest
        return self._longest[key]

    def _lengths(self, rules: Rules, contexts: str, names: Names) -> tuple[int, int]:
        """The most tokens of an opening, and of a round (told and said), over the contexts and names."""
        opening = per_round = 0
        low, high = rules.reward_range
        bounded = bool(np.isfinite(rules.reward_range).all())
        rewards = (low, high, low + 0.7774 * (high - low)) if bounded else (-777.4, -0.0000123)
        probed = itertools.product(context_group(contexts), names or [None], range(PROBES))
        for context, named, seed in probed:
            scenario = draw_scenario(rules, as_text([context]), seed, self.config.wording, named)
            self._refuse_special(scenario.opening())
            written = self.budget + self._longest_answer(scenario)
            first = self.chat.opening(scenario.opening(), scenario.prompt(_past(rules, 0, 0.0)))
            opening = max(opening, len(first) + written)
            for reward in rewards if rules.horizon > 1 else ():
                turn = self._turn(scenario.prompt(_past(rules, rules.horizon - 1, reward)))
                per_round = max(per_round, len(turn) + written)
        return opening, per_round + SPARE_TOKENS

    def _refuse_special(self, prompt: str) -> None:
        """Raises ConfigError where words that anybody may have written hold what ends a message."""
        for token in self.tokenizer.added_tokens_decoder.values():
            if token.special and str(token) in prompt:
                raise ConfigError(
                    f"The words of a problem hold {token}, which {self.config.model} reads as a mark between "
                    "messages; expected other words."
                )

    def _longest_answer(self, scenario: Scenario) -> int:
        """Tokens from the end of reasoning on. Raises ConfigError where a choice has no token of its own."""
        befores = {"", scenario.before_answer}
        most = len(self._encode(to_answer(THOUGHT))) if self.budget else 0
        for piece in scenario.answer():
            if isinstance(piece, str):
                befores, most = {piece}, most + len(self._encode(piece))
                continue
            most += 1
            for before in befores:
                self._ids(before, piece)
        return most

    def probe(self, rules: Rules, words: Words) -> State:
        """The tokens of an opening, and legal ones (C,) after them: a state to compare engines in."""
        scenario = scenarios_of(rules, words.rows(slice(0, 1)), self.config.wording)[0]
        options = next(piece for piece in scenario.answer() if not isinstance(piece, str))
        opening = self.chat.opening(scenario.opening(), scenario.prompt(_past(rules, 0, 0.0)))
        return opening, self._ids(scenario.before_answer, options)

    def decide(self, histories: Histories, streams: Streams) -> Decisions:
        """One decision per history; what was read before is not read again. See `Policy`."""
        playing: Playing = histories.remember(self, lambda: self._begin(histories))
        texts, prompts = self._prompts(playing, histories)
        session = self._session(playing, histories, prompts)
        steps = playing.scenarios[0].answer()
        draws = streams.uniform(self.budget + sum(not isinstance(piece, str) for piece in steps))
        completions = [Completion() for _ in prompts]
        if self.budget:
            self._reason(session, completions, draws[:, : self.budget], self._opened(histories))
        decided = self._answer(session, playing.scenarios, completions, draws[:, self.budget :])
        arms, probabilities, legal = decided
        first = not histories.num_rounds
        turns = tuple(
            Turn(
                texts[row],
                self._decode(completions[row].ids),
                np.array(prompts[row] + completions[row].ids, dtype=np.int64),
                np.array([np.nan] * len(prompts[row]) + completions[row].logprobs),
                None if legal is None else legal[row],
                scenario.opening() if first else "",
                cut=completions[row].cut,
            )
            for row, scenario in enumerate(playing.scenarios)
        )
        if arms is None or (histories.rules.feedback == "full" and not self.sample_arms):
            return Decisions(probabilities=probabilities, turns=turns)
        return Decisions(arms, probabilities, turns)

    def state(self, histories: Histories, arms: IntArray) -> tuple[Turn, ...]:
        """The turns in which it would name these arms, (B,), without reasoning; the model is not asked."""
        playing: Playing = histories.remember(self, lambda: self._begin(histories))
        texts, prompts = self._prompts(playing, histories)
        turns = []
        for text, prompt, scenario, arm in zip(texts, prompts, playing.scenarios, arms, strict=True):
            legal = self._ids(scenario.before_answer, scenario.labels)
            ids = np.array([*prompt, legal[arm]], dtype=np.int64)
            logprobs = np.where(np.arange(len(ids)) < len(prompt), np.nan, 0.0)
            opening = "" if histories.num_rounds else scenario.opening()
            turns.append(Turn(text, scenario.labels[arm], ids, logprobs, legal, opening))
        return tuple(turns)

    def _prompts(self, playing: Playing, histories: Histories) -> tuple[list[str], list[list[int]]]:
        """What each row is told before its next decision, as words and as tokens."""
        texts = [scenario.prompt(histories.row(row)) for row, scenario in enumerate(playing.scenarios)]
        if histories.rules.shown:  # which may be anybody's words
            for text in set(texts):
                self._refuse_special(text)
        if histories.num_rounds:
            return texts, [self._turn(words) for words in texts]
        openings = [scenario.opening() for scenario in playing.scenarios]
        return texts, [self.chat.opening(*both) for both in zip(openings, texts, strict=True)]

    def _begin(self, histories: Histories) -> Playing:
        return Playing(scenarios_of(histories.rules, histories.words, self.config.wording))

    def _turn(self, words: str) -> list[int]:
        """Tokens from right after a decision to where the next one, or the reasoning before it, begins."""
        if self.config.rounds == "messages":
            return self.chat.turn(words)
        gap = ":" if words[:1].isalpha() else ""  # a letter right after a letter would be another token
        return self._encode(f"{gap}{words}{TURN_START}")

    def _session(self, playing: Playing, histories: Histories, prompts: list[list[int]]) -> TokenSession:
        """The session that has read the histories, and now what is told; a fresh one if it has not."""
        before: list[list[int]] = [[] for _ in prompts]
        for turns in histories.words.turns:
            for row, turn in enumerate(turns):
                before[row] += [] if turn.ids is None else turn.ids.tolist()
        if playing.session is None or playing.session.ids != before:
            self._check_read(histories, before)
            longest = self.longest(histories.rules, histories.words)
            playing.session = self.engine.session(len(prompts), longest)
            prompts = [old + new for old, new in zip(before, prompts, strict=True)]
        playing.session.read(prompts)
        return playing.session

    def _check_read(self, histories: Histories, before: list[list[int]]) -> None:
        """Raises ShapeError when what is to be read again was not said by a model with these tokens."""
        tokens = [token for row in before for token in row]
        known = max(tokens, default=0) < len(self.tokenizer)
        if len(histories.words.turns) != histories.num_rounds or not known:
            raise ShapeError("The history lacks rounds in words, or has tokens that the model does not know.")

    def _opened(self, histories: Histories) -> str:
        """The thought in which the model begins its turn, where the template has opened one."""
        begins = self.config.rounds == "messages" or not histories.num_rounds
        return THOUGHT if self.chat.thinks and begins else ""

    def _reason(
        self, session: TokenSession, completions: list[Completion], draws: FloatArray, opened: str
    ) -> None:
        """Let every row reason until it marks its answer, ends in another way or has used its budget up."""
        wrote = session.write(self.budget, partial(self._ends, opened), draws, self.temperature, MARKS)
        for row, each in zip(completions, wrote, strict=True):
            row.add(each.ids, each.logprobs)
            reasoning = opened + self._decode(each.ids)
            row.mark = to_answer(reasoning)
            row.cut = not each.ended and row.mark[:1] != ":"  # in the middle of the mark it is the answer

    def _ends(self, opened: str, ids: list[int]) -> bool | None:
        """Whether reasoning ends with the last of these tokens; see `rmft.generators.tokens.Ends`."""
        last = ids[-1]
        if last in self.chat.stop_ids:
            return True
        if last not in self._may_end:  # the mark ends in ":", a thought in ">"
            self._may_end[last] = not {":", ">"}.isdisjoint(self._decode([last]))
        return ends(opened + self._decode(ids)) if self._may_end[last] else None

    def _answer(
        self,
        session: TokenSession,
        scenarios: list[Scenario],
        completions: list[Completion],
        draws: FloatArray,
    ) -> tuple[IntArray | None, FloatArray, list[IntArray] | None]:
        """The arms, their probabilities (B, K), and the tokens that stood for the arms."""
        grammars = [scenario.answer() for scenario in scenarios]
        self._force(session, completions, [each.mark for each in completions])
        before = [
            "" if not each.mark and self._decode(each.ids)[-1:].isspace() else scenario.before_answer
            for each, scenario in zip(completions, scenarios, strict=True)
        ]
        choices: list[list[str]] = [[] for _ in scenarios]
        probabilities = np.zeros((len(scenarios), 0))
        legal: list[IntArray] = []
        for step in range(len(grammars[0])):
            pieces = [grammar[step] for grammar in grammars]
            texts = [piece for piece in pieces if isinstance(piece, str)]
            if texts:
                self._force(session, completions, texts)
                before = texts
                continue
            options = [piece for piece in pieces if not isinstance(piece, str)]
            legal = [self._ids(text, piece) for text, piece in zip(before, options, strict=True)]
            ids, logprobs, probabilities = session.choose(
                np.stack(legal), draws[:, len(choices[0])], self.temperature
            )
            for row, piece in enumerate(options):
                completions[row].add([int(ids[row])], [float(logprobs[row])])
                choices[row].append(piece[int(np.flatnonzero(legal[row] == ids[row])[0])])
        decisions = [s.decision(made) for s, made in zip(scenarios, choices, strict=True)]
        arms = [arm for arm, _ in decisions if arm is not None]
        if arms:
            return np.array(arms, dtype=np.int64), probabilities, legal
        return None, np.stack([weights for _, weights in decisions if weights is not None]), None

    def _force(self, session: TokenSession, completions: list[Completion], texts: list[str]) -> None:
        if any(texts):
            forced = [self._encode(text.rstrip(" ")) for text in texts]  # a space belongs to the next token
            session.read(forced)
            for each, ids in zip(completions, forced, strict=True):
                each.add(ids)

    def _decode(self, ids: list[int]) -> str:
        text = self.tokenizer.decode(ids)
        assert isinstance(text, str)
        return text

    def _encode(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False) if text else []
        return ids

    def _ids(self, before: str, choices: Sequence[str]) -> IntArray:
        return np.array([self._id(before, choice) for choice in choices], dtype=np.int64)

    def _id(self, before: str, choice: str) -> int:
        """The one token that `choice` is after the words `before`. Raises ConfigError when there is none."""
        if (before, choice) not in self._choice_ids:
            text = before or TURN_START
            shown = text.rstrip(" ")  # a space belongs to the token after it
            alone, both = self._encode(shown), self._encode(text + choice)
            if both[:-1] != alone:
                raise ConfigError(
                    f"The tokenizer of {self.config.model} has no single token for the answer '{choice}' "
                    f"after {text!r}; answers need one for every capital letter and digit."
                )
            self._choice_ids[before, choice] = both[-1]
        return self._choice_ids[before, choice]


def _past(rules: Rules, num_rounds: int, reward: float) -> RowHistory:
    """A history in which the arms were played in turn, all paying `reward`.

    What is shown is as long as it may be: no number is written longer, and a digit is a token.
    """
    seen = (num_rounds, rules.num_arms) if rules.feedback == "full" else (num_rounds,)
    shown, rounds = rules.shown, num_rounds + 1
    observation = Observation(
        np.full((rounds, len(shown.numbers)), LONGEST) if shown.numbers else None,
        np.full((rounds, rules.num_arms, len(shown.features)), LONGEST) if shown.features else None,
        np.full(rounds, "7" * shown.text_length) if shown.text_length else None,
        np.full((rounds, rules.num_arms), "7" * shown.arm_text_length) if shown.arm_text_length else None,
    )
    arms = np.arange(num_rounds) % rules.num_arms
    return RowHistory.of_arms(rules, arms, np.full(seen, reward), observation)


def load_language_policy(
    folder: Path, temperature: float = 1.0, *, sample_arms: bool = False, held: HeldModel | None = None
) -> LanguagePolicy:
    """The policy in a checkpoint's folder. held: its model, if that is loaded already.

    Raises RunDirectoryError, and ConfigError for its model.
    """
    config, adapter = read_policy(folder), adapter_in(folder)
    if held is None:
        model, tokenizer = load_model(model_of(folder, config), config.precision, config.device, adapter)
        engine = LocalEngine(model, config.memory_gb)
    else:
        held.adapt(adapter)
        tokenizer = held.tokenizer
        engine = LocalEngine(held.model, config.memory_gb, partial(held.adapt, adapter))
    return LanguagePolicy(engine, tokenizer, config, temperature, sample_arms=sample_arms)


def check(config: LocalConfig, problems: Iterable[tuple[Rules, Words]]) -> tuple[HeldModel, list[State]]:
    """The config's model, and a state of each of the problems (see `LanguagePolicy.probe`).

    problems: rules, each with words of one problem. Raises ConfigError when the model is missing, or the
    problems don't fit it, UnknownNameError for contexts that nobody has.
    """
    held = HeldModel(find_model(config.model), config.precision, config.device)
    policy, states = LanguagePolicy(LocalEngine(held.model, config.memory_gb), held.tokenizer, config), []
    for rules, words in problems:
        context_group(words.contexts)
        policy.longest(rules, words)
        if config.engine is None:
            policy.rows_at_once(rules)
        states.append(policy.probe(rules, words))
    return held, states
