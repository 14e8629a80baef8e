"""The command line: what it prints and where, its exit codes, and a clear message for every mistake."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import yaml
from rich.cells import cell_len
from rich.table import Table

import rmft
from full_disk import full_disk
from rmft.api import default_run_dir
from rmft.cli import main
from rmft.cli.app import print_table
from rmft.config import parse_config
from rmft.errors import ConfigError, RunDirectoryError
from rmft.policies.baselines.catalogue import baseline_names
from rmft.problems.suites import suite_names
from rmft.progress import TrainingProgress
from rmft.results import Evaluation
from rmft.run_directory import RunDirectory
from run_files import evaluation_in

EXAMPLES = Path(__file__).parents[1] / "examples"
CONFIG = """
name: tiny
suite: smoke
iterations: 3
policy: {width: 8, num_heads: 2, num_layers: 1}
rollout: {num_problems: 4, num_rollouts: 4}
credit: {num_selected: 2}
training: {batch_size: 8}
validation: {every: 2, num_problems: 10}
num_threads: 1
"""
SETTING = {
    "name": "one",
    "feedback": "bandit",
    "horizon": 6,
    "num_arms": 3,
    "reward_process": {"kind": "bernoulli"},
}
COMMANDS = ("train", "resume", "evaluate", "report", "compare", "suites", "baselines")


@dataclass
class Ended:
    """How a command ended, and what it printed."""

    code: int
    out: str
    err: str


Rmft = Callable[..., Ended]


@pytest.fixture
def rmft_(capsys: pytest.CaptureFixture[str]) -> Rmft:
    def run(*arguments: object) -> Ended:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
        printed = capsys.readouterr()
        assert "Traceback" not in printed.err
        for text in printed:
            assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f]", text), "control characters in a pipe"
        return Ended(int(ended.value.code or 0), printed.out, printed.err)

    return run


@pytest.fixture
def refused(rmft_: Rmft) -> Callable[..., str]:
    """The message of a command that a user's mistake ends."""

    def run(*arguments: object) -> str:
        ended = rmft_(*arguments)
        assert ended.code == 2
        assert ended.out == "", "what is refused prints nothing to be read by a program"
        assert ended.err.count("Error: ") == 1
        return ended.err.partition("Error: ")[2]

    return run


Refused = Callable[..., str]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    (folder / "tiny.yaml").write_text(CONFIG)
    with pytest.raises(SystemExit) as ended:
        main(["train", str(folder / "tiny.yaml"), "--run-dir", str(folder / "run")])
    assert not ended.value.code
    return folder / "run"


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(CONFIG)
    return path


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """A copy of a finished run, to be spoiled."""
    return Path(shutil.copytree(trained, tmp_path / "run"))


@pytest.fixture
def suite_file(tmp_path: Path) -> Callable[..., Path]:
    def write(baselines: tuple[str, ...] = ("uniform",), **setting: object) -> Path:
        parts = {"train": {"settings": [SETTING | setting]}}
        sizes = {"validation": {"num_problems": 10}, "held_out": {"num_problems": 10}}
        suite = {"name": "mine", "title": "My own", "baselines": list(baselines)} | parts | sizes
        path = tmp_path / "mine.yaml"
        path.write_text(yaml.safe_dump(suite))
        return path

    return write


def test_help_names_every_command(rmft_: Rmft) -> None:
    ended = rmft_("--help")
    assert ended.code == 0
    assert all(re.search(rf"\b{command}\b", ended.out) for command in COMMANDS)
    assert "Start with: rmft train smoke" in ended.out


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(rmft_: Rmft, command: str) -> None:
    ended = rmft_(command, "--help")
    assert ended.code == 0
    assert f"{command} [OPTIONS]" in ended.out
    documented = {
        "train": ["--run-dir", "runs/<name>-<time>", "--set"],
        "evaluate": ["--suite", "--against", "--json", "start and the suite's", "as many as the suite says"],
        "report": ["report.html in the run"],
    }
    for option in documented.get(command, []):
        assert option in " ".join(re.sub("[│\n]", " ", ended.out).split())


def test_version(rmft_: Rmft) -> None:
    assert rmft_("--version") == Ended(0, f"rmft {rmft.__version__}\n", "")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), ""),
        (("tran",), "Did you mean 'train'"),
        (("train",), "give a CONFIG, or a task by --task FOLDER"),
        (("compare",), "Missing argument"),
        (("evaluate", "ucb", "--num-problems", "1"), "greater than or equal"),
        (("evaluate", "ucb", "--num-problems", "many"), "valid integer"),
        (("suites", "--jsn"), "No such option"),
    ],
)
def test_wrong_usage_ends_with_2(rmft_: Rmft, arguments: tuple[str, ...], message: str) -> None:
    ended = rmft_(*arguments)
    assert ended.code == 2
    assert message in ended.err


