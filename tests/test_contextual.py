"""Contextual bandits: what is shown before a decision, where it comes from, and what is made of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml
from scipy.special import expit

import rmft
from rmft.errors import RmftError, ShapeError
from rmft.evaluation.off_policy import off_policy
from rmft.policies.baselines.catalogue import make_baseline
from rmft.policies.numeric import NumericPolicy, load_network
from rmft.problems.environment import TableEnvironment
from rmft.problems.kinds import resolve_process
from rmft.problems.setting import Setting
from rmft.problems.suites import load_suite, suite_from
from rmft.problems.tasks import Task
from rmft.reading import read
from rmft.records.files import read_record
from rmft.regret import regret
from rmft.rollout import rollout
from rmft.scenarios.contexts import as_text, own_contexts
from rmft.scenarios.scenario import draw_scenario, scenarios_of
from rmft.scenarios.wording import Wording
from rmft.streams import Streams, generator
from rmft.task_check import describe_task
from rmft.types import (
    Decisions,
    FloatArray,
    Histories,
    Observation,
    RewardTable,
    RowHistory,
    Rules,
    Shown,
)

RULES = Rules("bandit", 3, 2, shown=Shown(numbers=("age",), features=("price", "size"), text_length=9))


def observation(*axes: int) -> Observation:
    draw = np.random.default_rng(0)
    texts = np.full(axes, "it rains")
    return Observation(draw.random((*axes, 1)), draw.random((*axes, 2, 2)), texts)


def test_a_table_shows_each_round_before_its_decision() -> None:
    shown = observation(4, 3)
    table = RewardTable(np.zeros((4, 3, 2)), np.zeros((4, 3, 2)), shown)
    seen: list[Histories] = []

    class First:
        name, max_concurrency = "first", 1

        def rows_at_once(self, rules: Rules) -> int:  # noqa: ARG002
            return 4

        def decide(self, histories: Histories, streams: Streams) -> Decisions:  # noqa: ARG002
            seen.append(histories.rows(slice(None)))
            return Decisions(np.zeros(4, dtype=np.int64))

    played = rollout(First(), TableEnvironment(RULES, table), Streams.at(0, [(row,) for row in range(4)]))
    for index, histories in enumerate(seen):
        assert histories.observations is not None
        assert histories.features is not None
        assert histories.texts is not None
        np.testing.assert_array_equal(histories.observations, shown.numbers[:, : index + 1])  # type: ignore[index]
        np.testing.assert_array_equal(histories.features, shown.features[:, : index + 1])  # type: ignore[index]
        assert histories.texts.shape == (4, index + 1)
        row = histories.row(2)
        assert row.texts is not None
        assert row.texts[-1] == "it rains"
    whole = played.histories
    again = Histories.concatenate([whole.rows(slice(0, 1)), whole.rows(slice(1, None))])
    assert again.round(1).features is not None
    np.testing.assert_array_equal(again.round(1).features, whole.round(1).features)
    both = RewardTable.concatenate([table.rows(slice(0, 2)), table.rows(slice(2, None))])
    np.testing.assert_array_equal(both.repeat(2).observations.numbers[::2], shown.numbers)  # type: ignore[union-attr, index]


@pytest.mark.parametrize(
    "shown",
    [
        None,
        Observation(np.zeros((4, 1))),
        Observation(np.zeros((4, 2)), np.zeros((4, 2, 2)), np.full(4, "")),
        Observation(np.zeros((4, 1)), np.zeros((4, 2, 1)), np.full(4, "")),
        Observation(np.zeros((4, 1)), np.zeros((4, 2, 2)), np.full(3, "")),
    ],
)
def test_what_the_rules_do_not_say_is_refused(shown: Observation | None) -> None:
    with pytest.raises(ShapeError):
        Histories(RULES, 4).observe(shown)


def test_a_table_that_shows_something_else_than_its_rules_is_refused() -> None:
    rewards = np.zeros((4, 3, 2))
    with pytest.raises(ShapeError, match="shown"):
        TableEnvironment(RULES, RewardTable(rewards, rewards))
    with pytest.raises(ShapeError, match="one entry per round"):
        RewardTable(rewards, rewards, observation(4, 2))
    with pytest.raises(ShapeError, match="finite"):
        Observation(np.full((4, 1), np.nan))


def numbers_of(table: RewardTable) -> FloatArray:
    assert table.observations is not None
    assert table.observations.numbers is not None
    return table.observations.numbers


def test_expected_rewards_are_those_of_what_is_shown() -> None:
    weights = [[1.0, 0.0], [0.0, 2.0], [-1.0, 1.0]]
    linear = resolve_process({"kind": "linear", "num_numbers": 2, "weights": weights})
    table = linear.draw(generator(0), 2000, 3)
    np.testing.assert_allclose(table.expected_rewards, numbers_of(table) @ np.array(weights).T)
    noise = table.rewards - table.expected_rewards
    assert abs(noise.std() - 0.5) < 0.02
    logistic = resolve_process({"kind": "logistic", "num_numbers": 2, "weights": weights, "bias": 0.5})
    table = logistic.draw(generator(0), 2000, 3)
    np.testing.assert_allclose(table.expected_rewards, expit(0.5 + numbers_of(table) @ np.array(weights).T))
    assert set(np.unique(table.rewards)) == {0, 1}
    np.testing.assert_allclose(table.rewards.mean(axis=0), table.expected_rewards.mean(axis=0), atol=0.05)
    features = resolve_process(
        {"kind": "linear", "num_numbers": 2, "shows": "features", "weights": [[1, -1]]}
    )
    table = features.draw(generator(0), 5, 3)
    assert table.observations is not None
    assert table.observations.features is not None
    np.testing.assert_allclose(table.expected_rewards, table.observations.features @ [1, -1])
    with pytest.raises(RmftError, match="rows of"):
        resolve_process({"kind": "linear", "num_numbers": 2, "weights": [[1.0]]}).draw(generator(0), 5, 3)


@pytest.mark.parametrize("name", ["contextual/linear", "contextual/logistic"])
def test_a_suite_compares_with_the_best_arm_of_each_round(name: str) -> None:
    suite = load_suite(name)
    parts = [suite.draw(part, 30)[0] for part in ("train", "validation", "held_out")]  # type: ignore[arg-type]
    assert len({float(numbers_of(batch.table)[0, 0, 0]) for batch in parts}) == 3
    (batch,) = suite.draw("held_out", 30)
    rules = batch.setting.rules
    assert (rules.horizon, rules.num_arms, len(rules.shown.numbers)) == (100, 5, 5)
    assert batch.setting.regret_kind == "dynamic"
    played = rollout(
        Best(batch.table), batch.setting.play(batch.table), Streams.at(0, [(row,) for row in range(30)])
    )
    np.testing.assert_allclose(regret(played, batch.setting.regret_kind), 0, atol=1e-12)


class Best:
    """Plays the best arm of each round, which it is told."""

    name, max_concurrency = "best", 1

    def __init__(self, table: RewardTable) -> None:
        self.table = table

    def rows_at_once(self, rules: Rules) -> int:  # noqa: ARG002
        return len(self.table.rewards)

    def decide(self, histories: Histories, streams: Streams) -> Decisions:  # noqa: ARG002
        return Decisions(self.table.expected_rewards[:, histories.num_rounds].argmax(axis=1))


TABLE = "petal,colour,kind\n" + "".join(
    f"{number % 7 + 0.5},{['red', 'blue'][number % 2]},{['rose', 'iris', 'lily'][number % 3]}\n"
    for number in range(60)
)


def a_table(folder: Path, content: str = TABLE, **keys: object) -> dict[str, object]:
    (folder / "plants.csv").write_text(content, "utf-8")
    process = {"kind": "logged", "rewards": str(folder / "plants.csv"), "label": "kind", **keys}
    setting = {
        "name": "plants",
        "feedback": "bandit",
        "horizon": 10,
        "num_arms": 3,
        "reward_process": process,
    }
    return {"name": "plants", "title": "plants", "train": {"settings": [setting]}}


def test_a_classification_table_is_a_bandit(tmp_path: Path) -> None:
    suite = suite_from(a_table(tmp_path) | {"validation": {"num_problems": 9}}, "plants")
    seen = {}
    for part in ("train", "validation", "held_out"):
        (batch,) = suite.draw(part, 9)  # type: ignore[arg-type]
        setting, table = batch.setting, batch.table
        assert setting.regret_kind == "dynamic"
        np.testing.assert_array_equal(table.rewards.sum(axis=2), 1)
        assert setting.shown.numbers == ("petal", "colour blue", "colour red", "constant")
        assert table.observations is not None
        numbers, texts = table.observations.numbers, table.observations.texts
        assert numbers is not None
        assert texts is not None
        np.testing.assert_array_equal(numbers[..., 1] + numbers[..., 2], 1)
        np.testing.assert_array_equal(numbers[..., 3], 1)
        seen[part] = {text for row in texts.tolist() for text in row}
        assert all(text.startswith("petal ") and ", colour " in text for text in seen[part])
        assert max(map(len, seen[part])) <= setting.shown.text_length
    (train,) = suite.draw("train", 200)
    shares = train.table.rewards.mean(axis=(0, 1))
    np.testing.assert_allclose(shares, 1 / 3, atol=0.06)  # anonymous arms change places
    again = suite_from(suite.model_dump(mode="json"), "again")
    np.testing.assert_array_equal(numbers_of(again.draw("train", 1)[0].table), numbers_of(train.table)[:1])


def test_parts_of_a_table_share_no_line_and_names_stay(tmp_path: Path) -> None:
    content = "line,kind\n" + "".join(f"n{n},{'ab'[n % 2]}\n" for n in range(50))
    data = a_table(tmp_path, content, parts={"train": 0.6, "validation": 0.2, "held_out": 0.2})
    data["train"]["settings"][0] |= {"arms": "named", "num_arms": 2}  # type: ignore[index]
    suite = suite_from(data, "lines")
    lines = {}
    for part in ("train", "validation", "held_out"):
        (batch,) = suite.draw(part, 50)  # type: ignore[arg-type]
        assert batch.words.names is not None
        assert batch.words.names[0].tolist() == ["a", "b"]
        assert batch.table.observations is not None
        assert batch.table.observations.numbers is None  # too many words to be numbers
        texts = batch.table.observations.texts
        assert texts is not None
        assert all(len(set(row)) == 10 for row in texts.tolist())
        best = batch.table.rewards.argmax(axis=2)
        assert all(
            int(text.removeprefix("line n")) % 2 == arm
            for text, arm in zip(texts.flat, best.flat, strict=True)
        )
        lines[part] = set(texts.flat)
    assert not lines["train"] & lines["validation"]
    assert not (lines["train"] | lines["validation"]) & lines["held_out"]


def test_a_log_of_rewards_shows_its_columns(tmp_path: Path) -> None:
    rows = [f"u{n // 6},{n},{'sun' if n % 2 else 'rain'},{n % 2},{1 - n % 2}" for n in range(60)]
    (tmp_path / "log.csv").write_text("\n".join(["user,hour,sky,ice,tea", *rows]), "utf-8")
    process = resolve_process(
        {"kind": "logged", "rewards": "log.csv", "group": "user", "context": ["hour", "sky"],
         "columns": ["ice", "tea"], "shuffle_arms": False},
        str(tmp_path),
    )  # fmt: skip
    table = process.draw(generator(0), 6, 2)
    assert table.observations is not None
    assert table.observations.texts is not None
    for text, pays in zip(table.observations.texts, table.rewards, strict=True):
        assert text.endswith("sky sun" if pays[0] else "sky rain")
    hours = [int(text.split(",")[0].removeprefix("hour ")) for text in table.observations.texts]
    assert np.diff(hours).tolist() == [1] * 5
    assert hours[0] % 6 == 0


TRAVEL = """
situation: You advise a traveller, who makes the same journey many times.
option: {one: way, several: ways}
reward: {one: journey, several: journeys}
options: [train, car]
feedback: bandit
horizon: 5
rewards: log.csv
features: {minutes: {car: car_time, train: train_time}, francs: {train: train_price, car: car_price}}
"""


def trained_on(folder: Path, rules: Rules) -> Histories:
    """What a small network saw in the first iteration of a run on the folder's task, as it is recorded."""
    config = {
        "name": "options", "suite": str(folder / "task.yaml"), "iterations": 1,
        "policy": {"width": 8, "num_heads": 1, "num_layers": 1, "num_inputs": rules.shown.num_inputs},
        "rollout": {"num_problems": 2, "num_rollouts": 4}, "validation": {"num_problems": 2},
        "credit": {"kind": "policy_gradient"}, "training": {"objective": {"kind": "policy_gradient"}},
    }  # fmt: skip
    (recorded,) = read_record(rmft.train(config, folder / "run"), 1)
    return recorded.learned.trajectories.histories


