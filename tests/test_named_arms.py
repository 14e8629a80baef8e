"""Named arms, and contexts of one's own: from a suite's file to what is told, recorded and shown."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from rmft.credit import TopKRegret, credit
from rmft.errors import ConfigError, RmftError, ShapeError
from rmft.evaluation.comparing import fingerprint
from rmft.evaluation.conversations import KeptConversations
from rmft.policies.baselines.catalogue import make_baseline
from rmft.problems.suites import Suite, suite_from
from rmft.records.arrays import checked, from_arrays, to_arrays
from rmft.records.batch import RecordedBatch
from rmft.regret import round_regret
from rmft.report.conversation import conversation
from rmft.report.trajectories import Shelf
from rmft.rollout import rollout
from rmft.scenarios.contexts import as_text, context_group
from rmft.scenarios.scenario import initials, scenarios_of
from rmft.scenarios.wording import Wording
from rmft.streams import Streams, generator
from rmft.types import Histories, Rules, Words

BRANDS = ("Sunshine", "Crème brûlée", "餅乾")
BAKERY = {
    "situation": "Вы продаёте печенье.",
    "arm": "печенье",
    "arms": "печенья",
    "unit": "рубль",
    "units": "рубли",
    "descriptions": {"餅乾": "from Taipei"},
}
LOG = [[0.0, 1.0, 2.0]] * 6


def suite(**changes: object) -> Suite:
    setting = {
        "name": "shop", "feedback": "bandit", "horizon": 4, "num_arms": 3, "arms": list(BRANDS),
        "contexts": {"bakery": BAKERY}, "reward_process": {"kind": "logged", "rewards": LOG},
    }  # fmt: skip
    return suite_from({"name": "mine", "title": "Mine", "train": {"settings": [setting | changes]}}, "mine")


def test_letters_can_be_those_of_the_names() -> None:
    (batch,) = suite().draw("train", 8)
    wording = Wording(labels="initials")
    for scenario in scenarios_of(batch.setting.rules, batch.words, wording):
        assert scenario.labels == ("S", "C", "A")  # no letter that can be told is in 餅乾
    assert initials(["Star", "Sun", "stars", "Str", "Tr"]) == ["S", "U", "T", "R", "A"]
    (anonymous,) = suite(arms="anonymous").draw("train", 8)
    drawn = [scenarios_of(each.setting.rules, each.words, wording) for each in (anonymous, anonymous)]
    assert len({scenario.labels for scenario in drawn[0]}) == 8


def test_names_stay_with_their_arms_whatever_letters_they_have() -> None:
    (batch,) = suite().draw("train", 8)
    assert batch.words.names is not None
    assert batch.words.names.tolist() == [list(BRANDS)] * 8
    assert (batch.table.rewards == [0, 1, 2]).all()
    scenarios = scenarios_of(batch.setting.rules, batch.words, Wording(style="full"))
    assert len({scenario.labels for scenario in scenarios}) == 8
    for scenario in scenarios:
        assert scenario.names == BRANDS
        for label, name in zip(scenario.labels, BRANDS, strict=True):
            about = f"{name}: from Taipei" if name == "餅乾" else name
            assert f"{label} ({about})" in scenario.opening()
        assert scenario.opening().startswith(
            "Вы продаёте печенье. There are 4 rounds. In every round you choose"
        )
    anonymous = suite(arms="anonymous").draw("train", 8)[0]
    assert anonymous.words.names is None
    assert len({tuple(table[0]) for table in anonymous.table.rewards}) > 1  # arms change places


def test_a_suite_holds_its_words_wherever_it_goes(tmp_path: Path) -> None:
    (tmp_path / "words.yaml").write_text(json.dumps({"contexts": {"bakery": BAKERY}}), "utf-8")
    data = {"name": "mine", "title": "Mine", "train": {"settings": [{
        "name": "shop", "feedback": "bandit", "horizon": 4, "num_arms": 3, "contexts": "./words.yaml",
        "reward_process": {"kind": "bernoulli"},
    }]}}  # fmt: skip
    read = suite_from(data, "mine", str(tmp_path))
    (tmp_path / "words.yaml").unlink()
    again = suite_from(json.loads(json.dumps(read.model_dump(mode="json"))), "a run's", "elsewhere")
    assert again == read
    words = again.draw("train", 2)[0].words
    (context,) = context_group(words.contexts)
    assert (context.situation, context.act, context.reward) == (
        BAKERY["situation"],
        "choose one печенье",
        "рубль",
    )
    assert as_text([context]) == words.contexts
    (one, _) = scenarios_of(Rules("bandit", 4, 3), words, Wording())
    assert set(one.names) == {"option 1", "option 2", "option 3"}  # it names none


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"arms": ["a", "b"]}, r"found 2 names of arms \(a, b\); expected one for each of num_arms 3"),
        ({"arms": ["a", "a", "b"]}, "found a more than once"),
        ({"arms": ["yes", True, "no"]}, r'found True; expected .* names, in quotes where YAML .*"2024"'),
        ({"arms": "nmaed"}, "found 'nmaed'; expected anonymous, named"),
        ({"arms": ["a", "b\u202e", "c"]}, r"found 'b\\u202e' with the character U\+202E"),
        ({"arms": "named"}, "the reward process names none; expected a log whose columns have names"),
        ({"reward_process": {"kind": "logged", "rewards": LOG, "shuffle_arms": True}}, "leave it out"),
        ({"contexts": "adverst"}, "Did you mean 'adverts'"),
        ({"contexts": {"bakery": {"arms": "x"}}}, "contexts: bakery: .*this key is missing; add it"),
        ({"contexts": {"bakery": "x"}}, "contexts: "),
        ({"contexts": []}, "found list; expected 1 to 1000 contexts by name"),
        ({"contexts": "nowhere.yaml"}, "nowhere.yaml: these contexts could not be read"),
    ],
)  # fmt: skip
def test_wrong_names_and_words_get_one_message(changes: dict[str, object], message: str) -> None:
    with pytest.raises(RmftError, match=message):
        suite(**changes)


def test_names_are_recorded_and_shown_and_part_of_a_problem() -> None:
    (batch,) = suite().draw("train", 2)
    table, words = batch.table.repeat(2), batch.words.repeat(2)
    player = make_baseline("uniform", table)
    played = rollout(player, batch.setting.play(table), Streams.at(0, [(i,) for i in range(4)]), words)
    regret, group = round_regret(played, "pseudo"), np.repeat(batch.indices, 2)
    learned = credit(played, regret, group, TopKRegret(num_selected=1), generator(0), 1.0)
    arrays = to_arrays([RecordedBatch("shop", "pseudo", learned, np.arange(4) % 2, regret)])
    again = from_arrays("shop", *checked("shop", arrays)).learned.trajectories.histories.words
    assert again.names is not None
    assert again.names.tolist() == words.names.tolist() if words.names is not None else False
    assert (again.contexts, again.seeds.tolist()) == (words.contexts, words.seeds.tolist())
    kept = KeptConversations()
    kept("best", batch, np.arange(2), np.zeros(2, dtype=np.int64), played.rows(np.array([0, 2])))
    shown = conversation(Shelf("x", "x", "mine", None, False, [], []), kept.lines[0])
    assert shown["options"] == list(BRANDS)
    renamed = replace(batch, words=replace(batch.words, names=batch.words.names[:, ::-1]))  # type: ignore[index]
    unnamed = replace(batch, words=replace(batch.words, names=None))
    assert len({fingerprint([each]) for each in (batch, renamed, unnamed)}) == 3


def test_words_are_cut_joined_and_refused_with_their_names() -> None:
    names = np.array([["a", "b"], ["c", "dd"], ["e", "f"]])
    words = Words("train", np.arange(3), names=names)
    assert Words.concatenate([words.rows(slice(1)), words.rows(slice(1, 3)).unspoken()]).names is not None
    assert words.repeat(2).names[3].tolist() == ["c", "dd"]  # type: ignore[index]
    assert Histories(Rules("bandit", 3, 2), 3, words).rows(np.array([2])).words.names.tolist() == [["e", "f"]]  # type: ignore[union-attr]
    with pytest.raises(ShapeError, match="Found 2 names for 3 arms"):
        Histories(Rules("bandit", 3, 3), 3, words)
    with pytest.raises(ShapeError, match=r"expected \(2, num_arms\)"):
        Words("train", np.arange(2), names=names)
    with pytest.raises(ConfigError, match="no JSON list of contexts"):
        context_group("[nonsense")