def test_suites_lists_all_with_their_titles(rmft_: Rmft) -> None:
    ended = rmft_("suites")
    assert ended.code == 0
    for name, title in suite_names().items():
        [line] = [line for line in ended.out.splitlines() if f" {name} " in line]
        assert title in line


def test_baselines_lists_all(rmft_: Rmft) -> None:
    ended = rmft_("baselines")
    assert ended.code == 0
    for name in baseline_names():
        assert re.search(rf"^│ {re.escape(name)} ", ended.out, re.MULTILINE)


def test_training_tells_in_plain_lines_how_far_it_is(rmft_: Rmft, config: Path, tmp_path: Path) -> None:
    ended = rmft_("train", config, "--run-dir", tmp_path / "run")
    assert ended.code == 0
    first, *_, last = (line for line in ended.err.splitlines() if line.startswith("iteration "))
    assert re.fullmatch(r"iteration 0/3: regret \d\.\d\d \((ucb|greedy|thompson) \d\.\d\d\)", first)
    assert re.fullmatch(r"iteration 3/3: regret \d\.\d\d \(.*\), [\d,]+ rounds/s, 0 s left", last)
    assert f"Next: rmft evaluate {tmp_path / 'run'}" in ended.err
    assert re.fullmatch(r"Validation regret went from \d\.\d\d to .*\n", ended.out)


