"""Hosted models: asked over HTTP, read strictly, paid for once, and resumed after any kill."""

from __future__ import annotations

import json
import math
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from hosted_client import finish, start
from rmft.cli import main
from rmft.config import BudgetConfig, load_config
from rmft.costs import forecast_run
from rmft.errors import BudgetError, RunDirectoryError
from rmft.policies.hosted import probabilities
from rmft.providers.answers import Answer, TokenLogprob
from rmft.providers.journal import Journal
from rmft.run_directory import RunDirectory
from rmft.wiring.suites import load_suites
from vendor import KEY, Vendor, serving

ITERATIONS = 2
CONFIG: dict[str, Any] = {
    "name": "hosted",
    "suite": "words/bandits",
    "iterations": ITERATIONS,
    "policy": {
        "kind": "hosted",
        "provider": "compatible",
        "model": "base-model",
        "key": "VENDOR_KEY",
        "poll_seconds": 0.05,
        "endpoint": {"concurrency": 8, "retries": 8, "timeout": 2},
    },
    "rollout": {"num_problems": 3, "num_rollouts": 2},
    "credit": {"kind": "top_k_regret", "num_selected": 1},
    "validation": {"every": ITERATIONS, "num_problems": 2},
}
CALLS = (3 * 2 * ITERATIONS + 2 * 2) * 8  # rollouts, two validations, T = 8


def legal(request: dict[str, Any]) -> str:
    """One of the letters that the opening lists, by the request's seed; every 20th answer is none."""
    labels = re.findall(r"^([A-Z]) ", request["messages"][0]["content"], re.MULTILINE) or ["K"]
    luck = random.Random(json.dumps(request["messages"][1:]) + str(request.get("seed", 0)))
    said = "I would rather not." if luck.random() < 0.05 else luck.choice(labels)
    return json.dumps({"choice": said}) if "response_format" in request else said


@dataclass
class Whole:
    """A run that nothing happened to: what came of it, its jobs, and how often each thing was asked."""

    counts: dict[str, Any]
    num_jobs: int
    asked: Counter[str]


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Whole:
    folder = tmp_path_factory.mktemp("whole")
    with serving(Vendor(answers=legal)) as vendor:
        finish("train", write_config(folder, vendor), "--run-dir", folder / "run")
        return Whole(what_counts(folder / "run"), len(vendor.jobs), asked(vendor))


@pytest.fixture
def vendor(monkeypatch: pytest.MonkeyPatch) -> Iterator[Vendor]:
    monkeypatch.setenv("VENDOR_KEY", KEY)
    with serving(Vendor(answers=legal)) as running:
        yield running


def write_config(folder: Path, vendor: Vendor, **policy: object) -> Path:
    config = json.loads(json.dumps(CONFIG))
    config["policy"] |= {"base_url": vendor.url} | policy
    path = folder / "hosted.yaml"
    path.write_text(yaml.safe_dump(config), "utf-8")
    return path


def what_counts(run: Path) -> dict[str, Any]:
    """Everything of a finished run but times."""
    metrics = [json.loads(line) for line in (run / "metrics.jsonl").read_text("utf-8").splitlines()]
    files = sorted((run / "fine-tuning").glob("*.jsonl"))
    return {
        "metrics": metrics,
        "training": [file.read_text("utf-8") for file in files],
        "trajectories": [file.read_bytes() for file in sorted((run / "trajectories").glob("*.jsonl.gz"))],
        "result": json.loads((run / "result.json").read_text("utf-8")),
    }


def asked(vendor: Vendor) -> Counter[str]:
    """How often each chat completion was answered, by what was asked."""
    return Counter(json.dumps(body, sort_keys=True) for body in vendor.bodies if body.get("seed") != 1)