@pytest.mark.parametrize(
    "keys", ["context: [sky]\ngroup: user\n", "label: taken\ncontext: []\n", "group: user\n"]
)
def test_a_log_tells_of_every_option(keys: str, tmp_path: Path) -> None:
    lines = ["user,sky,train_time,car_time,train_price,car_price,train,car,taken"]
    for n in range(60):
        slow = n % 2  # the train is, and whoever can takes what is fast
        taken = "car" if slow else "train"
        lines.append(f"u{n // 6},sun,{60 + 30 * slow},75,{n},{2 * n},{1 - slow},{slow},{taken}")
    (tmp_path / "log.csv").write_text("\n".join(lines), "utf-8")
    (tmp_path / "task.yaml").write_text(TRAVEL + keys, "utf-8")
    suite = load_suite(tmp_path)
    (batch,) = suite.draw("train", 40)
    rules, shown = batch.setting.rules, batch.table.observations
    assert shown is not None
    assert shown.features is not None
    assert rules.shown.features == ("minutes", "francs")
    minutes = rules.shown.told(shown.features)[..., 0]
    assert set(np.unique(minutes.round(6))) == {60, 75, 90}
    fast = minutes.argmin(axis=-1)
    np.testing.assert_array_equal(batch.table.rewards.argmax(axis=-1), fast)
    assert "minutes 75, francs" in "\n".join(describe_task(suite, Wording(style="full"), len, "characters"))
    streams = Streams.at(0, [(row,) for row in range(40)])
    played = rollout(make_baseline("linucb"), batch.setting.play(batch.table), streams)
    assert played.histories.features is not None
    again = trained_on(tmp_path, rules)
    assert again.rules == rules
    assert again.features is not None
    assert (again.texts is None) == ("sky" not in keys)
    assert suite_from(suite.model_dump(mode="json"), "a run's") == suite