def test_a_run_goes_to_runs_unless_told_otherwise(
    rmft_: Rmft, config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert rmft_("train", config, "--set", "iterations=1", "--set", "name=other").code == 0
    [run] = (tmp_path / "runs").iterdir()
    assert re.fullmatch(rf"other-\d{{8}}-\d{{6}}-{os.getpid()}", run.name)
    assert yaml.safe_load((run / "config.yaml").read_text())["iterations"] == 1


def test_evaluate_prints_a_table_and_keeps_the_evaluation(rmft_: Rmft, run: Path) -> None:
    ended = rmft_("evaluate", run, "--num-problems", 20)
    assert ended.code == 0
    assert "smoke held_out: 20 problems x 1 rollouts, 95% intervals" in ended.out
    kept = Evaluation.from_json(evaluation_in(run).read_text())
    assert kept.policies == ["best", "start", "uniform", "greedy", "ucb", "thompson"]
    for policy in kept.policies:
        assert re.search(rf"^│ {policy} ", ended.out, re.MULTILINE)
    assert f"Next: rmft report {run}" in ended.err


def test_evaluate_json_prints_nothing_but_the_evaluation(rmft_: Rmft, run: Path) -> None:
    ended = rmft_("evaluate", run, "--num-problems", 20, "--json", "--against", "start", "--against", "ucb")
    assert ended.code == 0
    printed = Evaluation.from_json(ended.out)
    assert printed.policies == ["best", "start", "ucb"]
    assert printed == Evaluation.from_json(evaluation_in(run).read_text())
    difference = printed.overall["best"].paired_difference["start"]["regret"]
    assert difference.mean is not None
    assert json.loads(ended.out)["overall"]["best"]["measures"]["regret"]["mean"] is not None
    assert "best (1 of 3)" in ended.err


def test_evaluation_on_another_suite_is_kept_apart(rmft_: Rmft, run: Path) -> None:
    arguments = ("--suite", "mab/uniform-means", "--num-problems", 10, "--against", "uniform")
    assert rmft_("evaluate", run, *arguments).code == 0
    assert rmft_("evaluate", run, "--part", "validation", "--num-problems", 10).code == 0
    kept = sorted(path.name[:-13] for path in run.glob("evaluation*"))
    assert kept == ["evaluation-mab-uniform-means-held_out-", "evaluation-smoke-validation-"]


def test_no_evaluation_replaces_one_of_other_settings_or_of_a_suite_of_the_same_name(
    rmft_: Rmft, run: Path, tmp_path: Path
) -> None:
    assert rmft_("evaluate", run).code == 0
    whole = (run / "evaluation.json").read_bytes()
    own = yaml.safe_load((run / "suite.yaml").read_text())
    few: dict[str, object] = {"--num-problems": 4, "--against": "start"}
    changes: list[dict[str, object]] = [{}, {"--seed": 1}, {"--num-rollouts": 2}, {"--against": "ucb"}]
    for number, name in enumerate(
        ("smoke", "AA/bb", "AA-bb", "x" * 200)
    ):  # the first is named like the run's
        own["train"]["settings"][0]["horizon"] = 5 + number
        suite = tmp_path / f"{number}.yaml"
        suite.write_text(yaml.safe_dump({**own, "name": name}))
        changes.append({"--suite": suite})
    for change in changes:
        asked = [text for option in (few | change).items() for text in option]
        assert rmft_("evaluate", run, *asked).code == 0
    assert len(list(run.glob("evaluation-*.json"))) == len(list(run.glob("conversations-*"))) == len(changes)
    assert (run / "evaluation.json").read_bytes() == whole
    assert (
        rmft_("evaluate", run, "--suite", "smoke", "--num-problems", own["held_out"]["num_problems"]).code
        == 0
    )
    assert len(list(run.glob("evaluation-*.json"))) == len(changes), "the run's own suite, by its name"
    assert (run / "conversations.jsonl.gz").exists()


def test_where_nothing_can_be_kept_nothing_is_played(refused: Refused, run: Path) -> None:
    (run / "evaluation.json.tmp").mkdir()
    assert "Can't write to" in refused("evaluate", run)


def test_baselines_and_checkpoints_are_evaluated_too(rmft_: Rmft, run: Path) -> None:
    ended = rmft_("evaluate", "ucb(coefficient=0.4)", "--suite", "smoke", "--num-problems", 10, "--json")
    found = Evaluation.from_json(ended.out)
    assert found.policies[0] == "ucb(coefficient=0.4)"
    assert found.rivals is not None
    assert set(found.rivals) == set(found.policies[1:])
    assert found.rivals[-1] == "uniform"
    folder = run / "checkpoints" / "000003"
    arguments = ("--suite", "smoke", "--num-problems", 10, "--against", "tuned:ucb", "--json")
    ended = rmft_("evaluate", folder, *arguments)
    checkpoint, tuned = Evaluation.from_json(ended.out).policies
    assert checkpoint == "000003"
    assert tuned.startswith("tuned:ucb(")


def test_evaluating_again_gives_the_same_numbers_and_another_seed_others(rmft_: Rmft, run: Path) -> None:
    arguments = ("evaluate", run, "--num-problems", 10, "--against", "start", "--json")
    first, again, other = rmft_(*arguments), rmft_(*arguments), rmft_(*arguments, "--seed", 1)
    assert first.out == again.out != other.out


def test_report_and_compare(rmft_: Rmft, run: Path, trained: Path, tmp_path: Path) -> None:
    ended = rmft_("report", run)
    assert (ended.code, ended.out.strip()) == (0, str(run / "report.html"))
    assert rmft_("report", run, "-o", tmp_path / "other.html").code == 0
    assert (tmp_path / "other.html").read_bytes().startswith(b"<!")
    ended = rmft_("compare", run, trained)
    assert ended.code == 0
    assert "best iteration" in ended.out


def test_my_own_process_and_environment_train(
    rmft_: Rmft,
    config: Path,
    tmp_path: Path,
    suite_file: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """And what was changed since, or is gone, leaves the run as it is: it has a copy."""
    source, run = tmp_path / "my_process.py", tmp_path / "run"
    source.write_bytes((EXAMPLES / "my_process.py").read_bytes())
    monkeypatch.chdir(tmp_path)
    process = {"kind": "my_process:MyProcess", "gap": 0.5}
    suite = suite_file(reward_process=process, environment="my_process:MyEnvironment")
    ended = rmft_("train", config, "--run-dir", run, "--set", f"suite={suite}")
    assert ended.code == 0
    ended = rmft_("evaluate", run, "--json", "--trust-code")
    assert Evaluation.from_json(ended.out).settings["one"].regret == "dynamic"
    assert "the run's copy" not in ended.err
    source.write_text("raise SystemExit")
    again = rmft_("evaluate", run, "--json", "--trust-code")
    assert again.out == ended.out
    kept = run / "own-code" / "0" / "my_process.py"
    assert f"my_process.py is not what it was when the run began; the run's copy is used: {kept}" in again.err


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["iteratons=3"], "Unknown key 'iteratons'. Did you mean 'iterations'?"),
        (["iterations=many"], "iterations: found 'many'; expected: a valid integer"),
        (["rollout.num_rollouts=1"], "keep at most as many as are rolled out"),
        (["suite=smok"], "Unknown suite 'smok'. Did you mean 'smoke'?"),
        (["suite=nowhere.yaml"], "nowhere.yaml: this suite file could not be read"),
        (["seed"], "--set takes KEY=VALUE such as rollout.num_rollouts=16; found 'seed'."),
        (["seed=2001-13-45"], "--set seed: the value '2001-13-45' is not valid YAML"),
        (["seed.a=1", "seed.a.b=1"], "'seed.a' holds no settings"),
        (["policy.width=30", "policy.num_heads=4"], "num_heads 4 must divide width 30"),
    ],
)
def test_a_wrong_setting_is_refused_before_anything_is_written(
    refused: Refused, config: Path, tmp_path: Path, settings: list[str], message: str
) -> None:
    options = [option for setting in settings for option in ("--set", setting)]
    assert message in refused("train", config, "--run-dir", tmp_path / "run", *options)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"horizon": 0}, "horizon: found 0; expected: greater than or equal to 1"),
        ({"num_arms": 1}, "num_arms: found 1; expected: greater than or equal to 2"),
        ({"feedback": "ful"}, "feedback: found 'ful'; expected: 'full' or 'bandit'"),
        (
            {"reward_process": {"kind": "bernouli"}},
            "Unknown reward process 'bernouli'. Did you mean 'bernoulli'?",
        ),
        ({"reward_process": {"kind": "bernoulli", "gapp": 1}}, "Unknown key 'gapp'. Did you mean 'gap'?"),
        ({"reward_process": {"kind": "nowhere:Mine"}}, "found no file nowhere.py in"),
        ({"baselines": ("thomson",)}, "Unknown baseline 'thomson'. Did you mean 'thompson'?"),
        ({"baselines": ("tuned:ubc",)}, "Unknown baseline 'ubc'. Did you mean 'ucb'?"),
        ({"baselines": ("ucb(coeff=1)",)}, "Unknown parameter of ucb 'coeff'. Did you mean 'coefficient'?"),
        ({"horizn": 3}, "Unknown key 'horizn'. Did you mean 'horizon'?"),
    ],
)
def test_a_wrong_suite_is_refused_before_anything_is_written(
    refused: Refused,
    config: Path,
    tmp_path: Path,
    suite_file: Callable[..., Path],
    keys: dict[str, object],
    message: str,
) -> None:
    suite = suite_file(**keys)
    assert message in refused("train", config, "--run-dir", tmp_path / "run", "--set", f"suite={suite}")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a,b,c\n" + "0,1,0\n" * 5 + "0,nan,1\n", "line 7, column 'b': found 'nan', a missing value"),
        ("0,1,0\n" * 5 + "0,inf,1\n", "line 6, column 2: found 'inf'; expected a finite number"),
        ("0,1,0\n" * 5 + "0,1\n", "line 6: found 2 columns; expected 3"),
        ("0,1\n" * 6, "the log has 2 arms (columns); the setting has num_arms 3"),
        ("0,1,0\n" * 5, "the log has 5 rounds (rows); the setting's horizon is 6"),
        ("", "found 0 rounds of 0 arms; expected at least 1 round and 2 arms"),
    ],
)
def test_a_wrong_log_of_rewards_is_refused_with_its_place(
    refused: Refused, tmp_path: Path, suite_file: Callable[..., Path], content: str, message: str
) -> None:
    (tmp_path / "log.csv").write_text(content)
    suite = suite_file(reward_process={"kind": "logged", "rewards": "log.csv"})
    assert message in refused("evaluate", "ucb", "--suite", suite)


