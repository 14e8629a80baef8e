"""Several training seeds of one config: trained side by side, killed, evaluated and shown together."""

from __future__ import annotations

import json
import multiprocessing
import shutil
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from rmft.cli import main
from rmft.config import load_config
from rmft.errors import ConfigError, RunDirectoryError
from rmft.files import write_atomically
from rmft.report import comparison_table, write_report
from rmft.report.folders import expanded, runs_in
from rmft.report.over_seeds import folder_lines, summary_in_terminal, summary_table
from rmft.report.run_reader import read_run
from rmft.results import Evaluation
from rmft.run_directory import RunDirectory
from rmft.seeds import Experiment, parse_seeds
from rmft.statistics import over_seeds
from run_files import evaluation_in

CONFIGS = Path(__file__).parents[1] / "configs"
TINY = {
    "policy": {"kind": "arm_encoder", "width": 8, "num_heads": 2, "num_layers": 1},
    "iterations": 3,
    "rollout": {"num_problems": 6, "num_rollouts": 4},
    "training": {
        "objective": {"kind": "policy_gradient", "kl_coef": 1},
        "batch_size": 4,
        "learning_rate": 0.05,
    },
    "validation": {"every": 2, "num_problems": 20},
}
TIMES = ("run.json", "timings.jsonl", "log.txt", ".lock")  # when and how fast, which may differ
SEEDS = (0, 2, 7)

processes = multiprocessing.get_context("forkserver")
processes.set_forkserver_preload(["torch._dynamo", "rmft.training.numeric", "rmft.iteration"])


def here(*arguments: object) -> int:
    """The exit code of a command run in this process."""
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    return int(ended.value.code or 0)


def killed_at(pattern: str, arguments: list[str]) -> None:
    """The command line in a child, killed before it first writes to a path that holds `pattern`."""

    def die(event: str, given: tuple[object, ...]) -> None:
        if event in ("open", "os.mkdir", "os.rename") and pattern in str(given[0]):
            signal.raise_signal(signal.SIGKILL)

    sys.addaudithook(die)
    main(arguments)


def kill(pattern: str, *arguments: object) -> None:
    child = processes.Process(target=killed_at, args=(pattern, [str(argument) for argument in arguments]))
    child.start()
    child.join(120)
    assert child.exitcode == -signal.SIGKILL


def content(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in TIMES
    }


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """configs/smoke.yaml, made tiny."""
    values = yaml.safe_load((CONFIGS / "smoke.yaml").read_text())
    path = tmp_path_factory.mktemp("seeds") / "tiny.yaml"
    path.write_text(yaml.safe_dump({**values, **TINY, "num_threads": 1}))
    return path


@pytest.fixture(scope="module")
def trained(config: Path) -> Path:
    """A folder of three seeds that was never killed."""
    folder = config.with_name("trained")
    assert here("train", config, "--seeds", "0,2,7", "--run-dir", folder) == 0
    return folder


@pytest.fixture(scope="module")
def evaluated(trained: Path) -> Path:
    folder = Path(shutil.copytree(trained, trained.with_name("evaluated")))
    assert here("evaluate", folder, "--num-problems", 40) == 0
    return folder


