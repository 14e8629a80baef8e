"""Scenarios: every wording renders, tells nothing but the past, and reads back exactly what was decided."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from rmft.config import Wording
from rmft.errors import ConfigError, ShapeError, UnknownNameError
from rmft.reading import read
from rmft.scenarios.contexts import Context, context_group, contexts
from rmft.scenarios.parsing import ParseError, named_last
from rmft.scenarios.rewards import write_range, write_reward
from rmft.scenarios.scenario import Decided, Scenario, draw_scenario
from rmft.types import Decisions, Histories, RowHistory, Rules

INF = float("inf")
RANGES = [(0.0, 1.0), (0.0, 10.0), (-2.0, 3.0), (0.0, INF), (-INF, 0.0), (-INF, INF), (5.0, 5.001)]
NUMBER = re.compile(r"-?\d+(\.\d+)?")

all_rules = st.builds(
    Rules,
    feedback=st.sampled_from(["full", "bandit"]),
    horizon=st.integers(1, 30),
    num_arms=st.integers(2, 26),
    reward_range=st.sampled_from(RANGES),
)
all_contexts = st.sampled_from(["train", "held_out", "all", "buttons", "funds"])
all_wordings = st.builds(
    Wording,
    style=st.sampled_from(["terse", "full"]),
    hint=st.booleans(),
    history=st.sampled_from(["raw", "ranked", "summary", "guided"]),
    answer=st.sampled_from(["arm", "distribution"]),
    reasoning=st.sampled_from(["off", "brief", "free"]),
    rewards=st.sampled_from(["raw", "scaled"]),
)
seeds = st.integers(0, 2**32 - 1)


@st.composite
def drawn(draw: st.DrawFn) -> Scenario:
    """Any scenario that the switches and rules allow."""
    rules, wording = draw(all_rules), draw(all_wordings)
    if wording.answer == "distribution":
        rules = replace(rules, feedback="full")
    if wording.rewards == "scaled" and not np.isfinite(rules.reward_range).all():
        with pytest.raises(ConfigError, match="which has no scale"):
            draw_scenario(rules, "train", 0, wording)
        wording = wording.model_copy(update={"rewards": "raw"})
    return draw_scenario(rules, draw(all_contexts), draw(seeds), wording)


def by_hand(rules: Rules, **switches: object) -> Scenario:
    """Arms 0, 1, 2 are K, B, T, called red, blue, green; listed T, K, B."""
    wording = Wording.model_validate(switches)
    return Scenario(
        contexts()["buttons"], wording, rules, ("K", "B", "T"), (2, 0, 1), ("red", "blue", "green")
    )


def past(rules: Rules, num_rounds: int, seed: int) -> RowHistory:
    """A row's past, in which arms were played; rewards within the range where it has bounds."""
    generator = np.random.default_rng(seed)
    arms = generator.integers(rules.num_arms, size=num_rounds)
    low, high = (
        bound if np.isfinite(bound) else side
        for bound, side in zip(rules.reward_range, (-9.0, 9.0), strict=True)
    )
    shape = (num_rounds, rules.num_arms) if rules.feedback == "full" else (num_rounds,)
    return RowHistory.of_arms(rules, arms, generator.uniform(low, high, size=shape))


def same(one: Decided, other: Decided) -> bool:
    return one[0] == other[0] and np.array_equal(np.array(one[1]), np.array(other[1]))


def test_the_contexts_are_many_and_the_groups_share_no_domain() -> None:
    known = contexts()
    domains = {group: {c.domain for c in context_group(group)} for group in ("train", "held_out")}
    assert len(known) >= 36
    assert len(domains["train"] | domains["held_out"]) >= 14
    assert not domains["train"] & domains["held_out"]
    assert 0.25 <= len(context_group("held_out")) / len(known) <= 0.4
    assert set(context_group("all")) == set(context_group("train")) | set(context_group("held_out"))
    assert {"buttons", "adverts", "clothes", "videos"} <= {c.name for c in context_group("train")}
    for part in ("situation", "full", "bandit", "act"):
        assert len({getattr(context, part) for context in known.values()}) == len(known), part


