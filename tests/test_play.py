"""One problem watched, and played by a person: what is told, what is asked, whose regret it is."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from rmft.commands import play_problem
from rmft.errors import UnknownNameError
from rmft.problems.suites import load_suite


def played(
    policy: str = "ucb1", *, answers: list[str] | None = None, suite: str = "words/bandits", **chosen: object
) -> tuple[dict[str, float], list[str]]:
    """Regrets by player, and all that was said."""
    said: list[str] = []
    given: Iterator[str] = iter(answers or [])
    person: Callable[[str], str] | None = (lambda _: next(given)) if answers is not None else None
    setting, problem, contexts = (chosen.get(key) for key in ("setting", "problem", "contexts"))
    number = problem if isinstance(problem, int) else 0
    return (
        play_problem(
            policy,
            suite,
            setting,
            number,
            contexts,
            0,
            person,
            said.append,
            lambda: said.append("pause"),  # type: ignore[arg-type]
        ),
        said,
    )


def test_every_round_is_said_and_the_truth_at_the_end() -> None:
    regrets, said = played(setting="three-arms", problem=4)
    assert [line for line in said if line.startswith("Round")] == [f"Round {n}" for n in range(1, 9)]
    assert said.count("pause") == 7
    table = load_suite("words/bandits").draw("validation", 10)[1].table
    means = table.expected_rewards[4, 0]
    hidden = said[said.index("What was hidden, the true mean of each:") + 1 :]
    assert sorted(line.rpartition(": ")[2] for line in hidden) == sorted(
        f"{mean:.2f}{' (the best)' if mean == means.max() else ''}" for mean in means
    )
    assert list(regrets) == ["ucb1", "Thompson sampling, mean of 200 plays"]
    assert 0 < regrets["Thompson sampling, mean of 200 plays"] < 6.4


def test_a_person_who_knows_loses_nothing_and_is_asked_again_for_nonsense() -> None:
    _, said = played(problem=2)
    best = next(line for line in said if "(the best)" in line).strip()[0]
    regrets, said = played(problem=2, answers=["?", "", "the best", *[best.lower()] * 8])
    assert list(regrets) == ["you", "ucb1", "Thompson sampling, mean of 200 plays"]
    assert regrets["you"] == 0
    assert sum("expected one of the letters" in line for line in said) == 3
    assert regrets["ucb1"] == played(problem=2)[0]["ucb1"], "the agent's luck is its own"
    assert said[0].count("rounds") >= 1, "the opening comes first"


def test_the_worst_answer_every_time_loses_the_gap_every_round() -> None:
    _, said = played(setting="two-arms")
    worst = next(line for line in said if ": 0.10" in line).strip()[0]
    regrets, _ = played(setting="two-arms", answers=[worst] * 8)
    assert regrets["you"] == pytest.approx(8 * 0.8)


def test_a_context_is_chosen_by_name_and_the_problem_stays_the_same() -> None:
    regrets, said = played(contexts="meadows", answers=["Z", "J", "W", "H", *["W"] * 20])
    other, _ = played(contexts="adverts")
    assert "meadow" in said[0]
    assert regrets["ucb1"] == other["ucb1"]
    with pytest.raises(UnknownNameError, match="Did you mean 'meadows'"):
        played(contexts="meadow")
    with pytest.raises(UnknownNameError, match="two-arms"):
        played(setting="two-arm")


def test_full_information_is_played_too() -> None:
    regrets, said = played("hedge", suite="words/fol", answers=list("ABCDEFGHIJKLMNOPQRSTUVWXYZ") * 50)
    assert {"you", "hedge"} <= regrets.keys()
    assert np.isfinite(list(regrets.values())).all()
    assert any("its probabilities" in line for line in said)


def test_input_that_ends_is_one_clear_message() -> None:
    command = [sys.executable, "-m", "rmft.cli", "play", "ucb1", "--me"]
    done = subprocess.run(command, input="\n", capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.strip().endswith(
        "Error: The input ended in the middle of the game; answer with a letter each round."
    )
