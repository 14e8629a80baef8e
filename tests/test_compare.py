"""Runs set against each other: paired where their evaluations met the same problems, and nowhere else."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from rmft.evaluation.comparing import MAX_REGRETS, fingerprint
from rmft.evaluation.evaluate import evaluate
from rmft.problems.suites import ProblemBatch, load_suite
from rmft.report import comparison_table
from rmft.report.compare_view import compare_piece
from rmft.report.paired import Pairing, pairings, unpaired
from rmft.report.run_reader import read_run
from rmft.results import Evaluation
from rmft.types import RewardTable, Words
from run_files import Talker, write_run

FAST, SLOW = Talker(8.0), Talker(1.0)


def problems(count: int = 30, suite: str = "words/bandits") -> list[ProblemBatch]:
    return load_suite(suite).draw("held_out", count)


def evaluated(run_dir: Path, best: Talker, batches: list[ProblemBatch], **others: Talker) -> Path:
    """A run whose best policy was evaluated on the problems."""
    write_run(run_dir, name=run_dir.name, last=3)
    players = {"best": best, **others}
    found = evaluate(
        {name: lambda _, player=player: player for name, player in players.items()},  # type: ignore[misc]
        batches, 1, 0, suite="words/bandits", part="held_out",
    )  # fmt: skip
    (run_dir / "evaluation.json").write_text(found.to_json())
    return run_dir


def found_in(run_dirs: Sequence[Path]) -> tuple[list[Pairing], list[str]]:
    runs = [read_run(path) for path in run_dirs]
    found = pairings(runs)
    return found, unpaired(runs, [run.name for run in runs], found)


def edit(run_dir: Path, **keys: object) -> Path:
    """Change keys of its evaluation; None takes one away."""
    found = json.loads((run_dir / "evaluation.json").read_text()) | keys
    kept = {key: value for key, value in found.items() if value is not None}
    (run_dir / "evaluation.json").write_text(json.dumps(kept))
    return run_dir


def without_regrets(run_dir: Path) -> Path:
    """As an older version wrote its evaluation."""
    found = json.loads((run_dir / "evaluation.json").read_text())
    for setting in found["settings"].values():
        for policy in setting["policies"].values():
            del policy["problem_regrets"]
    return edit(run_dir, settings=found["settings"], fingerprint=None)


def test_runs_evaluated_apart_differ_as_if_evaluated_together(tmp_path: Path) -> None:
    first, second = (
        evaluated(tmp_path / name, policy, problems()) for name, policy in (("first", FAST), ("second", SLOW))
    )
    [pairing], said = found_in([first, second])
    together = evaluated(tmp_path / "together", FAST, problems(), other=SLOW)
    expected = read_run(together).evaluation
    assert expected is not None
    wanted = expected.overall.policies["best"].difference["other"]["regret"]
    assert wanted.low is not None
    assert wanted.mean < wanted.high < 0, "what is sharper is better here"  # type: ignore[operator]
    ours, turned = pairing.differences[0, 1], pairing.differences[1, 0]
    assert ours.mean == pytest.approx(wanted.mean, abs=1e-4)
    # BCa counts resamples below the mean, where rounding decides ties
    assert (ours.low, ours.high) == pytest.approx((wanted.low, wanted.high), abs=0.03)
    assert (turned.mean, turned.low, turned.high) == (-ours.mean, -ours.high, -ours.low)  # type: ignore[operator]
    assert said == []


def test_the_fingerprint_tells_problems_apart_and_not_their_names() -> None:
    batches = problems(6)
    assert fingerprint(batches) == fingerprint(problems(6))
    assert len(fingerprint(batches)) == 32
    first, rest = batches[0], batches[1:]
    renamed = replace(first, setting=first.setting.model_copy(update={"name": "other"}))
    assert fingerprint([renamed, *rest]) == fingerprint(batches)
    table = first.table
    for other in (
        replace(first, words=Words(first.words.contexts, first.words.seeds + 1)),
        replace(first, table=RewardTable(1 - table.rewards, table.expected_rewards)),
        replace(first, table=RewardTable(table.rewards, table.expected_rewards / 2)),
        replace(first, setting=first.setting.model_copy(update={"regret": "dynamic"})),
        replace(first, words=Words("all", first.words.seeds)),
        replace(first, setting=first.setting.model_copy(update={"environment": "mine:Own"})),
    ):
        assert fingerprint([other, *rest]) != fingerprint(batches)
    assert fingerprint(problems(8)) != fingerprint(batches)
    assert fingerprint(rest) != fingerprint(batches)


def test_regrets_by_problem_are_those_that_the_mean_is_of(tmp_path: Path) -> None:
    batches = problems(10)
    path = evaluated(tmp_path / "run", FAST, batches) / "evaluation.json"
    written = Evaluation.from_json(path.read_text())
    assert written.fingerprint == fingerprint(batches)
    for batch in batches:
        policy = written.settings[batch.setting.name].policies["best"]
        assert policy.problem_regrets is not None
        assert len(policy.problem_regrets) == len(batch.indices)
        mean = sum(policy.problem_regrets) / len(batch.indices)
        assert mean == pytest.approx(policy.measures["regret"].mean, abs=1e-4)
    read = read_run(path.parent).evaluation
    assert read is not None
    assert len(read.problem_regrets("best") or ()) == 10
    assert read.problem_regrets("nobody") is None


def test_regrets_are_kept_of_as_many_policies_as_have_room(monkeypatch: pytest.MonkeyPatch) -> None:
    assert MAX_REGRETS == 100_000
    monkeypatch.setattr("rmft.evaluation.comparing.MAX_REGRETS", 20)
    players = {"best": FAST, "start": SLOW, "third": SLOW}
    for count, with_regrets in ((6, 3), (10, 2), (11, 1), (21, 0)):
        found = evaluate(
            {name: lambda _, player=player: player for name, player in players.items()},  # type: ignore[misc]
            problems(count), 1, 0,
        )  # fmt: skip
        for setting in found.settings.values():
            kept = [name for name, policy in setting.policies.items() if policy.problem_regrets is not None]
            assert kept == list(players)[:with_regrets]


def test_other_problems_are_not_paired_and_the_page_says_so(tmp_path: Path) -> None:
    first = evaluated(tmp_path / "first", FAST, problems(20))
    fewer = evaluated(tmp_path / "fewer", SLOW, problems(10))
    older = without_regrets(evaluated(tmp_path / "older", SLOW, problems(20)))
    unevaluated = write_run(tmp_path / "unevaluated", name="unevaluated", last=3)
    (unevaluated / "evaluation.json").unlink()
    everyone = [first, fewer, older, unevaluated]
    found, said = found_in(everyone)
    assert found == []
    assert said == [
        "first: no other run here was evaluated on the same problems.",
        "fewer: no other run here was evaluated on the same problems.",
        "older: its evaluation holds no regrets by problem, such as an older one; 'rmft evaluate' adds them.",
        "unevaluated: it has not been evaluated.",
    ]
    piece = str(compare_piece([read_run(path) for path in everyone]))
    assert "Runs against each other" not in piece
    assert "no other run here was evaluated on the same problems" in piece
    assert "Results" in piece
    assert "No paired difference. older: its evaluation" in str(comparison_table(everyone).caption)
    assert found_in([first]) == ([], []), "one run alone has nobody to be set against"


def test_every_set_of_problems_has_its_own_pairs(tmp_path: Path) -> None:
    """The first two share 20 problems, the last two 10, by whichever file holds the evaluation."""
    first = evaluated(tmp_path / "first", FAST, problems(20))
    both = evaluated(tmp_path / "both", SLOW, problems(10))
    (both / "evaluation.json").rename(both / "evaluation-words-bandits-held_out.json")
    (both / "evaluation.json").write_text((first / "evaluation.json").read_text())
    last = evaluated(tmp_path / "last", FAST, problems(10))
    found, said = found_in([first, both, last])
    assert [pairing.runs for pairing in found] == [[0, 1], [1, 2]]
    assert [pairing.on for pairing in found] == [
        "20 unseen problems of words/bandits",
        "10 unseen problems of words/bandits",
    ]
    same = found[0].differences[0, 1]
    assert (same.mean, same.low, same.high) == (0, 0, 0), "the same regrets"
    assert said == []


def test_pairs_are_shown_in_the_page_and_in_the_terminal(tmp_path: Path) -> None:
    runs = [
        evaluated(tmp_path / name, policy, problems())
        for name, policy in (("first", FAST), ("second", SLOW), ("third", FAST))
    ]
    [block] = [
        block
        for block in compare_piece([read_run(path) for path in runs]).blocks
        if getattr(block, "title", "") == "Runs against each other"
    ]
    assert list(block.columns) == ["run", "minus first", "minus second", "minus third"]  # type: ignore[union-attr]
    assert [[cell is None for cell in row[1:]] for row in block.rows] == [  # type: ignore[union-attr]
        [True, False, False], [False, True, False], [False, False, True],
    ]  # fmt: skip
    console = Console(width=200, record=True, force_terminal=False)
    console.print(comparison_table(runs))
    [line] = [line for line in console.export_text().splitlines() if "minus second" in line]
    difference = found_in(runs)[0][0].differences[0, 1]
    assert f"-{-difference.mean:.2f} [" in line


@pytest.mark.parametrize("regrets", [[], "x", [1.0], [None] * 15, [1e400] * 15, {"a": 1}])
def test_damaged_regrets_are_not_paired(tmp_path: Path, regrets: object) -> None:
    first, second = (evaluated(tmp_path / name, FAST, problems()) for name in ("first", "second"))
    found = json.loads((second / "evaluation.json").read_text())
    found["settings"]["two-arms"]["policies"]["best"]["problem_regrets"] = regrets
    (second / "evaluation.json").write_text(json.dumps(found).replace("Infinity", "1e400"))
    pairs, said = found_in([first, second])
    assert pairs == []
    assert len(said) == 2


def test_a_setting_that_is_damaged_leaves_nothing_to_pair(tmp_path: Path) -> None:
    """Else one setting of each, as long as each other, could be taken for the same problems."""
    first, second = (evaluated(tmp_path / name, FAST, problems()) for name in ("first", "second"))
    for run_dir, damaged in ((first, "two-arms"), (second, "three-arms")):
        found = json.loads((run_dir / "evaluation.json").read_text())
        edit(run_dir, settings={**found["settings"], damaged: 3})
    assert found_in([first, second])[0] == []