# --- which seeds -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "seeds"),
    [("0,1,2", (0, 1, 2)), ("0-4", (0, 1, 2, 3, 4)), ("7", (7,)), ("5, 0-1", (5, 0, 1)), ("3-3", (3,))],
)
def test_seeds_are_listed_or_a_range(text: str, seeds: tuple[int, ...]) -> None:
    assert parse_seeds(text) == seeds


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "--seeds is empty"),
        (" ", "--seeds is empty"),
        ("0,1,0", "found 0 more than once"),
        ("0-3,2", "found 2 more than once"),
        ("0,,1", "found ''"),
        ("-1", "found '-1'"),
        ("4-0", "found '4-0'"),
        ("one", "found 'one'"),
        ("9223372036854775808", "found '9223372036854775808'"),
        ("0-999999999999", "more than 1,000 seeds"),
    ],
)
def test_what_is_no_list_of_seeds_is_one_message(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_seeds(text)


def test_mistakes_leave_nothing_behind(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    for arguments in (["--seeds", "1,1"], ["--seeds", "0,1", "--set", "seed=3"], ["--seeds", ""]):
        assert here("train", config, *arguments, "--run-dir", folder) == 2
        message = capsys.readouterr().err
        assert message.count("Error: ") == 1
        assert "seed" in message
    assert list(tmp_path.iterdir()) == []


# --- training --------------------------------------------------------------------------------------


def test_every_seed_is_the_run_that_it_would_be_alone(config: Path, trained: Path, tmp_path: Path) -> None:
    assert here("train", config, "--set", "seed=2", "--run-dir", tmp_path / "alone") == 0
    assert content(trained / "seed-2") == content(tmp_path / "alone")
    metrics = {(trained / f"seed-{seed}" / "metrics.jsonl").read_bytes() for seed in SEEDS}
    assert len(metrics) == 3, "seeds differ"
    about = json.loads((trained / "seeds.json").read_text())
    assert (about["name"], about["seeds"]) == ("smoke", list(SEEDS))


def test_killed_in_the_second_seed_all_ends_as_if_it_never_was(
    config: Path, trained: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    kill("seed-2/trajectories/000002", "train", config, "--seeds", "0,2,7", "--run-dir", folder)
    assert (folder / "seed-0" / "result.json").exists()
    assert (folder / "seed-2" / "metrics.jsonl").read_bytes().count(b"\n") == 2
    assert not (folder / "seed-7" / "metrics.jsonl").exists()
    first = content(folder / "seed-0")
    assert here("resume", folder) == 0
    assert content(folder) == content(trained)
    assert content(folder / "seed-0") == first


@pytest.mark.parametrize("pattern", [".seed-7", "seeds.json"])
def test_killed_while_it_is_made_there_is_no_folder(config: Path, tmp_path: Path, pattern: str) -> None:
    folder = tmp_path / "run"
    kill(pattern, "train", config, "--seeds", "0,2,7", "--run-dir", folder)
    assert not folder.exists()


def test_a_folder_is_never_overwritten_and_trained_by_one_process_alone(
    config: Path, trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = content(trained)
    assert here("train", config, "--seeds", "0,1", "--run-dir", trained) == 2
    assert f"rmft resume {trained}" in capsys.readouterr().err
    with Experiment.open(trained).locked():
        assert here("resume", trained) == 2
    assert "is being trained by another process" in capsys.readouterr().err
    assert here("resume", trained) == 0
    assert content(trained) == before


def test_a_seed_that_fails_stops_no_other_and_is_named(
    config: Path, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    suites = RunDirectory.open(trained / "seed-0", lock=False).suites
    experiment = Experiment.create(tmp_path / "run", load_config(config), SEEDS, suites)
    write_atomically(experiment.run(2) / "config.yaml", b"nonsense: 1\n")
    assert here("resume", experiment.path) == 1
    told = capsys.readouterr()
    assert "Seed 2: " in told.err
    assert "nonsense" in told.err
    assert "Seed 0: " not in told.err
    for seed in (0, 7):
        assert content(experiment.run(seed)) == content(trained / f"seed-{seed}")
        assert f"seed {seed}: Validation regret" in told.out


def test_a_collapsed_seed_is_named(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = Path(shutil.copytree(trained, tmp_path / "run"))
    result = folder / "seed-7" / "result.json"
    result.write_text(json.dumps(json.loads(result.read_text()) | {"status": "collapsed"}))
    assert here("resume", folder) == 1
    assert "Seed 7: collapsed" in capsys.readouterr().err


@pytest.mark.parametrize("damage", ['{"format": 1, "seeds": []}', '{"format": 9, "seeds": [0]}', "{", "[]"])
def test_a_damaged_list_of_seeds_is_one_message(trained: Path, tmp_path: Path, damage: str) -> None:
    folder = Path(shutil.copytree(trained, tmp_path / "run"))
    (folder / "seeds.json").write_text(damage)
    with pytest.raises(RunDirectoryError, match=r"seeds\.json"):
        Experiment.open(folder)


def test_a_run_that_is_gone_is_named(trained: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(trained, tmp_path / "run"))
    shutil.rmtree(folder / "seed-2")
    with pytest.raises(RunDirectoryError, match="lacks seed-2"):
        Experiment.open(folder)


# --- evaluation ------------------------------------------------------------------------------------


def test_means_over_seeds_are_those_of_the_seeds(evaluated: Path) -> None:
    found = Evaluation.from_json(evaluation_in(evaluated).read_bytes())
    own = [Evaluation.from_json(evaluation_in(evaluated / f"seed-{seed}").read_bytes()) for seed in SEEDS]
    for policy in ("best", "start"):
        means = [each.overall[policy].measures["regret"].mean for each in own]
        assert found.overall[policy].measures["regret"].mean == pytest.approx(np.mean(means))
        listed = found.overall[policy].seeds
        assert listed is not None
        assert [each.seed for each in listed] == list(SEEDS)
        assert [each.regret for each in listed] == [each.overall[policy].measures["regret"] for each in own]
    differences = [each.overall["best"].paired_difference["greedy"]["regret"].mean for each in own]
    difference = found.overall["best"].paired_difference["greedy"]["regret"]
    assert difference.mean == pytest.approx(np.mean(differences))
    assert found.overall["greedy"].seeds is None, "a baseline has no seeds"
    both = [each.overall["greedy"].measures["regret"] for each in (found, own[0])]
    assert [*both[0].model_dump().values()] == pytest.approx([*both[1].model_dump().values()])
    [setting] = found.settings.values()
    of_seeds = np.array([next(iter(each.settings.values())).policies["best"].problem_regrets for each in own])
    assert setting.policies["best"].problem_regrets == pytest.approx(of_seeds.mean(axis=0), rel=1e-4)
    assert np.ptp(of_seeds.mean(axis=1)) > 0.01, "seeds differ"
    expected = over_seeds(of_seeds, lambda means: means).interval()
    regret = found.overall["best"].measures["regret"]
    assert (regret.low, regret.high) == pytest.approx((expected.low, expected.high), abs=1e-3)


def test_each_run_gets_the_evaluation_that_it_would_get_alone(evaluated: Path, tmp_path: Path) -> None:
    alone = Path(shutil.copytree(evaluated / "seed-2", tmp_path / "alone"))
    names = [path.name for path in alone.iterdir() if path.name.startswith(("evaluation", "conversations"))]
    assert len(names) == 2
    for name in names:
        (alone / name).unlink()
    assert here("evaluate", alone, "--num-problems", 40) == 0
    for name in names:
        assert (alone / name).read_bytes() == (evaluated / "seed-2" / name).read_bytes()


def test_the_table_shows_seeds(evaluated: Path, capsys: pytest.CaptureFixture[str]) -> None:
    few = ("--num-problems", 10, "--part", "validation")
    assert here("evaluate", evaluated, *few, "--against", "start", "--against", "uniform") == 0
    told = capsys.readouterr()
    assert "regret by seed" in told.out
    assert "2: " in told.out
    assert "Means over 3 training seeds" in told.out
    assert list(evaluated.glob("evaluation-smoke-validation-*.json"))
    assert here("evaluate", evaluated, *few, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert [each["seed"] for each in found["overall"]["best"]["seeds"]] == list(SEEDS)
    assert "seeds" not in found["overall"]["uniform"]


def test_seeds_without_a_policy_are_left_out_and_named(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = Path(shutil.copytree(trained, tmp_path / "run"))
    for name in ("metrics.jsonl", "result.json"):
        (folder / "seed-2" / name).unlink()
    assert here("evaluate", folder, "--num-problems", 10) == 0
    assert "Left out, since they hold no policy yet: seeds 2" in capsys.readouterr().err
    found = Evaluation.from_json(evaluation_in(folder).read_bytes())
    assert [each.seed for each in found.overall["best"].seeds or ()] == [0, 7]
    for seed in (0, 7):
        (folder / f"seed-{seed}" / "metrics.jsonl").unlink()
    assert here("evaluate", folder) == 2
    assert f"rmft resume {folder}" in capsys.readouterr().err


# --- looking at it ---------------------------------------------------------------------------------


def test_a_folder_stands_for_its_runs(evaluated: Path) -> None:
    runs = [evaluated / f"seed-{seed}" for seed in SEEDS]
    assert runs_in(evaluated) == runs
    assert expanded([runs[0], evaluated]) == [runs[0], *runs]
    assert [read_run(run).name for run in runs] == [f"smoke, seed-{seed}" for seed in SEEDS]
    titles = [str(column.header) for column in comparison_table([evaluated]).columns]
    assert titles[1:] == [f"smoke, seed-{seed}" for seed in SEEDS]


def test_compare_has_a_row_for_the_folder(evaluated: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = summary_table([evaluated])
    assert table is not None
    [row] = table.rows
    found = Evaluation.from_json(evaluation_in(evaluated).read_bytes()).overall["best"]
    assert row[:2] == ["evaluated", 3]
    means = [each.regret.mean for each in found.seeds or ()]
    assert row[5].mean == pytest.approx(found.measures["regret"].mean)  # type: ignore[union-attr]
    assert row[6:8] == [min(means), max(means)]
    assert summary_in_terminal([evaluated / "seed-0", evaluated]).row_count == 1  # type: ignore[union-attr]
    assert here("compare", evaluated) == 0
    assert "Over seeds" in capsys.readouterr().out


def test_the_page_and_the_terminal_show_seeds_together(
    evaluated: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = write_report([evaluated], tmp_path / "report.html").read_text()
    pieces = json.loads(page.partition('id="pieces">')[2].partition("</script>")[0])
    assert [run["name"] for run in pieces["runs"]["runs"]] == [f"evaluated/seed-{seed}" for seed in SEEDS]
    for piece in ("0/overview", "2/overview", "compare"):
        assert any(block.get("title") == "Over seeds" for block in pieces[piece]["blocks"]), piece
    assert here("show", evaluated) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "evaluated: 3 training seeds"
    assert sum("seed-" in line for line in lines) == 3
    assert any("after training" in line and "by seed 0: " in line for line in lines)


@pytest.mark.parametrize("content", ["{", "[]", '{"overall": 3}', '{"overall": {"best": {"seeds": [1]}}}'])
def test_a_damaged_evaluation_of_a_folder_leaves_the_rest(
    evaluated: Path, tmp_path: Path, content: str
) -> None:
    folder = Path(shutil.copytree(evaluated, tmp_path / "run"))
    evaluation_in(folder).write_text(content)
    lines = folder_lines(folder)
    assert any("Not evaluated over seeds yet" in line for line in lines)
    assert sum("seed-" in line for line in lines) == 3
    (folder / "seeds.json").write_text('{"seeds": ["../../x", -1, null]}')
    with pytest.raises(RunDirectoryError, match="names no seed"):
        runs_in(folder)


def test_a_folder_of_many_seeds_fits_a_terminal(trained: Path, tmp_path: Path) -> None:
    for seed in range(60):
        shutil.copytree(trained / "seed-0", tmp_path / f"seed-{seed}")
    (tmp_path / "seeds.json").write_text(json.dumps({"format": 1, "seeds": list(range(60))}))
    lines = folder_lines(tmp_path)
    assert len(lines) <= 40
    assert "  and 27 more" in lines