@pytest.mark.parametrize("many", [False, True])
def test_a_log_tells_of_every_option_in_words(many: bool, tmp_path: Path) -> None:
    """What is in few words is numbers too; a headline of its own in every line is told and no number."""
    kinds = ("rain", "sport")
    lines = ["front_head,back_head,front_length,back_length,front,back"]
    for n in range(60):
        heads = [f"{kind} {n}" if many else kind for kind in (kinds[n % 2], kinds[(n // 2) % 2])]
        lines.append(f"{heads[0]},{heads[1]},{n},{n + 1},{n % 2},{(n // 2) % 2}")
    (tmp_path / "log.csv").write_text("\n".join(lines), "utf-8")
    task = TRAVEL.replace("[train, car]", "[front, back]").partition("features")[0]
    features = {
        "head": {"front": "front_head", "back": "back_head"},
        "words": {"front": "front_length", "back": "back_length"},
    }
    (tmp_path / "task.yaml").write_text(task + yaml.safe_dump({"features": features}), "utf-8")
    suite = load_suite(tmp_path)
    (batch,) = suite.draw("train", 40)
    shown, rules = batch.table.observations, batch.setting.rules
    assert shown is not None
    assert shown.arm_texts is not None
    assert shown.features is not None
    assert shown.texts is None
    assert rules.shown.features == (("words",) if many else ("head rain", "head sport", "words"))
    sport = np.char.startswith(np.array(shown.arm_texts.tolist()), "head sport")
    np.testing.assert_array_equal(batch.table.rewards, sport)
    if not many:
        np.testing.assert_array_equal(rules.shown.told(shown.features)[..., 1], sport)
    histories = Histories(rules, len(batch.indices), batch.words)
    histories.observe(shown.map(lambda array: array[:, 0]))
    (told, *_) = scenarios_of(rules, batch.words, Wording(style="full"))
    text = told.prompt(histories.row(0))
    assert all(f"{told.labels[arm]} {shown.arm_texts[0, 0, arm]}" in text for arm in range(2))
    assert "words" in str(shown.arm_texts[0, 0, 0])
    again = trained_on(tmp_path, rules)
    assert again.arm_texts is not None
    assert again.arm_texts.shape == (8, rules.horizon, 2)
    assert str(again.arm_texts[0, 0, 0]).startswith("head ")
    assert suite_from(suite.model_dump(mode="json"), "a run's") == suite


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"features": {"minutes": {"car": "car_time"}}},
            "minutes: found the columns of car; expected",
        ),
        ({"features": {"minutes": {"car": "car_tim", "train": "train"}}}, "Did you mean 'car_time'"),
        (
            {"features": {"minutes": {"car": "sky", "train": "car_time"}}},
            "numbers and words in the columns of the feature 'minutes'",
        ),
        ({"arms": "anonymous"}, "features of anonymous arms"),
        ({"rewards": {"kind": "bernoulli"}}, "are of a log"),
    ],
)
def test_wrong_features_are_refused(changes: dict[str, object], message: str, tmp_path: Path) -> None:
    rows = [f"sun,{n},{2 * n},{n % 2},{1 - n % 2}" for n in range(30)]
    (tmp_path / "log.csv").write_text("\n".join(["sky,train_time,car_time,train,car", *rows]), "utf-8")
    data = yaml.safe_load(TRAVEL) | {"features": {"minutes": {"car": "car_time", "train": "train_time"}}}
    (tmp_path / "task.yaml").write_text(yaml.safe_dump(data), "utf-8")
    assert load_suite(tmp_path).settings("train")[0].shown.features == ("minutes",)
    (tmp_path / "task.yaml").write_text(yaml.safe_dump(data | changes), "utf-8")
    with pytest.raises(RmftError, match=message):
        load_suite(tmp_path)


