"""Answers as JSON: the schema allows exactly the legal decisions, and nothing else is read as one."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rmft.scenarios.parsing import ParseError
from rmft.scenarios.scenario import Scenario
from rmft.types import Rules
from test_scenarios import by_hand, drawn, same

BANDIT = Rules("bandit", 5, 3)
FULL = Rules("full", 5, 3)


def test_an_arm_by_hand() -> None:
    scenario = by_hand(BANDIT)  # arms 0, 1, 2 are K, B, T
    assert scenario.schema()["properties"] == {"choice": {"type": "string", "enum": ["K", "B", "T"]}}
    assert scenario.parse_object(' {"choice":\n"T"}') == (2, None)
    assert json.loads(scenario.schema_example.removeprefix("Write it as JSON: "))["choice"] in "KBT"


def test_a_distribution_by_hand() -> None:
    scenario = by_hand(FULL, answer="distribution")
    assert list(scenario.schema()["properties"]) == ["T", "K", "B"]  # as they are listed
    arm, shares = scenario.parse_object('{"K": 1, "B": 0, "T": 3}')
    assert arm is None
    assert shares is not None
    assert shares.tolist() == [0.25, 0, 0.75]


@pytest.mark.parametrize(
    "said",
    [
        "K",
        '"K"',
        "{}",
        '{"choice": "X"}',
        '{"choice": "k"}',
        '{"choice": ["K"]}',
        '{"choice": "K", "choice": "B"}',
        '{"choice": "K", "why": "x"}',
        '{"choice": {"choice": "K"}}',
        '[{"choice": "K"}]',
        '{"choice": "K"} {"choice": "K"}',
        '```json\n{"choice": "K"}\n```',
        "[" * 100_000,
    ],
)
def test_anything_else_than_one_arm_is_refused(said: str) -> None:
    with pytest.raises(ParseError):
        by_hand(BANDIT).parse_object(said)


@pytest.mark.parametrize("digit", ["1.0", "true", "10", "-1", '"1"', "null", "1e0"])
def test_a_weight_is_a_digit(digit: str) -> None:
    with pytest.raises(ParseError):
        by_hand(FULL, answer="distribution").parse_object(f'{{"K": {digit}, "B": 0, "T": 3}}')


@given(drawn(), st.data())
@settings(max_examples=100, deadline=None)
def test_every_object_of_the_schema_is_read_as_the_same_plain_answer(
    scenario: Scenario, data: st.DataObject
) -> None:
    schema = scenario.schema()
    made = {name: data.draw(st.sampled_from(one["enum"])) for name, one in schema["properties"].items()}
    order = data.draw(st.permutations(list(made)))
    decided = scenario.parse_object(json.dumps({name: made[name] for name in order}))
    assert same(decided, scenario.decision([str(value) for value in made.values()]))
    assert same(scenario.parse(scenario.write(decided)), decided)


@given(st.text(max_size=60) | st.recursive(st.none() | st.text("KBT", max_size=2), st.lists).map(json.dumps))
@settings(max_examples=200, deadline=None)
def test_no_text_crashes_it(said: str) -> None:
    try:
        arm, _ = by_hand(BANDIT).parse_object(said)
    except ParseError:
        return
    assert json.loads(said) == {"choice": "KBT"[arm or 0]}