@pytest.mark.parametrize("context", contexts().values(), ids=contexts())
def test_a_context_can_be_told_apart_and_is_true_whether_means_rest_or_move(context: Context) -> None:
    assert context_group(context.name) == (context,)
    assert len(context.names) >= 8
    assert all(re.fullmatch("[a-z]+([ '-][a-z]+)*", words) for words in (context.arm, *context.names))
    assert context.arm != context.arms
    assert " one " in f" {context.act} "
    taken = {"option", "options", "letter", "letters", "unit", "units", "weight", "digit", "choice", "choose"}
    assert not taken & {context.arm, context.arms, context.unit, context.units, *context.names}
    words = f"{context.situation} {context.full} {context.bandit}".lower()
    assert not re.search(
        r"always|fixed|constant|probability|over time|same chance|best", words.replace("not always", "")
    )


def test_groups_are_known_by_name() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'buttons'"):
        context_group("button")
    with pytest.raises(UnknownNameError, match="'held_out'"):
        draw_scenario(Rules("bandit", 5, 2), "heldout", 0, Wording())


def test_a_wrong_context_says_what_is_wrong() -> None:
    data = contexts()["buttons"].model_dump()
    mistakes: list[tuple[dict[str, object], str]] = [
        ({"names": ["red"] * 8}, "found red more than once"),
        ({"full": "no stop"}, "full: found 'no stop'; expected a sentence"),
        ({"arm": "two\nlines"}, r"arm: found 'two\\nlines' with the character U\+000A"),
        ({"unit": "x" * 61}, "unit: found .* of 61 characters; expected 1 to 60"),
        ({"colour": "red"}, "Unknown key 'colour'"),
    ]
    for wrong, message in mistakes:
        with pytest.raises(ConfigError, match=message):
            read(Context, data | wrong, "contexts/games.yaml: buttons")


TERSE = """\
20 rounds. Each round press one button:
T green
K red
B blue
Then see its points, 0 to 1. Most points win. Reply with one letter."""

FULL = (
    "You stand before a machine with buttons of several colours. There are 20 rounds. In every round "
    "you press one button. The buttons are T (green), K (red) and B (blue). After the round you see "
    "only what the button that you pressed pays, which can differ from press to press. The payout is 0 "
    "to 1 points. Your aim is to collect as many points as you can over all rounds. Answer with the "
    "letter of one button and nothing else."
)


def test_openings_by_hand() -> None:
    bandit, full = Rules("bandit", 20, 3), Rules("full", 20, 3, (-INF, INF))
    assert by_hand(bandit).opening() == TERSE
    assert by_hand(bandit, style="full").opening() == FULL
    assert by_hand(bandit, hint=True).opening() != TERSE
    mixed = by_hand(full, answer="distribution", reasoning="brief", rewards="scaled").opening()
    assert "Then see the points of all. Most points win. Think" in mixed
    assert 'end with a line "Choice:" and "T=? K=? B=?".' in mixed
    assert by_hand(replace(full, reward_range=(0.0, INF))).opening().count("all, at least 0.") == 1
    assert by_hand(replace(bandit, reward_range=(5.0, 7.0)), rewards="scaled").opening() == TERSE.replace(
        "0 to 1", "0 to 10"
    )


ARMS, PLAYED = np.array([0, 2, 0]), np.eye(3)[[0, 2, 0]]
SEEN = np.array([[1, 0, 0.5], [0, 0, 0.25], [0.5, 0, 0.75]])
PAID = np.array([1, 0.25, 0.5])


