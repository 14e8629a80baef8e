"""Problems as others' frameworks play them: one object, and Gymnasium's and TRL's faces on it."""

from __future__ import annotations

import inspect
import re
import runpy
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import rmft
from rmft.environments.folder import export_env
from rmft.environments.trl import environment_factory
from rmft.errors import ConfigError, EpisodeError, RunDirectoryError, UnknownNameError
from rmft.problems.suites import load_suite
from rmft.regret import regret_curve
from rmft.rollout import rollout
from rmft.scenarios.wording import Wording
from rmft.streams import Streams

WORDS = "words/bandits"


def played(env: rmft.Env, seed: int, arms: list[int], part: Any = None) -> list[Any]:
    """All that is told, paid and known of a problem in which these arms are played."""
    seen: list[Any] = [env.reset(seed, part)]
    for arm in arms:
        seen.append(env.step(arm))
        if seen[-1][2]:
            break
    return seen


@pytest.mark.parametrize("suite", [WORDS, "words/fol", "words/nsmab"])
def test_two_resets_with_one_seed_tell_the_same_whatever_runs_beside_them(suite: str) -> None:
    env, other = rmft.Env(suite), rmft.Env(suite)
    once = played(env, 3, [0, 1] * 50)
    other.reset(8)
    np.random.default_rng(0).random()
    assert played(env, 4, [0, 1] * 50) != once
    other.step(0)
    assert played(env, 3, [0, 1] * 50) == once == played(rmft.Env(suite), 3, [0, 1] * 50)
    assert played(env, 3, [0, 1] * 50, "validation") != once


def test_it_is_the_problem_that_evaluations_play_and_its_regret_is_theirs() -> None:
    """Problem 5 of the validation part, by a policy in a rollout and by the same arms in the environment."""
    suite = load_suite(WORDS)
    batches = suite.draw("validation", 6)
    (batch,) = [each for each in batches if 5 in each.indices]
    (place,) = np.flatnonzero(batch.indices == 5)
    table, policy = batch.table.rows(np.array([place])), rmft.Agent.load("thompson").policy
    theirs = rollout(policy, batch.setting.play(table), Streams.at(0, [(1,)]))
    curve = regret_curve(theirs, batch.setting.regret_kind)[0]
    env = rmft.Env(WORDS, part="validation")
    env.reset(5)
    for number, arm in enumerate(theirs.histories.arms[0].tolist()):
        prompt, reward, done, info = env.step(arm)
        assert (reward, info["arm"], info["round"]) == (theirs.histories.rewards[0, number], arm, number + 1)
        assert info["regret_so_far"] == pytest.approx(curve[number])
    assert (done, env.over) == (True, True)
    assert env.regret() == pytest.approx(curve[-1])
    assert info["best_arm"] == table.expected_rewards[0].sum(axis=0).argmax()
    assert "The problem is over" in prompt
    with pytest.raises(EpisodeError, match="over"):
        env.step(0)


def test_a_letter_is_read_strictly_and_three_unreadable_answers_end_the_problem() -> None:
    env = rmft.Env(WORDS, wording=Wording(style="full", reasoning="brief"))
    opening, info = env.reset(0)
    letters = info["legal"]
    assert all(f"{letter} (" in opening for letter in letters)
    _, _, _, info = env.step(f"I take the second.\nChoice: {letters[1]}")
    assert (info["arm"], info["round"]) == (1, 1)
    prompt, reward, done, info = env.step("the best one")
    assert (reward, done, info["round"]) == (0.0, False, 1)
    assert prompt.endswith("2 attempts are left.")
    assert "Choice:" in info["refused"]
    env.step(f"Choice: {letters[0]}")
    for expected in (False, False, True):
        _, reward, done, info = env.step(letters[0])
        assert done is expected
    table = env.game.problem.table.rewards[0]
    assert reward == pytest.approx(table[2:].min(axis=1).sum())
    assert info["regret_so_far"] == pytest.approx(env.regret())
    env.reset(0)
    with pytest.raises(ConfigError, match="the arm 9"):
        env.step(9)