def test_a_log_of_rewards_is_evaluated(rmft_: Rmft, tmp_path: Path, suite_file: Callable[..., Path]) -> None:
    (tmp_path / "log.csv").write_text("0,1,0\n" * 9)
    suite = suite_file(reward_process={"kind": "logged", "rewards": "log.csv"})
    result = Evaluation.from_json(rmft_("evaluate", "oracle", "--suite", suite, "--json").out)
    assert result.overall["oracle"].measures["regret"].mean == 0
    assert result.overall["uniform"].measures["regret"].mean == pytest.approx(4, abs=1), "6 rounds x 2/3"


def test_a_config_that_is_missing_is_named_with_the_nearest(refused: Refused, config: Path) -> None:
    message = refused("train", config.with_name("tinny.yaml"))
    assert message.startswith(f"Can't read the config '{config.with_name('tinny.yaml')}'")
    assert f"Did you mean '{config}'?" in message


@pytest.mark.parametrize("place", ["file/run", "file/a/run", "n" * 300])
def test_an_unwritable_place_is_refused(
    refused: Refused, config: Path, tmp_path: Path, trained: Path, place: str
) -> None:
    (tmp_path / "file").write_text("")
    message = refused("train", config, "--run-dir", tmp_path / place)
    assert message.startswith("Can't write the run directory")
    assert sorted(os.listdir(tmp_path)) == ["file", "tiny.yaml"]
    assert place in refused("report", trained, "-o", tmp_path / place / "report.html")