@pytest.mark.parametrize(
    ("switches", "feedback", "told"),
    [
        ({}, "bandit", "0.5"),
        ({"rewards": "scaled"}, "bandit", "5"),
        ({"history": "summary"}, "bandit", "0.5\nT0.25x1 K0.75x2 B?"),
        ({}, "full", "T0.75K0.5B0"),
        ({"history": "summary"}, "full", "T0.75K0.5B0\nT0.5K0.5B0 x3"),
        ({"history": "guided"}, "bandit", "0.5\nT0.25x1+1.48 K0.75x2+1.05 B?"),
        ({"history": "guided"}, "full", "T0.75K0.5B0\nT0.5K0.5B0 x3"),
        ({"history": "ranked"}, "full", "T0.75K0.5B0"),  # totals 1.5, 1.5 and 0: a tie stays as it was
        ({"history": "ranked"}, "bandit", "0.5"),
        (
            {"style": "full", "history": "summary"},
            "bandit",
            "You chose K (red), which brought 0.5 points. Averages so far: T 0.25 points over 1 trial; K "
            "0.75 points over 2 trials; B not tried yet. Round 4 of 9: which button do you choose?",
        ),
        (
            {"style": "full", "rewards": "scaled", "history": "summary", "answer": "distribution"},
            "full",
            "You chose K (red), which brought 5 of 10. In that round the payout of each was: T 7.5 of 10, K "
            "5 of 10, B 0 of 10. Averages so far over 3 rounds: T 5 of 10; K 5 of 10; B 0 of 10. Round 4 of "
            "9: how do you divide your unit?",
        ),
    ],
)
def test_what_is_told_by_hand(switches: dict[str, str], feedback: str, told: str) -> None:
    rules = Rules("full" if feedback == "full" else "bandit", 9, 3)
    row = RowHistory.of_arms(rules, ARMS, SEEN if feedback == "full" else PAID)
    assert by_hand(rules, **switches).prompt(row) == told


def test_ranked_names_the_best_total_first() -> None:
    seen = np.array([[1, 0, 0], [0, 0.5, 0.75]])  # of K, B and T: the totals are 1, 0.5 and 0.75
    rules = Rules("full", 9, 3)
    row = RowHistory.of_arms(rules, ARMS[:2], seen)
    told = {style: by_hand(rules, style=style, history="ranked").prompt(row) for style in ("terse", "full")}
    assert told["terse"] == "K0T0.75B0.5"  # not by the last round, in which T paid most
    assert "of each was: K 0 points, T 0.75 points, B 0.5 points." in told["full"]
    ranked = by_hand(Rules("full", 9, 3), history="ranked").opening()
    assert "best total first" in ranked
    for other in (by_hand(Rules("bandit", 9, 3), history="ranked"), by_hand(Rules("full", 9, 3))):
        assert "best total first" not in other.opening()


def test_a_distribution_that_was_played_earned_its_mean() -> None:
    rules, mix = Rules("full", 9, 3), np.array([[0.5, 0.25, 0.25]])
    row = RowHistory(rules, np.array([-1]), SEEN[:1], mix)
    # 0.5 x 1 + 0.25 x 0 + 0.25 x 0.5 = 0.625
    told = by_hand(rules, style="full", answer="distribution").prompt(row)
    assert told.startswith(
        "Your split brought 0.62 points. In that round the payout of each was: T 0.5 points,"
    )
    # one letter was said, so no split is spoken of
    told = by_hand(rules, style="full").prompt(row)
    assert told.startswith(
        "In that round the payout of each was: T 0.5 points, K 1 point, B 0 points. Round 2"
    )


@given(drawn(), st.integers(0, 2**32 - 1), st.data())
@settings(deadline=None, max_examples=300)
def test_every_wording_renders_and_reads_back(
    scenario: Scenario, past_seed: int, data: st.DataObject
) -> None:
    rules, wording = scenario.rules, scenario.wording
    assert len(set(scenario.labels)) == len(set(scenario.names)) == rules.num_arms
    assert sorted(scenario.order) == list(range(rules.num_arms))
    opening = scenario.opening()
    assert str(rules.horizon) in opening
    for label, name in zip(scenario.labels, scenario.names, strict=True):
        assert re.search(rf"\b{label} \(?{name}\b", opening)
    assert not re.search(r"\b(nan|inf|None|True|False)\b|[{}]|  ", opening)

    num_rounds = data.draw(st.integers(0, rules.horizon - 1))
    told = scenario.prompt(past(rules, num_rounds, past_seed))
    assert told == told.strip() != ""
    assert not re.search(r"nan|inf|None|\de[-+]?\d|-0(?![.\d])|[{}]|  ", told)

    pieces = scenario.answer()
    choices = [data.draw(st.sampled_from(piece)) for piece in pieces if not isinstance(piece, str)]
    assert all(len(choice) == 1 for piece in pieces if not isinstance(piece, str) for choice in piece)
    decided, left = scenario.decision(choices), iter(choices)
    said = "".join(piece if isinstance(piece, str) else next(left) for piece in pieces)
    assert same(
        scenario.parse((f"I think.{scenario.before_answer}" if wording.reasoning != "off" else "") + said),
        decided,
    )
    assert same(scenario.parse(scenario.write(decided)), decided)
    arm, probabilities = decided
    if wording.answer == "arm":
        assert arm is not None
        assert scenario.labels[arm] == said
    else:
        assert probabilities is not None
        assert probabilities.sum() == pytest.approx(1)