def test_wrong_parts_settings_and_seeds_are_named() -> None:
    for wrong, said in (({"part": "test"}, "held_out"), ({"setting": "two"}, "two-arms")):
        with pytest.raises(UnknownNameError, match=said):
            rmft.Env(WORDS, **wrong)  # type: ignore[arg-type]
    env = rmft.Env(WORDS, setting="three-arms")
    assert {len(env.reset(seed)[1]["legal"]) for seed in range(4)} == {3}
    with pytest.raises(ConfigError, match="from 0"):
        env.reset(-1)
    with pytest.raises(EpisodeError, match="reset"):
        rmft.Env(WORDS).step(0)


@pytest.mark.parametrize("suite", [WORDS, "words/fol"])
def test_gymnasium_s_own_check_passes(suite: str) -> None:
    pytest.importorskip("gymnasium")
    from gymnasium.utils.env_checker import check_env

    from rmft.environments.gym import GymnasiumEnv

    env = GymnasiumEnv(suite, render_mode="ansi")
    check_env(env, skip_render_check=True)
    first, info = env.reset(seed=3)
    assert env.render() == info["prompt"]
    following = [env.reset()[1]["prompt"] for _ in range(3)]
    again = GymnasiumEnv(suite)
    assert again.reset(seed=3)[1]["prompt"] == info["prompt"]
    assert [again.reset()[1]["prompt"] for _ in range(3)] == following
    assert len({info["prompt"], *following}) == 4
    assert first["arm"] == env.action_space.n  # type: ignore[attr-defined]


def test_trl_s_contract_and_its_reward() -> None:
    """reset(**row) tells, the one public method beside it and get_reward is a tool, and the reward is minus
    regret."""
    factory = environment_factory(WORDS)
    env = factory()
    public = {name for name, _ in inspect.getmembers(type(env), inspect.isfunction) if name[0] != "_"}
    assert public == {"reset", "get_reward", "choose"}
    told = env.reset(seed=2, prompt=[{"role": "user", "content": "Play."}])
    assert told == factory().reset(seed=2)
    plain = rmft.Env(WORDS)
    _, info = plain.reset(2)
    best = info["best_arm"]
    letter, other = info["legal"][best], info["legal"][1 - best]
    assert env.get_reward() < 0
    for _ in range(8):
        env.choose(f" {letter}")
    assert env.get_reward() == 0
    assert env.choose(letter) == "The problem is over."
    env.reset(seed=2)
    env.choose(other)
    means = plain.game.problem.table.expected_rewards[0, 0]
    for _ in range(7):
        env.choose(letter)
    assert env.get_reward() == pytest.approx(means[1 - best] - means[best])


def test_trl_can_describe_the_tool() -> None:
    pytest.importorskip("transformers")
    from transformers.utils import get_json_schema

    described = get_json_schema(environment_factory(WORDS)().choose)["function"]
    assert (described["name"], described["parameters"]["required"]) == ("choose", ["option"])


@pytest.mark.parametrize("framework", ["verifiers", "openenv"])
def test_an_exported_folder_holds_a_test_that_passes_and_code_that_compiles(
    framework: str, tmp_path: Path
) -> None:
    folder = export_env(WORDS, framework, tmp_path / "env")
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert {"README.md", "pyproject.toml", "test_environment.py"} < files
    for path in map(folder.joinpath, files):
        text = path.read_text("utf-8")
        assert not re.search(r"__[A-Z]+__|\.tpl", text + path.name)
        if path.suffix == ".py":
            compile(text, str(path), "exec")
    declared = tomllib.loads((folder / "pyproject.toml").read_text())["project"]["dependencies"]
    assert declared[0] == f"rmft>={rmft.__version__}"
    assert declared[1].startswith(framework)
    test = runpy.run_path(str(folder / "test_environment.py"))
    test["test_two_resets_with_one_seed_tell_the_same"]()
    with pytest.raises(RunDirectoryError, match="exists already"):
        export_env(WORDS, framework, folder)


def test_what_a_folder_cannot_hold_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="verifiers"):
        export_env(WORDS, "verifier", tmp_path / "env")
    (tmp_path / "own.py").write_text(Path(__file__).parents[1].joinpath("examples/my_process.py").read_text())
    (tmp_path / "own.yaml").write_text(
        "{name: own, title: Own, train: {settings: [{name: one, feedback: bandit, horizon: 3, num_arms: 2, "
        "reward_process: {kind: 'own:MyProcess'}}]}}"
    )
    with pytest.raises(ConfigError, match="of its own"):
        export_env(tmp_path / "own.yaml", "openenv", tmp_path / "env")
    assert not (tmp_path / "env").exists()
