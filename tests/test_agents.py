"""The agent in one's own program: deciding and observing, saved and gone on with, and every wrong use."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

import rmft
from rmft.agents.saved import SavedEpisodes
from rmft.errors import (
    ConfigError,
    EpisodeError,
    RmftError,
    RunDirectoryError,
    ShapeError,
    UnknownNameError,
)
from rmft.problems.encoding import Encoder

Two = Callable[[str], tuple[rmft.Agent, rmft.Agent]]
BRANDS = ["Sunshine", "Keebler", "Nabisco", "private"]


@pytest.fixture(scope="module")
def numeric(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a numeric policy that does not play uniformly."""
    torch = pytest.importorskip("torch")
    from rmft.policies.config import ArmEncoderConfig
    from rmft.policies.numeric import new_network, save_network

    folder, config = tmp_path_factory.mktemp("numeric"), ArmEncoderConfig(width=8, num_heads=1)
    network, noise = new_network(config, 0), torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weights in network.parameters():
            weights += torch.randn(weights.shape, generator=noise)
    save_network(folder, network, config)
    return folder


@pytest.fixture(scope="module")
def words(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a policy that a tiny language model plays, after two tokens of reasoning."""
    from rmft.policies.config import LocalConfig
    from rmft.scenarios.wording import Wording
    from rmft.training.local import new_policy

    folder = tmp_path_factory.mktemp("words")
    told = Wording(reasoning="brief")
    config = LocalConfig(model=str(tiny_llama), wording=told, reasoning_budget=2, device="cpu")
    return new_policy(config, 0, folder).path


@pytest.fixture(scope="module")
def two(words: Path, numeric: Path) -> Two:
    """The same agent loaded twice, by a baseline's name, "numeric" or "words"; neither knows of the other."""
    folders = {"numeric": numeric, "words": words}

    @cache
    def load(target: str) -> tuple[rmft.Agent, rmft.Agent]:
        where = folders.get(target, target)
        return rmft.Agent.load(where), rmft.Agent.load(where)

    return load


def paid(arm: int, round_index: int) -> float:
    """A reward that tells rounds and arms apart."""
    return ((arm + 1) * (round_index + 2) % 7) / 7


def play(episode: rmft.Episode, rounds: int) -> list[rmft.Choice]:
    choices = []
    for _ in range(rounds):
        choice = episode.decide()
        if episode.config.feedback == "full":
            episode.observe(rewards=[paid(arm, episode.num_rounds) for arm in range(4)])
        else:
            episode.observe(paid(choice.arm, episode.num_rounds))
        choices.append(choice)
    return choices


def test_a_decision_a_line() -> None:
    agent = rmft.Agent.load("greedy")
    with agent.episode(BRANDS, horizon=6, seed=1) as episode:
        names = []
        while not episode.done:
            choice = episode.decide()
            assert (choice.name, choice.probabilities, choice.reasoning) == (BRANDS[choice.arm], None, "")
            episode.observe(reward=float(choice.name == "Keebler"))
            names.append(choice.name)
    tried = len(set(names))
    assert names[tried:] == ["Keebler"] * (6 - tried)  # every arm once first, or until the best was found
    with pytest.raises(EpisodeError, match="closed"):
        episode.decide()


@pytest.mark.parametrize("feedback", ["bandit", "full"])
@pytest.mark.parametrize("target", ["thompson", "exp3", "hedge", "ftl", "numeric", "words"])
def test_an_episode_that_is_saved_goes_on_as_it_would_have(target: str, feedback: Any, two: Two) -> None:
    """Saved between rounds, and between a decision and its reward; loaded by an agent that knows nothing."""
    agent, other = two(target)
    begun: dict[str, Any] = {"options": BRANDS, "horizon": 8, "feedback": feedback, "seed": 3}
    if {target, feedback} in ({"hedge", "bandit"}, {"ftl", "bandit"}, {"exp3", "full"}, {"thompson", "full"}):
        with pytest.raises(ConfigError, match="needs"):
            agent.episode(**begun)
        return
    whole = play(agent.episode(**begun), 8)
    episode = agent.episode(**begun)
    choices = play(episode, 3)
    episode = other.resume(episode.to_json())
    choices += play(episode, 2)
    waiting = episode.decide()
    episode = other.resume(episode.to_json().encode())
    assert episode.choice == waiting
    assert episode.num_rounds == 5
    rewards = [paid(arm, 5) for arm in range(4)]
    if feedback == "full":
        episode.observe(rewards=dict(zip(BRANDS, rewards, strict=True)))
    else:
        episode.observe(reward=rewards[waiting.arm])
    choices += [waiting, *play(episode, 2)]
    for once, again in zip(whole, choices, strict=True):
        assert (once.arm, once.name, once.reasoning) == (again.arm, again.name, again.reasoning)
        assert (once.probabilities is None) == (again.probabilities is None)
        if once.probabilities is not None and again.probabilities is not None:
            assert once.probabilities == pytest.approx(again.probabilities, abs=1e-5)
    assert len({choice.arm for choice in whole}) > 1 or target == "ftl"
    assert any(choice.reasoning for choice in whole) == (target == "words")


def test_another_process_decides_the_same(tmp_path: Path) -> None:
    begun = rmft.Agent.load("thompson").episode(BRANDS, 30, seed=11)
    play(begun, 10)
    (tmp_path / "episode.json").write_text(begun.to_json())
    code = """
import pathlib, rmft
episode = rmft.Agent.load("thompson").resume(pathlib.Path("episode.json").read_text())
for _ in range(20):
    choice = episode.decide()
    episode.observe(((choice.arm + 1) * (episode.num_rounds + 2) % 7) / 7)
    print(choice.arm)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert [int(arm) for arm in done.stdout.split()] == [choice.arm for choice in play(begun, 20)]


def test_episodes_are_batched_and_the_first_is_the_one_alone(numeric: Path) -> None:
    agent = rmft.Agent.load(numeric)
    with agent.episodes(5, BRANDS, 6, seed=4) as episodes, agent.episode(BRANDS, 6, seed=4) as alone:
        arms = []
        while not episodes.done:
            index, choices = episodes.num_rounds, episodes.decide()
            episodes.observe([paid(choice.arm, index) for choice in choices])
            arms.append([choice.arm for choice in choices])
            if index == 3:
                episodes = agent.resume_episodes(episodes.to_json())
        first = []
        for index in range(6):
            choice = alone.decide()
            alone.observe(paid(choice.arm, index))
            first.append(choice.arm)
    assert len(episodes) == 5
    assert [each[0] for each in arms] == first
    assert len({tuple(row) for row in np.array(arms).T}) > 1, "each has its own luck"
    with pytest.raises(ConfigError, match=r"5 episodes.*resume_episodes"):
        agent.resume(episodes.to_json())


def test_a_language_model_is_told_the_options_names_in_words_of_ones_own(two: Two) -> None:
    own = {
        "situation": "You sell crackers.",
        "arm": "brand",
        "arms": "brands",
        "unit": "sale",
        "units": "sales",
    }
    with two("words")[0].episode(BRANDS, 3, contexts=own, seed=0) as episode:
        choice = episode.decide()
        told = json.loads(episode.to_json())["rounds"][0]["turns"][0]["system"]
        assert choice.name == BRANDS[choice.arm]
    assert all(word in told for word in ("choose one brand", "sales", *BRANDS))
    with pytest.raises(ConfigError, match="situation: this key is missing"):
        two("words")[0].episode(BRANDS, 3, contexts={"arm": "brand"})


def test_wrong_use_has_one_clear_message() -> None:
    episode = rmft.Agent.load("thompson").episode(BRANDS, 2, reward_range=(0, 10))
    with pytest.raises(EpisodeError, match=r"^Round 1 of 2 is not decided yet.*decide\(\) first"):
        episode.observe(1)
    episode.decide()
    with pytest.raises(EpisodeError, match=r"^Round 1 of 2 is decided already.*observe\(\) first"):
        episode.decide()
    wrong: Sequence[Any] = (11, -0.1, float("nan"), float("inf"), "much", [1, 2], None)
    for reward in wrong:
        with pytest.raises(ShapeError, match=r"Found|takes reward="):
            episode.observe(reward)
    with pytest.raises(ShapeError, match="bandit feedback observe"):
        episode.observe(rewards=[1, 2, 3, 4])
    episode.observe(10)
    episode.decide()
    episode.observe(0)
    for late in (episode.decide, lambda: episode.observe(1)):
        with pytest.raises(EpisodeError, match="All 2 rounds are over"):
            late()
    full = rmft.Agent.load("hedge").episode(BRANDS, 2, feedback="full")
    full.decide()
    with pytest.raises(ShapeError, match="full feedback observe"):
        full.observe(1)
    with pytest.raises(ShapeError, match="Kebler, Keebler"):
        full.observe(rewards={"Sunshine": 1, "Kebler": 1, "Nabisco": 1, "private": 0})
    with pytest.raises(ShapeError, match="one of every option"):
        full.observe(rewards=[1, 2, 3])


def test_wrong_episodes_have_one_clear_message(two: Two) -> None:
    agent = rmft.Agent.load("thompson")
    for wrong, said in {
        "options": ({"options": ["one"]}, "at least 2"),
        "twice": ({"options": ["one", "one"]}, "one more than once"),
        "text": ({"options": "abc"}, "tuple"),
        "control": ({"options": ["one", "\x1b[2J"]}, r"U\+001B"),
        "horizon": ({"horizon": 0}, "horizon"),
        "range": ({"reward_range": (1, 0)}, "lower bound first"),
        "unbounded": ({"reward_range": (0, float("inf"))}, "finite range"),
        "contexts": ({"contexts": "meadow"}, "meadows"),
        "memory": ({"size": 1_000_000}, "room for"),
    }.values():
        values: dict[str, Any] = {"size": 1, "options": BRANDS, "horizon": 9, **wrong}
        with pytest.raises((ConfigError, UnknownNameError), match=said):
            agent.episodes(**values)
    with pytest.raises(ConfigError, match=r"26.*letter"):
        two("words")[0].episode([f"option {n}" for n in range(27)], 3)
    with pytest.raises(ConfigError, match="longest horizon"):
        two("words")[0].episode(BRANDS, 3000)


@pytest.mark.parametrize(
    ("target", "error", "said"),
    [
        ("thomson", UnknownNameError, "thompson"),
        ("oracle", ConfigError, "knows what is hidden"),
        ("tuned:ucb", ConfigError, "no parameters yet"),
        ("runs/nothing-there", RunDirectoryError, "no run directory"),
        (".", RunDirectoryError, "policy.safetensors"),
    ],
)
def test_what_is_no_agent(target: str, error: type[Exception], said: str, tmp_path: Path) -> None:
    with pytest.raises(error, match=said):
        rmft.Agent.load(tmp_path if target == "." else target)


def test_what_was_saved_is_not_trusted(two: Two) -> None:
    agent, _ = two("words")
    episode = agent.episode(BRANDS, 4, seed=0)
    play(episode, 2)
    episode.decide()
    right = episode.to_json()

    def changed(*path: Any, to: Any) -> str:
        data = json.loads(right)
        place = data
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = to
        return json.dumps(data)

    for wrong in (
        "", "{}", "[" * 100_000, right[:-5],
        changed("format", to="rmft-episode/2"),
        changed("rounds", 0, "rewards", to=None),
        changed("rounds", 0, "rewards", to=[2.0]),
        changed("rounds", 0, "rewards", to=[[0.1, 0.2, 0.3, 0.4]]),
        changed("rounds", 1, "arms", to=[4]),
        changed("rounds", 1, "arms", to=None),
        changed("rounds", 2, "probabilities", to=[[1.0, 1.0, 1.0, 1.0]]),
        changed("rounds", 0, "turns", to=[]),
        changed("rounds", 0, "turns", 0, "ids", to=[1]),
        changed("horizon", to=2),
        changed("horizon", to=10**9),
        changed("size", to=2),
        changed("options", to=["one", "two"]),
        changed("contexts", to="nobody's"),
        changed("agent", to="thompson"),
    ):  # fmt: skip
        with pytest.raises((ConfigError, ShapeError, UnknownNameError)):
            agent.resume(wrong)
    tokens = json.loads(right)["rounds"][0]["turns"][0]["ids"]
    for strange in (changed("rounds", 0, "turns", 0, "ids", to=[2**20] * len(tokens)),):
        again = agent.resume(strange)
        again.observe(0.5)
        with pytest.raises(ShapeError, match="tokens"):
            again.decide()
    with pytest.raises(ConfigError, match="'thompson'"):
        rmft.Agent.load("thompson").resume(right)


COLUMNS = {"age": "number", "job": "text"}


def shown_at(index: int) -> dict[str, object]:
    return {"age": 20 + 7 * index % 30, "job": ["teacher", "pilot"][index % 2]}


def test_decide_is_shown_a_context_and_goes_on_with_it_elsewhere() -> None:
    agent = rmft.Agent.load("linucb(coefficient=0.5)")
    whole = agent.episode(BRANDS, 8, context=["age", "income"], seed=3)
    assert whole.config.rules.shown.numbers == ("age", "income")
    arms = []
    for index in range(8):
        numbers = [0.1 * index, -1.0]
        choice = whole.decide(numbers if index % 2 else {"income": -1, "age": 0.1 * index})
        arms.append(choice.arm)
        saved = whole.to_json()
        whole.observe(float(choice.arm == index % 4))
        if index == 4:
            again = agent.resume(saved)
            assert again.choice == choice
            again.observe(float(choice.arm == index % 4))
    for index in range(5, 8):
        choice = again.decide([0.1 * index, -1.0])
        assert choice.arm == arms[index]
        again.observe(float(choice.arm == index % 4))
    several = agent.episodes(2, BRANDS, 8, context=["age", "income"], seed=3)
    assert several.decide([[0.0, -1.0], [5.0, 5.0]])[0].arm == arms[0]


def test_a_language_model_is_told_the_context(two: Two) -> None:
    episode = two("words")[0].episode(BRANDS, 3, context=COLUMNS, seed=1)
    for index in range(3):
        episode.decide(shown_at(index))
        episode.observe(1)
    turns = SavedEpisodes.model_validate_json(episode.to_json()).rounds
    told = [each.turns[0].prompt for each in turns if each.turns]
    expected = ["age 20, job teacher", "age 27, job pilot", "age 34, job teacher"]
    assert [text.splitlines()[-1] for text in told] == expected


def test_a_tables_columns_are_encoded_as_in_training(tmp_path: Path) -> None:
    rows = [f"{n},{'sun' if n % 2 else 'rain'},{['ice', 'tea'][n % 2]}" for n in range(40)]
    (tmp_path / "log.csv").write_text("\n".join(["hour,sky,drink", *rows]), "utf-8")
    setting = {"name": "drinks", "feedback": "bandit", "horizon": 6, "num_arms": 2, "arms": "named",
               "reward_process": {"kind": "logged", "rewards": "log.csv", "label": "drink"}}  # fmt: skip
    data = {"name": "d", "title": "d", "train": {"settings": [setting]}}
    (tmp_path / "drinks.yaml").write_text(yaml.safe_dump(data), "utf-8")
    suite = rmft.load_suite(tmp_path / "drinks.yaml")
    episode = rmft.Agent.load("linucb").episode(["ice", "tea"], 6, context=suite.context)
    assert episode.config.rules.shown == suite.settings("train")[0].shown
    episode.decide({"hour": 12, "sky": "sun"})
    assert suite.context is not None
    hour = next(column for column in suite.context.columns if column.name == "hour")
    (saved,) = SavedEpisodes.model_validate_json(episode.to_json()).rounds
    assert saved.numbers is not None
    assert saved.numbers[0] == pytest.approx([(12 - hour.mean) / hour.std, 0, 1, 1])
    assert saved.texts == ["hour 12, sky sun"]


def context_of_options(folder: Path, feature: str, header: str, rows: list[str]) -> Encoder:
    """What a log shows: one feature of each of two options, the first columns; their rewards are the last."""
    columns = header.split(",")
    (folder / "log.csv").write_text("\n".join([header, *rows]), "utf-8")
    setting = {"name": "options", "feedback": "bandit", "horizon": 6, "num_arms": 2, "arms": "named",
               "reward_process": {"kind": "logged", "rewards": "log.csv", "columns": columns[2:],
                                  "features": {feature: columns[:2]}}}  # fmt: skip
    suite = {"name": "o", "title": "o", "train": {"settings": [setting]}}
    (folder / "options.yaml").write_text(yaml.safe_dump(suite), "utf-8")
    context = rmft.load_suite(folder / "options.yaml").context
    assert context is not None
    return context


def test_words_on_each_option_are_shown_saved_and_gone_on_with(tmp_path: Path) -> None:
    rows = [f"{('rain', 'sport')[n % 2]},vote,{n % 2},{1 - n % 2}" for n in range(40)]
    context = context_of_options(tmp_path, "head", "front_head,back_head,front,back", rows)
    agent = rmft.Agent.load("linucb")
    episode = agent.episode(["front", "back"], 6, context=context, seed=1)
    for head in ("rain", "sport"):
        choice = episode.decide({"front_head": head, "back_head": "vote"})
        episode.observe(float(choice.name == "front"))
    again = agent.resume(episode.to_json())
    shown = {"front_head": "a long headline", "back_head": None}
    with pytest.raises(RmftError, match="is told in 20 bytes; expected at most 16"):
        episode.decide(shown)
    shown["front_head"] = "rain"
    assert again.decide(shown) == episode.decide(shown)
    saved = SavedEpisodes.model_validate_json(again.to_json())
    assert saved.rounds[1].arm_texts == [["head sport", "head vote"]]
    assert saved.rounds[2].arm_texts == [["head rain", "nothing is known"]]


def test_what_is_told_of_each_option_is_shown_saved_and_gone_on_with(tmp_path: Path) -> None:
    rows = [f"{60 + 30 * (n % 2)},75,{1 - n % 2},{n % 2}" for n in range(40)]
    context = context_of_options(tmp_path, "minutes", "train_time,car_time,train,car", rows)
    agent = rmft.Agent.load("linucb")
    episode = agent.episode(["train", "car"], 6, context=context, seed=1)
    for minutes in (60, 90):
        choice = episode.decide({"train_time": minutes, "car_time": 75})
        episode.observe(float(choice.name == ("train" if minutes == 60 else "car")))
    again = agent.resume(episode.to_json())
    shown = {"train_time": 60, "car_time": 75}
    assert again.decide(shown) == episode.decide(shown)
    saved = SavedEpisodes.model_validate_json(episode.to_json()).rounds[1].features
    assert saved is not None
    assert context.shown.told(np.array(saved)).round(6).tolist() == [[[90], [75]]]
    with pytest.raises(RmftError, match="no value of car_time"):
        agent.episode(["train", "car"], 6, context=context).decide({"train_time": 60})
    with pytest.raises(RmftError, match="tells the minutes of 2; expected those of the task"):
        agent.episode(BRANDS, 6, context=context)


@pytest.mark.parametrize(
    ("context", "shown", "message"),
    [
        (None, [1], "begun without"),
        (["age"], None, "begun with one: age"),
        (["age"], {"agee": 1}, "Did you mean 'age'"),
        (["age", "income"], {"age": 1}, "no value of income"),
        (["age"], [1, 2], "Found 2 values"),
        (["age"], ["old"], "expected a number"),
        (COLUMNS, {"age": 1, "job": "a\nb"}, "words on one line"),
        (COLUMNS, {"age": 1, "job": "x" * 300}, "expected 1 to 200"),
        (COLUMNS, {"age": 1, "job": "x" * 190}, "expected at most"),
    ],
)
def test_a_wrong_context_is_refused(context: Any, shown: Any, message: str) -> None:
    with pytest.raises(RmftError, match=message):
        rmft.Agent.load("uniform").episode(BRANDS, 3, context=context).decide(shown)