@pytest.mark.parametrize("name", ["nothing", "n" * 300])
@pytest.mark.parametrize("command", ["resume", "report", "compare"])
def test_a_run_that_is_missing_is_refused(refused: Refused, tmp_path: Path, command: str, name: str) -> None:
    assert str(tmp_path / name) in refused(command, tmp_path / name)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("ubc", "--suite", "smoke"), "Unknown run, checkpoint or baseline 'ubc'. Did you mean 'ucb'?"),
        (("ucb",), "'ucb' is no run, so name the problems to play with --suite."),
        (("ucb", "--suite", "smok"), "Unknown suite 'smok'. Did you mean 'smoke'?"),
        (
            ("ucb", "--suite", "smoke", "--part", "heldout"),
            "Unknown part 'heldout'. Did you mean 'held_out'?",
        ),
        (("ucb", "--suite", "smoke", "--part", "train"), "Unknown part 'train'"),
        (("ucb", "--suite", "smoke", "--against", "start"), "'start' is the policy before training of a run"),
        (
            ("ucb", "--suite", "smoke", "--against", "greddy"),
            "Unknown baseline 'greddy'. Did you mean 'greedy'?",
        ),
        (("ucb(coefficient=x)", "--suite", "smoke"), "Wrong value for coefficient"),
        (("ucb(coefficient", "--suite", "smoke"), "Cannot read the baseline 'ucb(coefficient'"),
        (
            ("hedge", "--suite", "smoke"),
            "The baseline 'hedge' can't play",
        ),
        (("n" * 300, "--suite", "smoke"), "Unknown run, checkpoint or baseline 'nnn"),
        ((str(EXAMPLES), "--suite", "smoke"), "is no policy of this version, or is damaged"),
        (("ucb", "--suite", "smoke", "--num-problems", "9000000"), "expected at most 100,000,000, so "),
        (("ucb", "--suite", "smoke", "--num-problems", "9" * 30), "expected 1 to 10,000,000 in all"),
    ],
)
def test_what_can_not_be_evaluated_is_refused(
    refused: Refused, arguments: tuple[str, ...], message: str
) -> None:
    assert message in refused("evaluate", *arguments)


def test_a_wrong_opponent_is_refused_before_anything_is_played(rmft_: Rmft, run: Path) -> None:
    ended = rmft_("evaluate", run, "--against", "greddy")
    assert ended.code == 2
    assert ended.err.startswith("Error: Unknown baseline 'greddy'")
    assert not list(run.glob("evaluation*"))


@pytest.mark.parametrize("name", ["x" * 300, "a\0b", "\ud800"])
@pytest.mark.parametrize("where", ["setting", "suite"])
def test_a_name_that_results_could_not_hold_is_refused_before_training(
    refused: Refused, config: Path, suite_file: Callable[..., Path], tmp_path: Path, name: str, where: str
) -> None:
    suite = yaml.safe_load(suite_file().read_text())
    (suite if where == "suite" else suite["train"]["settings"][0])["name"] = name
    (tmp_path / "mine.json.yaml").write_text(json.dumps(suite))
    message = refused("train", config, "--set", f"suite={tmp_path / 'mine.json.yaml'}")
    assert "name" in message


def test_runs_that_start_in_the_same_second_are_kept_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config = parse_config({})
    first, second = default_run_dir(config), default_run_dir(config)
    second.mkdir(parents=True)
    third = default_run_dir(config)
    third.mkdir()  # as if there were none of that name
    assert len({second, third, default_run_dir(config)}) == 3
    assert first.name.startswith(f"{config.name}-")


def test_a_paid_run_needs_a_budget_or_a_word(refused: Refused, config: Path) -> None:
    hosted = ("--set", "policy.kind=hosted", "--set", "policy.model=m", "--set", "suite=words/mab")
    plain = yaml.safe_load(config.read_text())
    config.write_text(
        yaml.safe_dump({key: plain[key] for key in ("name", "iterations", "rollout", "credit")})
    )
    assert "no budget is set" in refused("train", config, *hosted)
    with pytest.raises(ConfigError, match="no budget is set"):
        rmft.train(config, settings=[each for each in hosted if each != "--set"])
    for word in (["--no-budget"], ["--set", "budget.max_tokens=1000"]):
        assert "no budget is set" not in refused(
            "train", config, *hosted, *word
        )  # of a key, which there is none


