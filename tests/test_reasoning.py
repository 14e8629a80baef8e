"""A model's own reasoning: where it ends, that the mark as it was written stands, and that all of it is kept.

A tiny random model is made to write what a test says: at a high temperature all tokens are about equally
likely, so that a uniform number picks the token at its place. Log probabilities are the model's own still.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerBase

from rmft.evaluation.reasoning import describe_reasoning
from rmft.generators.api import Features, Question
from rmft.generators.local import LocalEngine
from rmft.policies.config import HostedConfig, LocalConfig
from rmft.policies.hosted import HostedPolicy
from rmft.policies.language import LanguagePolicy
from rmft.providers.answers import Answer
from rmft.scenarios.parsing import ends, split, to_answer
from rmft.scenarios.scenario import draw_scenario
from rmft.scenarios.wording import Wording
from rmft.streams import Streams
from rmft.types import Decisions, FloatArray, Histories, Rules, Turn, Words
from stand_ins import deepseek_r1, gemma, phi3_5, qwen3, smollm2_like

HOT = 1000.0
BUDGET, ROWS = 12, 3
FILLER = 100  # written after the script
MADE = {
    "smollm2": smollm2_like,
    "qwen3": qwen3,
    "gemma2": lambda: gemma("gemma"),
    "phi3.5": phi3_5,
    "deepseek-r1": deepseek_r1,
}


class Scripted(Streams):
    """Numbers that pick the tokens of a script, of a vocabulary of this size, then those of the choices."""

    def __init__(self, script: Sequence[Sequence[int]], size: int, choices: FloatArray) -> None:
        super().__init__([])
        filled = [[*ids, *[FILLER] * BUDGET][:BUDGET] for ids in script]
        self.numbers = (np.array(filled) + 0.5) / size
        self.choices = choices

    def uniform(self, count: int = 1) -> FloatArray:
        return np.concatenate([self.numbers, self.choices[:, : count - BUDGET]], axis=1)


def player(tokenizer: PreTrainedTokenizerBase, **settings: object) -> LanguagePolicy:
    shape = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = LlamaForCausalLM(
            LlamaConfig(
                vocab_size=len(tokenizer),
                max_position_embeddings=8192,
                initializer_range=0.5,
                eos_token_id=tokenizer.eos_token_id,
                **shape,
            )
        ).eval()
    values = {"reasoning_budget": BUDGET, "wording": {"reasoning": "free"}, **settings}
    config = LocalConfig.model_validate({"device": "cpu", **values})
    return LanguagePolicy(LocalEngine(model, config.memory_gb), tokenizer, config, HOT, sample_arms=True)


@cache
def stand_in(name: str) -> LanguagePolicy:
    return player(MADE[name]())


@pytest.fixture(scope="session")
def smollm2_player(smollm2: Path) -> LanguagePolicy:
    return player(AutoTokenizer.from_pretrained(smollm2))


def ids_of(policy: LanguagePolicy, text: str) -> list[int]:
    found: list[int] = policy.tokenizer.encode(text, add_special_tokens=False)
    return found


def play(
    policy: LanguagePolicy, script: Sequence[Sequence[Sequence[int]]], luck: int = 0, feedback: str = "bandit"
) -> Histories:
    """A game whose rows write script[round][row], as far as they may."""
    rules = Rules(feedback, len(script) + 1, 3)  # type: ignore[arg-type]
    histories = Histories(rules, ROWS, Words("train", np.arange(ROWS)))
    generator = np.random.default_rng(luck)
    for texts in script:
        streams = Scripted(texts, policy.engine.model.config.vocab_size, generator.random((ROWS, 3)))
        histories.append(
            policy.decide(histories, streams), np.ones(ROWS if feedback == "bandit" else (ROWS, 3))
        )
    return histories


def say(policy: LanguagePolicy, *texts: str) -> list[Turn]:
    """The turns of one round in which the rows write these texts, each ended by a stop token."""
    script = [
        [*ids_of(policy, text), min(policy.chat.stop_ids)] for text in (*texts, *[""] * (ROWS - len(texts)))
    ]
    return list(play(policy, [script]).words.turns[0])


def check(policy: LanguagePolicy, histories: Histories) -> None:
    """Every turn parses to what was played, and one plain pass finds every log probability again."""
    for row in range(ROWS):
        scenario = draw_scenario(histories.rules, "train", row, policy.config.wording)
        turns = [turns[row] for turns in histories.words.turns]
        for index, turn in enumerate(turns):
            arm, shares = scenario.parse(turn.completion)
            if arm is None:
                np.testing.assert_allclose(shares, histories.played[row, index])
            else:
                assert arm == histories.arms[row, index]
        ids, stored = (np.concatenate([getattr(turn, of) for turn in turns]) for of in ("ids", "logprobs"))
        assert len(ids) <= policy.longest(histories.rules)
        with torch.inference_mode():
            logits = policy.engine.model(torch.from_numpy(ids)[None]).logits[0].double() / HOT
        legal = {
            sum(len(turn.ids) for turn in turns[: n + 1]) - 1: turn.legal for n, turn in enumerate(turns)
        }
        for place in np.flatnonzero(np.isfinite(stored)):
            among = legal.get(place)
            if among is None and policy.config.wording.answer == "distribution":
                digits = [ids_of(policy, f"={digit}")[-1] for digit in range(10)]
                among = np.array(digits) if stored[place] > -np.log(11) else None
            scores = logits[place - 1] if among is None else logits[place - 1, among]
            at = ids[place] if among is None else np.flatnonzero(among == ids[place])[0]
            assert abs(float(scores.log_softmax(-1)[at]) - stored[place]) < 1e-6


PIECES = [
    "Choice:", "Choice", "choice", " choice :", "**Choice:**", "**Choice", "\nChoice:", "Choice:\n\n", ":",
    ": ", "CHOICE**:", '"', "**", " ", "\n", "K", " K", "A is best.", "<think>", "</think>",
    "<think>Choice: K", "Choices:", ")", "_Choice_:",
]  # fmt: skip


@st.composite
def written(draw: st.DrawFn, policy: LanguagePolicy) -> list[int]:
    """What a row may write: bits of marks and thoughts, any tokens at all, and ends."""
    pieces = st.one_of(
        st.sampled_from(PIECES).map(lambda piece: ids_of(policy, piece)),
        st.integers(0, len(policy.tokenizer) - 1).map(lambda token: [token]),
        st.sampled_from(sorted(policy.chat.stop_ids)).map(lambda token: [token]),
    )
    return [token for ids in draw(st.lists(pieces, min_size=1, max_size=BUDGET)) for token in ids][:BUDGET]


@pytest.mark.parametrize("name", MADE)
@settings(max_examples=10)
@given(data=st.data())
def test_whatever_is_written_the_turn_parses_to_what_was_played(name: str, data: st.DataObject) -> None:
    policy = stand_in(name)
    script = [[data.draw(written(policy)) for _ in range(ROWS)] for _ in range(2)]
    histories = play(policy, script, luck=data.draw(st.integers(0, 9)))
    check(policy, histories)
    for texts, turns in zip(script, histories.words.turns, strict=True):
        for ids, turn in zip(texts, turns, strict=True):
            own = turn.ids[np.isfinite(turn.logprobs)][:-1].tolist()
            filled = [*ids, *[FILLER] * BUDGET]
            assert own == filled[: len(own)], "all that was written until reasoning ended, as it was"
            assert len(own) == BUDGET if turn.cut else True
            assert not any(token in policy.chat.stop_ids for token in own[:-1])


@pytest.mark.parametrize("name", ["qwen3", "phi3.5"])
@settings(max_examples=5)
@given(data=st.data())
def test_weights_are_sampled_after_a_mark_of_ones_own(name: str, data: st.DataObject) -> None:
    policy = distributions(name)
    script = [[data.draw(written(policy)) for _ in range(ROWS)] for _ in range(2)]
    check(policy, play(policy, script, feedback="full"))


@cache
def distributions(name: str) -> LanguagePolicy:
    return player(MADE[name](), wording={"reasoning": "free", "answer": "distribution"})


MARKS = ["Choice:", "**Choice:**", "**Choice:", "\n\nChoice:", "K paid. choice :", "My CHOICE:", "_Choice_:"]


@pytest.mark.parametrize("name", [name for name in MADE if name != "deepseek-r1"])
@pytest.mark.parametrize("mark", MARKS)
def test_the_mark_as_it_was_written_stands(name: str, mark: str) -> None:
    """Nothing is put after it but the answer, and all of it has its log probability."""
    policy = stand_in(name)
    turn = say(policy, f"{mark} K\nChoice: T")[0]
    written = turn.completion[: -len(" K")]
    assert written.strip() == mark.strip()
    assert turn.completion[-2:-1] == " "
    assert np.isfinite(turn.logprobs[-len(ids_of(policy, mark)) - 1 :]).all()
    assert not turn.cut


def test_smollm2_s_own_tokens(smollm2_player: LanguagePolicy) -> None:
    policy = smollm2_player
    first, second, third = say(policy, "Q.\n**Choice:** Q", "Choice:\nQ", "It is the best choice.")
    assert first.completion[:-1] == "Q.\n**Choice:** "
    assert second.completion[:-1] == "Choice: "
    assert third.completion[:-1] == "It is the best choice.<|im_end|>\nChoice: "
    ended = np.flatnonzero(third.ids == policy.tokenizer.eos_token_id)[-1]
    assert np.isfinite(third.logprobs[ended]), "what ended reasoning was sampled and is learned"
    assert np.isnan(third.logprobs[ended + 1 : -1]).all(), "the mark that the policy put there was not"
    longest = ids_of(policy, "Choose well. " * BUDGET)[: BUDGET - 1]
    cases = [longest + ids_of(policy, " Choice"), [*longest, 1234], [*longest, policy.tokenizer.eos_token_id]]
    begun, cut, stopped = play(policy, [cases]).words.turns[0]
    assert begun.completion[:-1].endswith(" Choice: "), "the mark that it had begun is gone on with"
    assert cut.completion[:-1].endswith("\nChoice: ")
    assert [begun.cut, cut.cut, stopped.cut] == [False, True, False]
    histories = play(policy, [cases, [ids_of(policy, "Choice: Q"), [1], ids_of(policy, "</think>")]])
    check(policy, histories)
    assert "</think>\nChoice: " in histories.words.turns[1][2].completion


@pytest.mark.parametrize("name", ["qwen3", "deepseek-r1"])
def test_a_thought_ends_where_it_says_and_is_ended_where_it_is_cut(name: str) -> None:
    policy, opened = stand_in(name), "<think>" if name == "qwen3" else ""
    quoting = f"{opened}Choice: K.</think>"
    closed = say(policy, f"{quoting}\n\nT")[0]
    assert closed.completion[:-1] == f"{quoting}\nChoice: ", "what a thought quotes is no answer"
    assert not closed.cut
    never = ids_of(policy, opened) + ids_of(policy, "Choice:")
    histories = play(policy, [[never, never, ids_of(policy, quoting)]])
    check(policy, histories)
    cut = histories.words.turns[0][0]
    assert cut.completion[:-1].endswith("\n</think>\n\nChoice: ")
    assert cut.cut


def test_rows_that_end_at_different_steps_are_read_as_they_are_alone() -> None:
    """And a token of which only a part is the mark is as if it had not been written."""
    policy = stand_in("qwen3")
    spoilt = policy.tokenizer.convert_tokens_to_ids(":ĠK")
    rows = [
        [min(policy.chat.stop_ids)],
        [*ids_of(policy, "T is best.\nChoice"), spoilt],
        ids_of(policy, "a b c d e f g h i j k l m n"),
    ]
    together = play(policy, [rows, rows[::-1]])
    check(policy, together)
    said = [turns[1].completion for turns in together.words.turns]
    assert all(text[:-1] == "T is best.\nChoice: " for text in said)
    assert len({len(turn.ids) for turn in together.words.turns[0]}) == ROWS
    streams = Scripted(rows, len(policy.tokenizer), np.random.default_rng(0).random((ROWS, 3)))
    for row in range(ROWS):
        alone = Histories(together.rules, 1, Words("train", np.array([row])))
        own = Scripted([rows[row]], len(policy.tokenizer), streams.choices[row : row + 1])
        decided: Decisions = policy.decide(alone, own)
        assert decided.turns is not None
        assert decided.turns[0].ids.tolist() == together.words.turns[0][row].ids.tolist()


def test_what_it_says_is_held_against_what_it_does_by_hand() -> None:
    """Of four rounds with reasoning two name one option last, K and T; one does so. One of five is cut."""
    histories = Histories(Rules("bandit", 2, 2), 3, Words("train", np.zeros(3, dtype=np.int64)))
    k, t = draw_scenario(histories.rules, "train", 0, Wording()).labels
    said = [[f"So **{k}**.\nChoice: {k}", f"{k}? {t}!\nChoice: {k}", f"{k} or {t}\nChoice: {t}"],
            [f"**Choice:** {t}", "", ""]]  # fmt: skip
    for texts, arms, failed in zip(said, ([0, 0, 1], [1, -1, -1]), ({}, {1: "no", 2: "no"}), strict=True):
        turns = [Turn("told", text, cut=index == 2) for index, text in enumerate(texts)]
        if failed:  # one in this round, one before
            turns[1:] = [Turn("told", ""), Turn("", "")]
        histories.append(Decisions(np.array(arms), turns=tuple(turns), failed=failed), np.ones(3))
    found = describe_reasoning([histories])
    assert found == {"cut": 0.2, "says": 0.5, "says_does": 0.5}
    assert describe_reasoning([histories.rows(np.array([0]))])["says_does"] == 1
    silent = Histories(histories.rules, 1, Words("train", np.zeros(1, dtype=np.int64)))
    silent.append(Decisions(np.array([0]), turns=(Turn("told", "K"),)), np.ones(1))
    assert describe_reasoning([silent]) == {}


class Says:
    """A hosted model that says these one after the other, each with why it ended."""

    features = Features(True, True, False, True, False)

    def __init__(self, *answers: tuple[str, str]) -> None:
        self.answers = list(answers)
        self.asked: list[Question] = []

    def ask(self, question: Question) -> Answer:
        self.asked.append(question)
        return Answer(*self.answers.pop(0), 10, 10)


def test_a_hosted_answer_that_is_cut_is_asked_for_again_and_counted() -> None:
    rules, words = Rules("bandit", 2, 2), Words("train", np.zeros(1, dtype=np.int64))
    k, _ = draw_scenario(rules, "train", 0, Wording()).labels
    model = Says(
        ("So many words that", "length"), (f"Fine. **Choice: {k}**", "stop"), (f"choice: {k}", "length")
    )
    hosted = HostedPolicy(model, HostedConfig(model="m", max_tokens=7, wording=Wording(reasoning="brief")))
    histories = Histories(rules, 1, words)
    for _ in range(2):
        histories.append(hosted.decide(histories, Streams.at(0, [(0,)])), np.ones(1))
    assert histories.arms.tolist() == [[0, 0]]
    assert [turns[0].cut for turns in histories.words.turns] == [True, False], "what can be read is whole"
    assert "cut at 7 tokens; be shorter. Answer again." in model.asked[1].messages[-1]["content"]
    assert describe_reasoning([histories]) == {"cut": 0.5, "says": 0.0, "says_does": None}


@pytest.mark.parametrize(
    ("text", "stands", "added"),
    [
        ("K is best", None, "\nChoice: "),
        ("My choice", None, "\nChoice: "),
        ("My Choice", None, ": "),
        ("**Choice** ", None, ": "),
        ("Choices:", None, "\nChoice: "),
        ("Choice:", True, ""),
        ("**choice** :**", True, ""),
        ("Choice: K", False, ""),
        ("Choice:\n\n", True, ""),
        ("Choice:)", False, ""),
        ("K.</think>", True, "\nChoice: "),
        ("<think>K", None, "\n</think>\n\nChoice: "),
        ("<think>Choice:", None, "\n</think>\n\nChoice: "),
        ("<think>Choice: K</think>Choice:", True, ""),
    ],
)
def test_where_reasoning_ends_and_what_has_to_follow(text: str, stands: bool | None, added: str) -> None:
    assert ends(text) is stands
    assert to_answer(text) == added
    assert split(text + added + ("" if added else " K"))[1] is not None