@pytest.mark.parametrize(
    ("content", "keys", "message"),
    [
        (TABLE, {"label": "kin"}, "Did you mean 'kind'"),
        (TABLE, {"context": ["petals"]}, "Did you mean 'petal'"),
        (TABLE, {"columns": ["rose", "iris"]}, "the label 'lily', which columns does not name"),
        (TABLE, {"sampled": True, "group": "colour"}, "leave one out"),
        ("".join(TABLE.splitlines(keepends=True)[:15]), {}, "horizon is 10"),
        ("1,2\n3,4\n", {"header": False}, "no header"),
        ("petal,kind\nok\x07,rose\n" + "a,iris\n" * 60, {}, "words on one line"),
        ("petal,kind\n" + "1,rose\n" * 60, {}, "1 labels"),
    ],
)
def test_a_wrong_table_is_refused(
    content: str, keys: dict[str, object], message: str, tmp_path: Path
) -> None:
    with pytest.raises(RmftError, match=message):
        suite_from(a_table(tmp_path, content, **keys), "plants")


def told(style: str, shown: Observation, num_rounds: int = 1) -> tuple[str, str]:
    """The opening, and what is told before the round after `num_rounds`, in which arm 0 paid 1."""
    names = {
        "numbers": ("age", "income") if shown.numbers is not None else (),
        "features": ("price",) if shown.features is not None else (),
        "text_length": 20 if shown.texts is not None else 0,
    }
    rules = Rules("bandit", 3, 2, shown=Shown(**names))  # type: ignore[arg-type]
    scenario = draw_scenario(rules, "train", 1, Wording(style=style))  # type: ignore[arg-type]
    arms = np.zeros(num_rounds, dtype=np.int64)
    row = RowHistory.of_arms(rules, arms, np.ones(num_rounds), shown)
    text = scenario.prompt(row)
    for number, label in enumerate(scenario.labels):
        text = text.replace(f"{label} price", f"ARM{number} price")
    return scenario.opening(), text