def test_a_forecast_s_options_start_no_run(refused: Refused, config: Path) -> None:
    assert "which --dry-run makes" in refused("train", config, "--calls", 3)
    assert "language models take; policy.kind is arm_encoder" in refused("train", config, "--dry-run")


def test_a_number_is_no_yes(refused: Refused, config: Path) -> None:
    assert "iterations: found true" in refused("train", config, "--set", "iterations=yes")
    assert "learning_rate: found false" in refused("train", config, "--set", "training.learning_rate=off")


def test_what_changed_since_a_run_began_is_told_on_resuming(rmft_: Rmft, run: Path) -> None:
    cut_after(run, 1)
    ended = rmft_("resume", run)
    assert "Not as when" not in ended.err
    assert "iteration 0/3" not in ended.err
    cut_after(run, 1)
    about = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps({**about, "versions": {**about["versions"], "numpy": "1.0"}}))
    (run / "config.yaml").write_text(
        (run / "config.yaml").read_text().replace("iterations: 3", "iterations: 2")
    )
    told = rmft_("resume", run).err
    assert f"numpy was 1.0 and is {np.__version__}; config.yaml was edited." in told


def cut_after(run: Path, iteration: int) -> None:
    """As if it had been killed then."""
    lines = (run / "metrics.jsonl").read_text().splitlines(keepends=True)
    (run / "metrics.jsonl").write_text("".join(lines[: iteration + 1]))
    if not (run / "checkpoints" / f"{iteration:06d}").exists():
        shutil.copytree(run / "checkpoints" / "000000", run / "checkpoints" / f"{iteration:06d}")


@pytest.mark.parametrize("regret", ["static", "pseudo", "dynamic"])
def test_the_oracle_has_no_regret_of_any_kind(
    rmft_: Rmft, suite_file: Callable[..., Path], regret: str
) -> None:
    ended = rmft_("evaluate", "oracle", "--suite", suite_file(regret=regret), "--json")
    assert Evaluation.from_json(ended.out).overall["oracle"].measures["regret"].mean == pytest.approx(0)


def test_a_report_replaces_reports_only(refused: Refused, rmft_: Rmft, run: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.html").write_text("mine")
    (tmp_path / "link.html").symlink_to(tmp_path / "thesis.html")
    os.mkfifo(tmp_path / "pipe")
    for place in ("link.html", "pipe"):
        assert "does not replace" in refused("report", run, "--force", "-o", tmp_path / place)
    assert "empty argument after '-o'" in refused("report", run, "-o", "")
    assert "no ordinary file" in refused("report", run, "-o", "/dev/null")
    assert "exists and is no report" in refused("report", run, "-o", tmp_path / "thesis.html")
    assert (tmp_path / "thesis.html").read_text() == "mine"
    assert rmft_("report", run, "--force", "-o", tmp_path / "thesis.html").code == 0
    assert rmft_("report", run, "-o", tmp_path / "thesis.html").code == 0, "by now a report"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("run.json", b'{"for', "run.json' is damaged: it is not valid JSON"),
        ("run.json", b'{"format": 3, "rmft": "9.1"}', "has format 3; rmft"),
        ("run.json", None, "is no run directory, or is damaged: run.json No such file"),
        ("config.yaml", b"seed: {", "config.yaml' is not valid YAML"),
        ("config.yaml", b"sed: 1", "config.yaml: Unknown key 'sed'. Did you mean 'seed'?"),
        ("config.yaml", None, "config.yaml': No such file"),
        ("suite.yaml", b"name: 1", "suite.yaml: name: found 1; expected: a valid string"),
        ("suite.yaml", b"\xff", "suite.yaml' is not valid YAML"),
        ("suite.yaml", None, "suite.yaml': No such file"),
        ("baselines.json", b"{}", "baselines.json' is damaged"),
        ("baselines.json", b'{"ucb": 1}', "baselines.json' is damaged"),
        ("baselines.json", b'{"ucb": {"regret": {"mean": null}}}', "baselines.json' is damaged"),
        ("baselines.json", b"x", "baselines.json' is damaged"),
        ("checkpoints/000002/policy.safetensors", b"half", "is no policy of this version, or is damaged"),
        ("checkpoints/000002/policy.safetensors", None, "is no policy of this version, or is damaged"),
        ("checkpoints/000002", None, "checkpoints/000002' is missing"),
        ("checkpoints/000002/optimizer.safetensors", b"half", "missing or damaged"),
        ("checkpoints/000002/optimizer.safetensors", None, "missing or damaged"),
    ],
)
def test_a_damaged_run_is_not_resumed(
    refused: Refused, run: Path, name: str, content: bytes | None, message: str
) -> None:
    """One iteration of three is owed, so that the checkpoint before it is needed."""
    metrics = (run / "metrics.jsonl").read_bytes().splitlines(keepends=True)
    (run / "metrics.jsonl").write_bytes(b"".join(metrics[:3]))
    path = run / name
    if content is not None:
        path.write_bytes(content)
    else:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert message in refused("resume", run)
    assert (run / "metrics.jsonl").read_bytes() == b"".join(metrics[:3])
    if name in ("run.json", "config.yaml", "suite.yaml") and path.exists():
        assert message in refused("evaluate", run)