def test_a_run_at_a_vendor(vendor: Vendor, tmp_path: Path) -> None:
    config = write_config(tmp_path, vendor)
    finish("train", config, "--run-dir", tmp_path / "run")
    assert [job.body["model"] for job in vendor.jobs] == ["base-model", "tuned:job-0"]
    run = RunDirectory.open(tmp_path / "run", lock=False)
    spent = Journal(run.path / "answers.jsonl").spent
    answered = len((run.path / "answers.jsonl").read_bytes().splitlines()) - 1 - len(vendor.jobs)
    assert CALLS <= answered < 1.2 * CALLS  # answers that are none are asked again
    assert spent.tokens >= 13 * answered
    lines = what_counts(run.path)["metrics"]
    assert all(line["rollout"]["failed"] < 0.1 for line in lines[1:])
    assert {line["rollout"]["entropy"] for line in lines[1:]} == {None}  # no log probabilities there


@pytest.mark.parametrize("at", ["rollout", "upload", "poll"])
def test_a_killed_run_pays_for_nothing_twice(vendor: Vendor, whole: Whole, tmp_path: Path, at: str) -> None:
    config = write_config(tmp_path, vendor)
    held = {"rollout": ("chat/completions", 50), "upload": ("/files", 2), "poll": ("fine_tuning/jobs/", 3)}
    part, number = held[at]
    process = start("train", config, "--run-dir", tmp_path / "killed")
    deadline = time.monotonic() + 60
    while sum(part in path for _, path in vendor.seen) < number and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert not (tmp_path / "killed" / "result.json").exists()
    finish("resume", tmp_path / "killed")
    assert what_counts(tmp_path / "killed") == whole.counts
    assert len(vendor.jobs) == whole.num_jobs
    again = asked(vendor) - whole.asked  # only what was on the way when it was killed
    assert sum(again.values()) <= CONFIG["policy"]["endpoint"]["concurrency"]


@pytest.mark.slow
def test_a_run_survives_a_vendor_that_fails_often(vendor: Vendor, whole: Whole, tmp_path: Path) -> None:
    config = write_config(tmp_path, vendor)
    luck = random.Random(0)
    kinds = ["status:429:retry-after-ms=30", "status:500", "drop", "torn", "half", "wrong", "stall"]
    vendor.stall = 30.0  # of which the client waits for 2
    faults: list[str] = []

    def fault_for(_: str) -> str | None:
        if luck.random() >= 0.2:
            return None
        faults.append(luck.choice(kinds))
        return faults[-1]

    vendor.fault_for = fault_for  # type: ignore[method-assign]
    finish("train", config, "--run-dir", tmp_path / "faulty")
    assert len(faults) > 0.15 * CALLS
    assert set(faults) == set(kinds)
    assert what_counts(tmp_path / "faulty") == whole.counts
    assert len(vendor.jobs) == ITERATIONS


def test_rollouts_that_never_answer_are_kept_and_counted(vendor: Vendor, tmp_path: Path) -> None:
    vendor.answers = lambda request: "no" if len(request["messages"]) > 9 else legal(request)
    config = write_config(tmp_path, vendor, attempts=2)
    finish("train", config, "--run-dir", tmp_path / "run", "--set", "iterations=1")
    lines = what_counts(tmp_path / "run")["metrics"]
    assert lines[1]["rollout"]["failed"] == 1
    assert lines[1]["mask"]["share"] == 0
    assert not vendor.jobs  # there was nothing to learn


def test_the_budget_stops_a_run_before_it_is_passed(vendor: Vendor, whole: Whole, tmp_path: Path) -> None:
    config = write_config(tmp_path, vendor)
    run = tmp_path / "run"
    said = finish("train", config, "--run-dir", run, "--set", "budget.max_tokens=3000", code=2)
    assert "budget of 3,000 tokens" in said
    assert "rmft resume" in said
    assert 300 < Journal(run / "answers.jsonl").spent.tokens <= 3000
    finish("resume", run, "--max-tokens", "1000000")
    assert what_counts(run) == whole.counts


def test_a_budget_in_usd_needs_prices(vendor: Vendor, tmp_path: Path) -> None:
    prices = {"compatible": {"models": {"base-model": {
        "input": 1.0, "output": 2.0, "tuned_input": 1.0, "tuned_output": 2.0, "training": 5.0,
    }}}}  # fmt: skip
    (tmp_path / "prices.yaml").write_text(yaml.safe_dump(prices), "utf-8")
    config = write_config(tmp_path, vendor)
    for number, (more, found) in enumerate((
        ([], "price of this model is not known"),
        (["--set", f"policy.catalogue={tmp_path}/prices.yaml"], "budget of 0.004 USD"),
    )):  # fmt: skip
        run = tmp_path / str(number)
        limit = ("--set", "budget.max_usd=0.004")
        assert found in finish("train", config, "--run-dir", run, *limit, *more, code=2)
    spent = Journal(tmp_path / "1" / "answers.jsonl").spent
    assert spent.usd is not None
    assert 0.0001 < spent.usd <= 0.004