def test_what_is_shown_is_told_before_the_decision() -> None:
    numbers = Observation(np.array([[41.0, -0.5], [8, 1234.5]]))
    opening, text = told("full", numbers)
    assert "Before each round you are told something about it" in opening
    assert (
        "Round 2 of 3: age 8, income 1235. Which " in text
        or "Round 2 of 3: age 8, income 1234. Which " in text
    )
    assert "age 41" not in text, "it was told in its own round"
    assert told("full", Observation(numbers.numbers[:1]), 0)[1].startswith(
        "Round 1 of 3: age 41, income -0.5. Which "
    )  # type: ignore[index]
    opening, text = told("terse", numbers)
    assert "What is told before a round may matter." in opening
    assert text.splitlines()[0] == "1"
    assert text.splitlines()[1].startswith("age 8, income 123")
    assert told("terse", Observation(numbers.numbers[:1]), 0)[1] == "age 41, income -0.5"  # type: ignore[index]
    worded = Observation(
        numbers.numbers, np.array([[[1.0], [2.0]], [[3.0], [4.0]]]), np.array(["sun", "It rains!"])
    )
    _, text = told("full", worded)
    assert "age" not in text, "a text says what the numbers say"
    said = text.partition("Round 2 of 3: ")[2].partition(" Which ")[0]
    assert sorted(said.rstrip(".").split("; ")) == ["ARM0 price 3", "ARM1 price 4", "It rains!"]
    plain = draw_scenario(Rules("bandit", 3, 2), "train", 1, Wording(style="full")).opening()
    assert "Before each round" not in plain