@pytest.mark.parametrize("line", [b"{", b"", b'{"iteration": 7}', b'{"iteration": 1, "validation": {}}'])
def test_metrics_damaged_in_the_middle_are_refused(refused: Refused, run: Path, line: bytes) -> None:
    path = run / "metrics.jsonl"
    whole = path.read_bytes().splitlines()
    path.write_bytes(b"\n".join([whole[0], line, *whole[2:], b""]))
    before = path.read_bytes()
    for command in ("resume", "evaluate"):
        assert f"Line 2 of '{path}' is damaged" in refused(command, run)
    assert path.read_bytes() == before


def test_a_run_without_a_finished_iteration_has_no_policy_yet(refused: Refused, run: Path) -> None:
    (run / "metrics.jsonl").unlink()
    assert f"'{run}' holds no policy yet. Go on with: rmft resume {run}" in refused("evaluate", run)


def test_a_run_in_use_is_not_resumed_but_evaluated(rmft_: Rmft, refused: Refused, run: Path) -> None:
    with closing(RunDirectory.open(run)):
        assert "is being trained by another process" in refused("resume", run)
        assert rmft_("evaluate", run, "--num-problems", 5, "--against", "start").code == 0
    assert rmft_("resume", run).code == 0


def test_a_run_can_be_compared_with_another_and_with_a_checkpoint(rmft_: Rmft, run: Path) -> None:
    start = run / "checkpoints" / "000000"
    against = ("--against", "start", "--against", start, "--against", run)
    ended = rmft_("evaluate", run, "--num-problems", 10, *against, "--json")
    assert ended.code == 0
    overall = json.loads(ended.out)["overall"]
    assert overall["start"]["measures"] == overall[str(start)]["measures"]
    assert overall["best"]["measures"] == overall[str(run)]["measures"]


def test_a_refused_command_leaves_no_lock_behind(rmft_: Rmft, refused: Refused, run: Path) -> None:
    suite = (run / "suite.yaml").read_bytes()
    (run / "suite.yaml").write_text("name: 1")
    refused("resume", run)
    (run / "suite.yaml").write_bytes(suite)
    assert rmft_("resume", run).code == 0


def test_a_full_disk_while_evaluating_is_reported(rmft_: Rmft, run: Path) -> None:
    with full_disk(2_000):
        ended = rmft_("evaluate", run, "--num-problems", 10, "--against", "start")
        with pytest.warns(UserWarning, match="could not be kept"):
            assert rmft.evaluate(run, num_problems=10, against=["start"]).policies == ["best", "start"]
    assert ended.code == 2
    assert re.search(r"^│ best ", ended.out, re.MULTILINE), "what was played is shown all the same"
    assert "could not be kept" in ended.err
    assert "File too large" in ended.err
    assert not list(run.glob("evaluation*"))


WITHOUT = """
import sys

class NotInstalled:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == sys.argv[1]:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, NotInstalled())
from rmft.cli import main
for command in sys.argv[2:]:
    try:
        main(command.split())
    except SystemExit as ended:
        print("exit code", ended.code or 0, file=sys.stderr)
"""


@pytest.mark.parametrize("missing", ["torch", "safetensors"])
def test_a_missing_extra_says_what_to_install(config: Path, run: Path, tmp_path: Path, missing: str) -> None:
    start = run / "checkpoints" / "000000"
    needing = [f"train {config} --run-dir {tmp_path / 'new'}", f"resume {run}"]
    needing += [f"evaluate {run}", f"evaluate {start} --suite smoke"]
    others = ["suites", "evaluate ucb --suite smoke --num-problems 10"]
    before = (run / "result.json").read_bytes()
    command = [sys.executable, "-c", WITHOUT, missing, *needing, *others]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=100, check=True)
    lines = ended.stderr.splitlines()
    needed = f"Error: This needs the package '{missing}', which is not installed."
    assert lines[:8] == [f"{needed} Run: pip install 'rmft[torch]'", "exit code 2"] * 4
    assert [line for line in lines[8:] if line.startswith("exit")] == ["exit code 0"] * 2
    assert not (tmp_path / "new").exists(), "refused before a directory is made"
    assert (run / "result.json").read_bytes() == before