@pytest.mark.parametrize("date", ["retires", "trains_until"])
def test_a_model_that_ends_before_the_run_is_refused(vendor: Vendor, tmp_path: Path, date: str) -> None:
    vendor.shutdown = None
    ends = {"compatible": {"models": {"base-model": {date: "2026-01-06"}}}}
    (tmp_path / "ends.yaml").write_text(yaml.safe_dump(ends), "utf-8")
    config = write_config(tmp_path, vendor, catalogue=f"{tmp_path}/ends.yaml")
    said = finish("train", config, "--run-dir", tmp_path / "run", code=2)
    assert "2026-01-06" in said
    assert "past_retirement" in said
    assert not (tmp_path / "run").exists()
    insist = ("--set", "policy.past_retirement=true", "--set", "iterations=1")
    finish("train", config, "--run-dir", tmp_path / "run", *insist)


@pytest.mark.parametrize("calls", [0, 4])
def test_a_forecast_is_near_what_a_run_costs(
    vendor: Vendor, tmp_path: Path, capsys: pytest.CaptureFixture[str], calls: int
) -> None:
    config = write_config(tmp_path, vendor)
    with pytest.raises(SystemExit) as ended:
        main(["train", str(config), "--dry-run", "--calls", str(calls)])
    assert ended.value.code == 0
    table = capsys.readouterr().out
    (together,) = (line for line in table.splitlines() if "together" in line)
    cells = [cell.strip() for cell in together.split("│") if cell.strip()]
    assert int(cells[1].replace(",", "")) == CALLS
    assert (cells[-1] == "unknown") == (calls == 0)
    assert sum("chat/completions" in path for _, path in vendor.seen) >= (calls and calls + 5)
    assert not vendor.jobs
    assert list(tmp_path.iterdir()) == [config]


def test_the_small_example_costs_less_than_its_budget() -> None:
    config = load_config(Path("hosted-small"))
    (*_, together) = forecast_run(config, load_suites(config), 0, None)
    assert together.usd is not None
    assert config.budget.max_usd is not None
    assert together.usd < config.budget.max_usd <= 1