@given(all_rules, all_contexts, all_wordings, seeds)
@settings(deadline=None)
def test_words_depend_on_the_seed_only(rules: Rules, contexts: str, wording: Wording, seed: int) -> None:
    wording = wording.model_copy(update={"answer": "arm", "rewards": "raw"})
    scenario = draw_scenario(rules, contexts, seed, wording)
    assert scenario == draw_scenario(rules, contexts, int(np.int64(seed)), wording)
    other = draw_scenario(rules, "adverts", seed, Wording())
    assert (other.labels, other.order) == (scenario.labels, scenario.order)  # and not on the context


@given(drawn(), seeds, st.data())
@settings(deadline=None)
def test_words_say_nothing_of_the_arms_numbers_nor_raw_history_of_earlier_rounds(
    scenario: Scenario, past_seed: int, data: st.DataObject
) -> None:
    rules = replace(scenario.rules, horizon=9)
    row = past(rules, 6, past_seed)
    arms, rewards = row.arms, row.rewards
    to = np.array(data.draw(st.permutations(range(rules.num_arms))))  # the new number of every arm
    old = np.argsort(to)
    scenario = replace(scenario, rules=rules)
    moved = replace(
        scenario,
        labels=tuple(scenario.labels[a] for a in old),
        names=tuple(scenario.names[a] for a in old),
        order=tuple(int(to[a]) for a in scenario.order),
    )
    told = scenario.prompt(row)
    assert moved.opening() == scenario.opening()
    renamed = RowHistory.of_arms(rules, to[arms], rewards[:, old] if rewards.ndim == 2 else rewards)
    assert moved.prompt(renamed) == told
    if scenario.wording.history == "raw" or (scenario.wording.history == "ranked" and rewards.ndim == 1):
        earlier = rewards.copy()
        earlier[:-1] = 7.0
        other = RowHistory(rules, np.r_[arms[1:-1], arms[0], arms[-1]], earlier, row.played)
        assert scenario.prompt(other) == told


def test_letters_order_and_names_are_uniform() -> None:
    rules, count = Rules("bandit", 5, 3), 3_000
    scenarios = [draw_scenario(rules, "buttons", seed, Wording()) for seed in range(count)]
    orders = Counter(scenario.order for scenario in scenarios)
    assert set(orders) == set(itertools.permutations(range(3)))
    for arm in range(3):
        letters = Counter(scenario.labels[arm] for scenario in scenarios)
        names = Counter(scenario.names[arm] for scenario in scenarios)
        assert (len(letters), len(names)) == (26, 12)
        assert min(chisquare(list(tally.values())).pvalue for tally in (letters, names, orders)) > 1e-4
    drawn = [draw_scenario(Rules("full", 5, 2), "train", seed, Wording()) for seed in range(count)]
    met = Counter(scenario.context.name for scenario in drawn)
    assert set(met) == {context.name for context in context_group("train")}
    assert chisquare(list(met.values())).pvalue > 1e-4


def test_more_arms_than_names_or_letters() -> None:
    names = draw_scenario(Rules("full", 5, 26), "chests", 0, Wording()).names  # which has 10 names
    assert set(names) == {*contexts()["chests"].names, *(f"option {n}" for n in range(11, 27))}
    with pytest.raises(ConfigError, match="num_arms 27; expected at most 26"):
        draw_scenario(Rules("full", 5, 27), "train", 0, Wording())


def test_a_distribution_needs_full_information() -> None:
    with pytest.raises(ConfigError, match=r"wording\.answer distribution with feedback bandit.*to arm"):
        draw_scenario(Rules("bandit", 5, 2), "train", 0, Wording(answer="distribution"))