def test_contexts_of_ones_own_say_what_is_shown() -> None:
    words = {"arm": "brand", "arms": "brands", "unit": "sale", "units": "sales", "situation": "A shop."}
    own = {"shop": words | {"before": "You see who comes."}}
    rules = Rules("bandit", 3, 2, shown=Shown(("age",)))
    text = as_text(own_contexts(own, "own"))
    assert "You see who comes." in draw_scenario(rules, text, 1, Wording(style="full")).opening()


@pytest.mark.parametrize("kind", ["arm_encoder", "causal_transformer"])
def test_a_network_is_trained_on_what_is_shown(kind: str, tmp_path: Path) -> None:
    data = load_suite("contextual/linear").model_dump(mode="json")
    data["train"]["settings"][0]["horizon"] = 6
    data["validation"]["num_problems"] = data["held_out"]["num_problems"] = 4
    (tmp_path / "short.yaml").write_text(yaml.safe_dump(data), "utf-8")
    config = {
        "name": "shown", "suite": str(tmp_path / "short.yaml"), "iterations": 1,
        "policy": {"kind": kind, "width": 16, "num_layers": 1, "num_inputs": 5},
        "rollout": {"num_problems": 4, "num_rollouts": 4}, "validation": {"num_problems": 4},
        "credit": {"kind": "policy_gradient"}, "training": {"objective": {"kind": "policy_gradient"}},
    }  # fmt: skip
    run = rmft.train(config, tmp_path / "run")
    (recorded,) = read_record(run, 1)
    histories = recorded.learned.trajectories.histories
    (batch,) = load_suite(tmp_path / "short.yaml").draw("train", 4, seed=0, iteration=1)
    assert histories.observations is not None
    expected = np.repeat(numbers_of(batch.table), 4, axis=0)
    np.testing.assert_allclose(histories.observations, expected, rtol=1e-6)
    assert histories.rules == batch.setting.rules
    found = off_policy(recorded, NumericPolicy(load_network(run / "checkpoints" / "000000")[0]))
    assert found.effective_size == pytest.approx(16)  # the policy that was rolled out
    evaluation = rmft.evaluate(run, against=["linucb", "oracle"], num_problems=4)
    assert evaluation.overall["oracle"].measures["regret"].mean == pytest.approx(0, abs=1e-9)
    blind = config | {"policy": {"kind": kind, "width": 16, "num_layers": 1}}
    with pytest.raises(RmftError, match=r"Set policy\.num_inputs: 5"):
        rmft.train(blind, tmp_path / "blind")


TASK = """
situation: Customers come for a drink, at all hours.
option: drink
reward: {one: sale, several: sales}
options: [ice, tea]
feedback: bandit
horizon: 5
rewards: log.csv
before: You see the sky before each visit.
"""