def test_a_trained_model_is_evaluated_and_watched_and_asked_nothing_twice(
    vendor: Vendor, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    finish("train", write_config(tmp_path, vendor), "--run-dir", run)
    evaluate = ("evaluate", run, "--num-problems", "2", "--against", "start", "--against", "thompson")
    finish(*evaluate)
    journal = (run / "answers-evaluation.jsonl").read_text("utf-8").splitlines()
    keys = Counter(json.loads(line)["key"] for line in journal)
    assert max(keys.values()) == 1, "the policies of a run share what is known of its endpoint"
    before = sum(asked(vendor).values())
    finish(*evaluate)
    assert sum(asked(vendor).values()) == before
    command = [sys.executable, "-m", "rmft.cli", "play", str(run)]
    done = subprocess.run(
        command, env=os.environ | {"VENDOR_KEY": KEY}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "Round 8" in done.stdout
    assert "Thompson sampling" in done.stdout
    assert sum(asked(vendor).values()) > before


def test_no_key_is_ever_written(vendor: Vendor, tmp_path: Path) -> None:
    """Nor told: in a run whose job fails and whose key is then refused, resumed, evaluated and reported."""
    config, run = write_config(tmp_path, vendor), tmp_path / "run"
    vendor.script = ("queued", "failed")
    said = finish("train", config, "--run-dir", run, "--set", "iterations=1", code=2)
    vendor.faults = [("fine_tuning/jobs", "status:401")]
    said += finish("resume", run, code=2)
    vendor.script = ("succeeded",)
    said += finish("resume", run)
    said += finish("evaluate", run, "--num-problems", "2", "--against", "thompson")
    said += finish("report", run)
    assert not vendor.faults
    assert "it broke" in said
    for path in tmp_path.rglob("*"):
        if path.is_file():
            assert KEY.encode() not in path.read_bytes(), path
    assert KEY not in said


def test_a_refused_key_stops_at_once(vendor: Vendor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = write_config(tmp_path, vendor)
    monkeypatch.setenv("VENDOR_KEY", "sk-wrong-9876543210")
    process = subprocess.run(
        [sys.executable, "-m", "rmft.cli", "train", str(config), "--run-dir", str(tmp_path / "run")],
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert process.returncode == 2
    assert b"VENDOR_KEY" in process.stderr
    assert b"sk-wrong" not in process.stderr + process.stdout
    assert len(vendor.seen) == 1
    assert not (tmp_path / "run").exists()


def test_a_journal_keeps_what_was_whole(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    journal = Journal(path)
    journal.put("a", {"tokens": 3, "usd": 0.5})
    journal.put("b", {"tokens": 4, "usd": None})
    journal.put("a", {"tokens": 3, "usd": 0.5})  # again, which costs nothing
    with path.open("ab") as file:
        file.write(b'{"key": "c", "tok')
    again = Journal(path)
    assert again.get("b") == {"key": "b", "tokens": 4, "usd": None}
    assert again.get("c") is None
    assert (again.spent.tokens, again.spent.usd) == (7, None)
    again.put("c", {})
    assert Journal(path).get("c") == {"key": "c"}


def test_a_damaged_journal_says_where(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    path.write_bytes(b'{"key": "a"}\n{"key": 7}\n')
    with pytest.raises(RunDirectoryError, match="Line 2"):
        Journal(path)


def test_a_budget_counts_what_is_on_the_way() -> None:
    journal = Journal(None, BudgetConfig(max_tokens=100))
    with journal.within_budget(60, None):
        journal.put("a", {"tokens": 50})
    with journal.within_budget(30, None), pytest.raises(BudgetError), journal.within_budget(30, None):
        pass
    with pytest.raises(BudgetError), journal.within_budget(1, None):
        pass  # once stopped, stopped


LETTERS = ("K", "B", "T")


def answered(text: str, *tokens: tuple[str, dict[str, float]]) -> Answer:
    """An answer whose tokens had these alternatives, by probability; the first is what was said."""
    logprobs = [
        TokenLogprob(said, math.log(top[said]), {each: math.log(share) for each, share in top.items()})
        for said, top in tokens
    ]
    return Answer(text, "stop", 10, len(tokens), tuple(logprobs))


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (answered("K", ("K", {"K": 0.5, "B": 0.3, "T": 0.2})), [0.5, 0.3, 0.2]),
        (answered("K", ("K", {"K": 0.6, "x": 0.2})), [0.75, 0.125, 0.125]),  # .2 are left for B and T
        (answered("K", ("K", {"K": 0.6, "x": 0.2, "T": 0.2})), [0.75, 0, 0.25]),
        (answered(" T.", (" T", {" T": 0.9, " B": 0.1, "K": 0.0001}), (".", {".": 1.0})), [0, 0.1, 0.9]),
        (
            answered(
                '{"choice":"B"}', ('{"', {'{"': 1.0}), ("choice", {"choice": 1.0}),
                ('":"', {'":"': 1.0}), ("B", {"B": 0.25, "K": 0.75}), ('"}', {'"}': 1.0}),
            ),
            [0.75, 0.25, 0],
        ),
        (answered('"B"', ('"B', {'"B': 0.5, '"T': 0.5}), ('"', {'"': 1.0})), [0, 0.5, 0.5]),
        (Answer("K", "stop", 10, 1), None),
    ],
)  # fmt: skip
def test_probabilities_are_those_of_the_token_that_named_the_arm(
    answer: Answer, expected: list[float] | None
) -> None:
    found = probabilities(LETTERS, answer)
    if expected is None or found is None:
        assert found is expected
    else:
        assert found.tolist() == pytest.approx(expected, abs=1e-3)