def test_told_refuses_what_is_no_past_of_these_rules() -> None:
    rules = Rules("bandit", 3, 3)
    for other in (rules, replace(rules, horizon=9)):
        with pytest.raises(ShapeError, match="expected one of fewer than 3 rounds under"):
            by_hand(rules).prompt(RowHistory.of_arms(other, ARMS, PAID))
    for arms, rewards, played in [
        (ARMS[:2], SEEN[:2], PLAYED[:2]),
        (ARMS[:1], PAID[:1], PLAYED),
        (np.r_[ARMS, 0], np.r_[PAID, 0], PLAYED[[0, 1, 2, 0]]),
    ]:
        with pytest.raises(ShapeError, match="of at most 3 rounds"):
            RowHistory(rules, arms, rewards, played)


def test_told_takes_what_histories_hold() -> None:
    histories = Histories(Rules("bandit", 3, 3), 1)
    assert by_hand(histories.rules).prompt(histories.row(0)) == "Choose."
    histories.append(Decisions(np.array([2])), np.array([0.25]))
    assert by_hand(histories.rules).prompt(histories.row(0)) == "0.25"


READ = [
    ("K", 0), (" K\n", 0), ("K.", 0), ("**K**", 0), ("**K.**", 0), ("`T`", 2), ('"B"', 1),
]  # fmt: skip
REFUSED = [
    "", " ", "k", "A", "KB", "K B", "K or B", "K, B", "I choose K", "K is best", "Choice: K", "K\nB",
    "K..", "(K)", "K=1",
    "***K***", "Ｋ", "К", "**", '""', "red", "1", "not K", "\x00K", "**K*",
]  # fmt: skip


@pytest.mark.parametrize(("said", "arm"), READ)
def test_a_bare_letter_is_read(said: str, arm: int) -> None:
    assert by_hand(Rules("bandit", 9, 3)).parse(said) == (arm, None)


@pytest.mark.parametrize("said", REFUSED)
def test_anything_but_one_bare_letter_is_refused(said: str) -> None:
    with pytest.raises(ParseError, match=r"expected exactly one of K, B, T"):
        by_hand(Rules("bandit", 9, 3)).parse(said)


@pytest.mark.parametrize(
    "said",
    [
        "Choice: T", "B is bad.\nChoice: T", "B was 1, K 0\n\n**Choice: T**\n", "**Choice:** T.",
        "Choice: **T**",
        "Choice:T", "My choice is hard.\nChoice: T.", "K is bad. Choice: T", "**Choice: T",
        "choice: T", "CHOICE : T", '**Choice**:\n\n"T".', "Choice:** T",
        "<think>Choice: K</think>\nChoice: T", "Choice: K</think> _Choice:_ T",
    ],
)  # fmt: skip
def test_after_reasoning_what_follows_the_mark_is_read(said: str) -> None:
    assert by_hand(Rules("bandit", 9, 3), reasoning="brief").parse(said) == (2, None)


@pytest.mark.parametrize(
    "said",
    [
        "", "T", "Choice:", "Choice: ", "Choice: t", "Choice: A", "Choice: T or K",
        "Choice: T\nChoice: K", "Choices: T", "myChoice: T", "Choice\n: T",
        "Choice: T\nChoice: T", "Choice: T\nbecause it is good",
        "Not choice: K but\nChoice: T", "Choice: *T* Choice: *T*",
        "Choice: not T", "Choice: T Choice: T", "<think>Choice: T",
        "</think> <think>Choice: T", "Choice: T</think>",
    ],
)  # fmt: skip
def test_after_reasoning_anything_ambiguous_is_refused(said: str) -> None:
    with pytest.raises(ParseError, match="expected"):
        by_hand(Rules("bandit", 9, 3), reasoning="free").parse(said)


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("T=1 K=2 B=1", [0.5, 0.25, 0.25]),
        ("K=9, B=0, T=0", [1, 0, 0]),
        ("**T=4 K=0 B=4.**", [0, 0.5, 0.5]),
        ("T=0 K=0 B=0", [1 / 3, 1 / 3, 1 / 3]),
        ("T=1,K=2,B=1", [0.5, 0.25, 0.25]),
    ],
)
def test_weights_are_read(said: str, expected: list[float]) -> None:
    arm, probabilities = by_hand(Rules("full", 9, 3), answer="distribution").parse(said)
    assert arm is None
    assert probabilities is not None
    assert probabilities.tolist() == expected