@pytest.mark.parametrize("keys", ["context: [hour, sky]\ngroup: user\n", "label: drink\ncontext: [sky]\n"])
def test_a_task_names_what_is_shown(keys: str, tmp_path: Path) -> None:
    folder = tmp_path / "drinks"
    folder.mkdir()
    rows = [f"u{n // 6},{n},{'sun,1,0,ice' if n % 2 else 'rain,0,1,tea'}" for n in range(60)]
    (folder / "log.csv").write_text("\n".join(["user,hour,sky,ice,tea,drink", *rows]), "utf-8")
    (folder / "task.yaml").write_text(TASK + keys, "utf-8")
    suite = load_suite(folder)
    (batch,) = suite.draw("held_out", 2)
    assert batch.setting.regret_kind == "dynamic"
    checked = "\n".join(describe_task(suite, Wording(style="full"), len, "characters"))
    assert "You see the sky before each visit." in checked
    assert "sky sun. Which drink do you choose?" in checked
    env = rmft.Env(folder, part="train")
    told, info = env.reset(0)
    done = False
    while not done:
        assert info["shown"]["texts"] in told
        assert len(info["shown"]["numbers"]) == len(batch.setting.shown.numbers)
        told, reward, done, info = env.step(0 if "sky sun" in info["shown"]["texts"] else 1)
        assert reward == 1
    assert info["regret_so_far"] == 0
    with pytest.raises(RmftError, match="are of a log"):
        read(Task, yaml.safe_load(TASK.replace("log.csv", "{kind: bernoulli}") + keys), "task")


@pytest.mark.filterwarnings("ignore:.*A Box observation space m:UserWarning")  # which numbers have no bounds
def test_gymnasium_is_shown_the_numbers() -> None:
    pytest.importorskip("gymnasium")
    from gymnasium.utils.env_checker import check_env

    from rmft.environments.gym import GymnasiumEnv

    env = GymnasiumEnv("contextual/logistic")
    check_env(env, skip_render_check=True)
    seen, info = env.reset(seed=1)
    np.testing.assert_allclose(seen["numbers"], info["shown"]["numbers"], rtol=1e-6)


OWN = """
import numpy as np
import rmft

class Weather:
    shown = rmft.Shown(("rain",), ("price",), text_length=9)
    reward_range = (0.0, 1.0)

    def variation_budget(self, horizon, num_arms):
        return float(horizon)

    def draw(self, generator, horizon, num_arms):
        rain, price = generator.random((horizon, 1)), generator.random((horizon, num_arms, 1))
        means = rain * (1 - price[..., 0])
        texts = np.where(rain[:, 0] > 0.5, "it rains", "it is dry"[:WIDTH])
        shown = rmft.Observation(rain, price, texts)
        return rmft.RewardTable(means, means, shown)
"""


def own_setting(folder: Path, code: str) -> Setting:
    (folder / "weather.py").write_text(code, "utf-8")
    data = {"name": "own", "feedback": "bandit", "horizon": 4, "num_arms": 2,
            "reward_process": {"kind": "weather:Weather"}}  # fmt: skip
    return read(Setting, data, "own", str(folder), trust=True)


def test_a_process_of_ones_own_shows_what_it_says(tmp_path: Path) -> None:
    setting = own_setting(tmp_path, OWN.replace("WIDTH", "9"))
    table = setting.draw([generator(0), generator(1)])
    streams = Streams.at(0, [(0,), (1,)])
    played = rollout(make_baseline("linucb"), setting.play(table), streams)
    assert played.histories.texts is not None
    assert set(played.histories.texts.flat) <= {"it rains", "it is dry"}
    assert setting.rules.shown.num_inputs == 2
    assert setting.regret_kind == "dynamic"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("Observation(rain, price, texts)", "Observation(rain, price)"),
        ("Table(means, means, shown)", "Table(means, means)"),
        ('("price",)', '("price", "size")'),
        ('("rain",), ("price",), text_length=9', '("rain",), text_length=9'),
        ('rmft.Shown(("rain",), ("price",), text_length=9)', '("rain",)'),
    ],
)
def test_a_process_of_ones_own_that_shows_something_else_is_refused(
    old: str, new: str, tmp_path: Path
) -> None:
    code = OWN.replace("WIDTH", "9")
    assert old in code
    with pytest.raises(RmftError):
        own_setting(tmp_path, code.replace(old, new))