def test_on_a_terminal_progress_is_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    controller, terminal = pty.openpty()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    with open(terminal, "w") as screen:
        monkeypatch.setattr(sys, "stderr", screen)
        with TrainingProgress(20, 1000, ("ucb", 3.5)) as progress:
            progress.on_iteration({"iteration": 0, "validation": {"regret": {"mean": 5.0}}})
            progress.on_iteration({"iteration": 10, "validation": {"regret": {"mean": 4.25}}})
        raw = b""
        while select.select([controller], [], [], 0)[0]:  # a terminal gives a piece at a time
            raw += os.read(controller, 100_000)
        shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", raw.decode())
    os.close(controller)
    assert re.search(r"10/20.*regret 4\.25 \(ucb 3\.50\), [\d,]+ rounds/s", shown)


def test_a_resumed_run_is_timed_from_where_it_went_on(capsys: pytest.CaptureFixture[str]) -> None:
    before = [{"iteration": 9, "validation": {"regret": {"mean": 4.25}}}, {"iteration": 10}]
    with TrainingProgress(12, 1000, None, before=before) as progress:
        assert progress.regret == "regret 4.25", "the last that is known"
        progress.on_iteration({"iteration": 11})
        assert progress.first_iteration == 10, "one iteration was played, not eleven"
        progress.on_iteration({"iteration": 12, "validation": {"regret": {"mean": np.pi}}})
    assert re.fullmatch(
        r"iteration 12/12: regret 3\.14, [\d,]+ rounds/s, 0 s left\n", capsys.readouterr().err
    )


def test_a_run_whose_metrics_were_cut_keeps_its_result(refused: Refused, run: Path) -> None:
    """Resumed it can't be, and what would play as the best is not what was trained."""
    path = run / "metrics.jsonl"
    whole, result = path.read_bytes(), (run / "result.json").read_bytes()
    lines = whole.splitlines(keepends=True)
    best = json.loads(result)["best_iteration"]
    assert best > 0
    shutil.rmtree(run / "checkpoints" / "000001", ignore_errors=True)
    for cut, message in ((lines[:2], "000001' is missing; there are those of 0, "), ([], "is empty")):
        path.write_bytes(b"".join(cut))
        assert message in refused("resume", run)
        assert ("one of them was changed" if cut else "no policy yet") in refused("evaluate", run)
        with closing(RunDirectory.open(run)) as opened, pytest.raises(RunDirectoryError):
            opened.extend(opened.config.iterations + 1)  # as for each run of a folder of seeds
        assert (run / "result.json").read_bytes() == result
    path.write_bytes(whole)
    shutil.rmtree(run / "trajectories")
    assert "trajectories' is missing" in refused("resume", run)
    assert (run / "result.json").read_bytes() == result


def test_a_run_is_named_once(refused: Refused, run: Path) -> None:
    for command in ("compare", "report", "view"):
        assert "more than once" in refused(command, run, f"{run}/")


def test_what_a_run_can_not_have_is_refused_and_changes_nothing(
    refused: Refused, run: Path, tmp_path: Path
) -> None:
    before = {file: file.read_bytes() for file in run.glob("*.*")}
    assert "no hosted model" in refused("resume", run, "--max-usd", "3")
    assert "--as messages or tokens" in refused("export", run, "-o", tmp_path / "m", "--iteration", "1")
    assert {file: file.read_bytes() for file in before} == before
    begun = refused("train", "smoke", "--run-dir", tmp_path / "new", "--set", "init_from=nope")
    assert "no run or checkpoint at 'nope'" in begun
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("width", [60, 80, 120])
def test_figures_are_whole_on_a_narrow_terminal(
    width: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    table = Table("policy", title="A title")
    cells = [f"{place}.25 [{place}.00, {place}.50]" for place in range(7)]
    for place in range(7):
        table.add_column(f"measure {place}")
    table.add_row("thompson", *cells)
    print_table(table, keys=1)
    shown = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out)
    assert all(cell in shown for cell in cells)
    assert max(cell_len(line) for line in shown.splitlines()) <= width
    assert shown.count("thompson") > 1