@pytest.mark.parametrize(
    "said",
    [
        "", "T", "T=1", "T=1 K=2", "T=1 K=2 B=10", "T=1 K=2 B=0.5", "T=1 K=2 B=-1", "T=1 K=2 B=1 T=1",
        "T=1 K=2 B=1 A=1",
        "T=1 K=2 B=?", "T = 1 K = 2 B = 1", "T=1 K=2 B=1 or so", "T=1 K=2 b=1", "T=1; K=2; B=1",
        "T=1 K=2 B=٣", "T=1K=2B=1",
        "T=1 ,, K=2 B=1", "T=1\nK=2\nB=1",
    ],
)  # fmt: skip
def test_wrong_weights_are_refused(said: str) -> None:
    with pytest.raises(ParseError, match=r"expected T=\? K=\? B=\? with a digit"):
        by_hand(Rules("full", 9, 3), answer="distribution").parse(said)


ADDED = [
    " ",
    ".",
    "**",
    "*",
    "`",
    '"',
    "K",
    "b",
    "\n",
    ",",
    "?",
    "=",
    "0",
    "B=1 ",
    " or ",
    "Choice: ",
    "I think.\n",
]


@pytest.mark.parametrize(
    ("reasoning", "label"),
    [
        ("K paid 1. T is better.", "T"),
        ("K or T? Choose: T (blue), then.", "T"),
        ("T is best.\nLet us see", "T"),
        ("T is better than K", None),
        ("**K**", "K"),
        ("_K_; all the rest is talk", "K"),
        ("t and k, T-shirts, KT", None),
        ("", None),
        ("I pick it", None),
        ("K. I think", None),
        ("K? Option I.", "I"),
        ("K. I'd say so", None),
        ("<think>\nK\n</think>\n", "K"),
    ],
)
def test_the_label_that_reasoning_names_last(reasoning: str, label: str | None) -> None:
    assert named_last(reasoning, ["K", "T", "I"]) == label


MARK = re.compile(r'(?<![^\W_])choice[*_`"]*[ \t]*:', re.IGNORECASE)
ANSWERS = {
    ("arm", "off"): ["K", "**T**"],
    ("arm", "free"): ["Choice: K", "B is bad.\nChoice: T", "**Choice:** B"],
    ("distribution", "off"): ["T=1 K=2 B=1", "B=0, T=0, K=0"],
    ("distribution", "free"): ["T first.\nChoice: T=9 K=0 B=3"],
}


@st.composite
def near_answers(draw: st.DrawFn, right: list[str]) -> str:
    """A right answer with up to three bits of text put in, or any text at all."""
    said = draw(st.sampled_from(right))
    for bit in draw(st.lists(st.sampled_from(ADDED), max_size=3)):
        place = draw(st.integers(0, len(said)) | st.sampled_from([0, len(said)]))
        said = said[:place] + bit + said[place:]
    return draw(st.one_of(st.just(said), st.just(said), st.text()))


@pytest.mark.parametrize(("answer", "reasoning"), ANSWERS)
@given(data=st.data())
@settings(deadline=None, max_examples=300)
def test_what_is_read_holds_exactly_that_answer(answer: str, reasoning: str, data: st.DataObject) -> None:
    said = data.draw(near_answers(ANSWERS[answer, reasoning]))
    scenario = by_hand(Rules("full", 9, 3), answer=answer, reasoning=reasoning)
    try:
        decided = scenario.parse(said)
    except ParseError:
        return
    kept = said if reasoning == "off" else re.split(MARK, said)[1]
    bare = re.sub(r'[*_`".,\s]', "", kept)
    written = scenario.write(decided).removeprefix("Choice: ")
    if answer == "arm":
        assert bare == written
    else:
        found = dict(re.findall("([KBT])=([0-9])", kept))
        assert len(bare) == 9
        assert len(found) == 3
        total = sum(map(int, found.values()))
        shares = [int(found[label]) / total if total else 1 / 3 for label in "KBT"]
        assert decided[1] is not None
        assert decided[1].tolist() == shares


def test_decisions_are_written_with_the_smallest_digits() -> None:
    scenario = by_hand(Rules("full", 9, 3), answer="distribution", reasoning="off")
    for probabilities, said in [
        ([0.5, 0.25, 0.25], "T=1 K=2 B=1"),
        ([0.0, 1.0, 0.0], "T=0 K=0 B=1"),
        ([1 / 3, 1 / 3, 1 / 3], "T=1 K=1 B=1"),
        ([0.9, 0.07, 0.03], "T=0 K=9 B=1"),  # the nearest
    ]:
        assert scenario.write((None, np.array(probabilities))) == said
    with pytest.raises(ShapeError, match="expected one that names a distribution"):
        scenario.write((1, None))
    assert by_hand(Rules("full", 9, 3), reasoning="free").write((1, None)) == "Choice: B"


def test_choices_outside_the_grammar_are_refused() -> None:
    for choices in ([], ["A"], ["K", "B"], ["k"]):
        with pytest.raises(ParseError, match="expected one of each"):
            by_hand(Rules("bandit", 9, 3)).decision(choices)


@pytest.mark.parametrize(
    ("reward", "reward_range", "scaled", "written"),
    [
        (1.0, (0, 1), False, "1"), (0.0, (0, 1), False, "0"), (-0.0, (0, 1), False, "0"), (0.734,
        (0, 1), False, "0.73"),
        (7.345, (0, 10), False, "7.3"), (73.4, (0, 100), False, "73"), (0.734, (0, 1), True, "7.3"),
        (5.5, (5, 6), True, "5"), (0.0004, (0, 0.001), False, "0.0004"), (-0.001, (-1, 1), False, "0"),
        (12.345, (-INF, INF), False, "12.3"), (0.5234, (-INF, INF), False, "0.52"), (-0.05234,
        (-INF, INF), False, "-0.052"),
        (1e-9, (-INF, INF), False, "0"), (-1e-9, (-INF, INF), False, "0"), (1234567.8,
        (0, INF), False, "1234568"),
        (1e21, (-INF, INF), False, "1000000000000000000000"), (100.0, (0, INF), False, "100"),
    ],
)  # fmt: skip
def test_rewards_are_written_by_hand(
    reward: float, reward_range: tuple[float, float], scaled: bool, written: str
) -> None:
    assert write_reward(reward, Rules("bandit", 5, 2, reward_range), scaled) == written


@given(st.floats(-1e6, 1e6), st.floats(1e-6, 1e6), st.floats(0, 1))
def test_a_written_reward_is_within_half_a_hundredth_of_the_range(
    low: float, width: float, share: float
) -> None:
    rules = Rules("bandit", 5, 2, (low, low + width))
    reward = low + share * ((low + width) - low)
    for scaled, exact, step in [(False, reward, width / 100), (True, 10 * share, 0.1)]:
        written = write_reward(reward, rules, scaled)
        assert NUMBER.fullmatch(written)
        assert written != "-0"
        assert abs(float(written) - exact) <= step / 2 + 1e-3 * step + 1e-9 * (1 + abs(low)) / width * 10


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_an_unbounded_reward_keeps_two_digits(reward: float) -> None:
    written = write_reward(reward, Rules("bandit", 5, 2, (-INF, INF)), False)
    assert NUMBER.fullmatch(written)
    assert written != "-0"
    assert abs(float(written) - reward) <= max(0.051 * abs(reward), 5.1e-7)


def test_ranges_are_written_by_hand() -> None:
    for reward_range, scaled, written in [
        ((0, 1), False, "0 to 1"), ((-0.5, 2), False, "-0.5 to 2"), ((0, 1), True, "0 to 10"),
        ((0, INF), False, "at least 0"),
        ((-INF, 5), False, "at most 5"), ((-INF, INF), False, ""),
    ]:  # fmt: skip
        assert write_range(Rules("bandit", 5, 2, reward_range), scaled) == written
