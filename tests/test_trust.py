"""Code that data names: every door that a suite or a run directory may try, and the one that is open."""

from __future__ import annotations

import py_compile
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from rmft.cli import main
from rmft.errors import ConfigError, RmftError
from rmft.problems.kinds import resolve_process
from rmft.problems.setting import Setting
from rmft.problems.suites import Suite, load_suite, suite_from
from rmft.reading import parse_yaml
from rmft.streams import generator

SETTING = {
    "name": "one",
    "feedback": "bandit",
    "horizon": 4,
    "num_arms": 2,
    "reward_process": {"kind": "bernoulli"},
}
OWN = """
import subprocess
from os import system
from subprocess import Popen, getoutput
import numpy as np
from rmft.types import RewardTable
def note(path, word):
    with open(path, "a") as file: file.write(word)
note("{marker}", "ran")
class Mine:
    reward_range = (0.0, 1.0)
    def __init__(self, **keywords): note("{marker}", "built")
    def variation_budget(self, horizon, num_arms): return 0.0
    def draw(self, generator, horizon, num_arms):
        return RewardTable(np.zeros((horizon, num_arms)), np.ones((horizon, num_arms)))
class Opponent:
    def __init__(self, rules, table):
        note("{marker}", "built")
        self.rules, self.size, self.table, self.round = rules, len(table.rewards), table, 0
    def step(self, decisions):
        self.round += 1
        return self.table.rewards[range(self.size), self.round - 1, decisions.arms]
class NoProcess:
    def __init__(self, **keywords): note("{called}", "called")
def function(*arguments, **keywords): note("{called}", "called")
"""
CONFIG = """
name: tiny
suite: {suite}
iterations: 1
policy: {{width: 8, num_heads: 1, num_layers: 0}}
rollout: {{num_problems: 2, num_rollouts: 2}}
credit: {{num_selected: 1}}
validation: {{num_problems: 4}}
num_threads: 1
"""
PROCESS, ENVIRONMENT = "reward_process", "environment"


@pytest.fixture
def marker(tmp_path: Path) -> Path:
    """The file that exists once code named by data has run."""
    return tmp_path / "marker"


@pytest.fixture
def called(tmp_path: Path) -> Path:
    """The file that exists once something has been called that is no class of the protocol."""
    return tmp_path / "called"


@pytest.fixture
def home(tmp_path: Path, marker: Path, called: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with own.py, code of a user's own; the current directory is another one, empty."""
    folder = tmp_path / "home"
    (folder / "below").mkdir(parents=True)
    for path in (folder / "own.py", folder / "below" / "deep.py"):
        path.write_text(OWN.format(marker=marker, called=called))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    return folder


def suite_data(door: str, reference: str, **keywords: object) -> dict[str, object]:
    named = {"kind": reference, **keywords} if door == PROCESS else reference
    sizes = {"validation": {"num_problems": 4}, "held_out": {"num_problems": 4}}
    return {"name": "mine", "title": "Mine", "train": {"settings": [SETTING | {door: named}]}, **sizes}


def suite_file(folder: Path, door: str, reference: str, **keywords: object) -> Path:
    path = folder / "mine.yaml"
    path.write_text(yaml.safe_dump(suite_data(door, reference, **keywords)))
    return path


def test_the_functions_tried_below_would_run_what_they_are_given(marker: Path) -> None:
    """What a suite must not be able to do does something when it is done."""
    subprocess.getoutput(f"touch {marker}")
    assert marker.exists()


@pytest.mark.parametrize(
    ("reference", "keywords"),
    [
        ("os:system", {"command": "touch {marker}"}),
        ("posix:system", {"command": "touch {marker}"}),
        ("subprocess:getoutput", {"cmd": "touch {marker}"}),
        ("subprocess:Popen", {"args": ["touch", "{marker}"]}),
        ("subprocess:run", {"args": ["touch", "{marker}"]}),
        ("builtins:exec", {"source": "open({marker!r}, 'w')"}),
        ("builtins:eval", {"source": "open({marker!r}, 'w')"}),
        ("builtins:open", {"file": "{marker}", "mode": "w"}),
        ("pathlib:Path.touch", {"self": "{marker}"}),
        ("os.path:os.system", {"command": "touch {marker}"}),
        ("concurrent.futures.thread:ThreadPoolExecutor", {"initializer": "touch {marker}"}),
        ("rmft.run_directory:write_atomically", {"path": "{marker}", "data": "x"}),
        ("numpy:save", {"file": "{marker}", "arr": [1]}),
        ("../home/own:Mine", {}),
        ("..home.own:Mine", {}),
        (".own:Mine", {}),
        ("home/own:Mine", {}),
        ("{home}/own:Mine", {}),
        ("{home}/own.py:Mine", {}),
        ("own.py:Mine", {}),
        ("own:__builtins__", {}),
        (":system", {"command": "touch {marker}"}),
        ("own:Mine:Mine", {}),
        ("own\x00:Mine", {}),
        ("o" * 5000 + ":Mine", {}),
    ],
)
@pytest.mark.parametrize("door", [PROCESS, ENVIRONMENT])
@pytest.mark.parametrize("trust", [False, True])
def test_nothing_standard_installed_or_elsewhere_is_loaded(
    home: Path,
    marker: Path,
    called: Path,
    reference: str,
    keywords: dict[str, object],
    door: str,
    trust: bool,
) -> None:
    """Not even by whoever is trusted; in `elsewhere` there is no file of the user's own."""
    given = {
        key: value.format(marker=marker) if isinstance(value, str) else value
        for key, value in keywords.items()
    }
    given |= {"args": ["touch", str(marker)]} if "args" in given else {}
    data = suite_data(door, reference.format(home=home), **given)
    before = set(sys.modules)
    with pytest.raises(RmftError) as refused:
        suite_from(data, "mine", trust=trust)
    if reference != "own:__builtins__":
        assert "expected 'module:Class'" in str(refused.value) or "found no file" in str(refused.value)
    assert not marker.exists()
    assert not called.exists()
    assert set(sys.modules) == before


@pytest.mark.parametrize(
    "reference", ["own:system", "own:getoutput", "own:Popen", "own:subprocess", "own:function"]
)
@pytest.mark.parametrize("door", [PROCESS, ENVIRONMENT])
def test_what_a_file_merely_imports_and_what_is_no_class_is_not_called(
    home: Path, called: Path, door: str, reference: str
) -> None:
    keywords = {"args": ["touch", str(called)], "command": f"touch {called}", "cmd": f"touch {called}"}
    for given in ({key: value} for key, value in keywords.items()):
        with pytest.raises(ConfigError, match=r"expected a class that .*own\.py itself defines"):
            load_suite(suite_file(home, door, reference, **given))
    assert not called.exists()


@pytest.mark.parametrize("door", [PROCESS, ENVIRONMENT])
def test_a_class_without_the_methods_is_not_called(home: Path, called: Path, door: str) -> None:
    with pytest.raises(ConfigError, match=r"own:NoProcess has no .*the protocol"):
        load_suite(suite_file(home, door, "own:NoProcess"))
    assert not called.exists()


@pytest.mark.parametrize("door", [PROCESS, ENVIRONMENT])
@pytest.mark.parametrize("module", ["own", "below.deep"])
def test_without_trust_nothing_of_a_file_runs(home: Path, marker: Path, door: str, module: str) -> None:
    name = "Mine" if door == PROCESS else "Opponent"
    data = suite_data(door, f"{module}:{name}")
    file = home.joinpath(*module.split(".")).with_suffix(".py")
    with pytest.raises(ConfigError) as refused:
        suite_from(data, "mine", str(home))
    assert f"would run {file} for its class {name}" in str(refused.value)
    assert "add --trust-code" in str(refused.value)
    for model, values in ((Suite, data), (Setting, data["train"]["settings"][0])):  # type: ignore[index]
        with pytest.raises(ValueError, match="add --trust-code"):
            model.model_validate(values, context={"folder": str(home)})
    assert not marker.exists()
    suite = suite_from(data, "mine", str(home), trust=True)
    suite.settings("held_out")[0].play(suite.draw("held_out", 3)[0].table)
    assert marker.read_text() == "ranbuilt"


def test_a_copied_setting_is_given_no_other_environment(home: Path, marker: Path) -> None:
    setting = Setting.model_validate(SETTING, context={"folder": str(home), "trust": True})
    copied = setting.model_copy(update={"environment": "own:Opponent"})
    with pytest.raises(ConfigError, match="was not loaded"):
        copied.play(setting.draw([generator(0)]))
    assert not marker.exists()


def test_a_file_beside_the_suite_comes_before_one_in_the_current_directory(home: Path, marker: Path) -> None:
    Path("own.py").write_text("raise SystemError('the other')")
    assert load_suite(suite_file(home, PROCESS, "own:Mine")).name == "mine"
    assert marker.read_text() == "ranbuilt"
    with pytest.raises(
        ConfigError, match=r"own:Mine.* failed in .*elsewhere/own.py, line 1: SystemError: the other"
    ):
        resolve_process({"kind": "own:Mine"}, trust=True)


def test_a_file_with_the_name_of_a_standard_module_stands_for_itself(home: Path, marker: Path) -> None:
    shutil.copy(home / "own.py", home / "statistics.py")
    standard = sys.modules.pop("statistics", None)
    assert load_suite(suite_file(home, PROCESS, "statistics:Mine")).name == "mine"
    assert "statistics" not in sys.modules, "neither imported nor shadowed"
    if standard is not None:
        sys.modules["statistics"] = standard
    assert marker.read_text() == "ranbuilt"


@pytest.mark.parametrize("module", [subprocess, yaml])
def test_standing_in_the_folder_of_installed_modules_opens_nothing(
    module: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = Path(str(module.__file__))  # type: ignore[attr-defined]
    monkeypatch.chdir(file.parent)
    with pytest.raises(ConfigError, match="which is standard or installed"):
        resolve_process({"kind": f"{file.stem}:Popen"}, trust=True)


def test_a_link_to_a_standard_module_opens_nothing(home: Path) -> None:
    (home / "innocent.py").symlink_to(subprocess.__file__)
    with pytest.raises(ConfigError, match="which is standard or installed"):
        load_suite(suite_file(home, PROCESS, "innocent:Popen"))


def test_the_source_is_run_and_no_bytecode_beside_it(home: Path, tmp_path: Path, called: Path) -> None:
    """Bytecode may claim to be of a source that it is not of."""
    (tmp_path / "evil.py").write_text(f"open({str(called)!r}, 'w').close()")
    unchecked = py_compile.PycInvalidationMode.UNCHECKED_HASH
    cached = home / "__pycache__" / f"own.{sys.implementation.cache_tag}.pyc"
    py_compile.compile(str(tmp_path / "evil.py"), str(cached), invalidation_mode=unchecked)
    assert load_suite(suite_file(home, PROCESS, "own:Mine")).name == "mine"
    assert not called.exists()


def test_the_nearest_file_is_named(home: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"found no file onw\.py in .*home or in .*elsewhere; .*'own:Mine'\?"
    ):
        load_suite(suite_file(home, PROCESS, "onw:Mine"))
    with pytest.raises(ConfigError, match=r"Did you mean 'below\.deep:Mine'\?"):
        load_suite(suite_file(home, PROCESS, "below.dep:Mine"))


Cli = Callable[..., tuple[int, str]]


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Cli:
    def run(*arguments: object) -> tuple[int, str]:
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
        return int(ended.value.code or 0), capsys.readouterr().err

    return run


@pytest.fixture(params=[(PROCESS, "own:Mine"), (ENVIRONMENT, "own:Opponent")], ids=lambda door: door[0])
def run(
    request: pytest.FixtureRequest, home: Path, marker: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A run that somebody trained on a suite of their own, without any flag, and sent."""
    pytest.importorskip("torch")
    suite = suite_file(home, *request.param)
    (home / "tiny.yaml").write_text(CONFIG.format(suite=suite))
    code, printed = cli("train", home / "tiny.yaml", "--run-dir", home / "run")
    assert code == 0, printed
    for name in [name for name in sys.modules if name.startswith("_own_own_")]:
        monkeypatch.delitem(sys.modules, name)  # as in the process of whoever it was sent to
    shutil.copy(home / "own.py", home / "run" / "own.py")
    marker.unlink()
    return home / "run"


def test_a_run_directory_runs_nothing_unless_it_is_trusted(
    run: Path, home: Path, marker: Path, cli: Cli
) -> None:
    commands = {
        "resume": ("resume", run),
        "evaluate": ("evaluate", run, "--num-problems", 4),
        "its suite by its file": ("evaluate", "ucb", "--suite", run / "suite.yaml", "--num-problems", 4),
        "play": ("play", "ucb", "--suite", run / "suite.yaml"),
        "play on its own suite": ("play", run),
        "train": (
            "train",
            run / "config.yaml",
            "--set",
            f"suite={run / 'suite.yaml'}",
            "--run-dir",
            home / "new",
        ),
    }
    budget = ("resume", run, "--max-usd", 3)
    config = (run / "config.yaml").read_bytes()
    for name, command in commands.items() | {("budget", budget)}:
        code, printed = cli(*command)
        assert code == 2, name
        assert "own.py for its class" in printed, name
        assert "add --trust-code" in printed, name
        assert not marker.exists(), name
    assert (run / "config.yaml").read_bytes() == config
    for name, command in commands.items():
        code, printed = cli(*command, "--trust-code")
        assert code == 0, (name, printed)
        assert marker.exists(), name


def test_what_only_looks_at_a_run_runs_nothing(run: Path, tmp_path: Path, marker: Path, cli: Cli) -> None:
    smoke = ("--suite", "smoke", "--num-problems", 4)
    for command in (
        ("report", run, "-o", tmp_path / "report.html"),
        ("show", run),
        ("compare", run, shutil.copytree(run, tmp_path / "copy")),
        ("evaluate", run, *smoke),
        ("evaluate", "ucb", *smoke, "--against", run),
        ("play", run, "--suite", "smoke"),
        ("export", run, "-o", tmp_path / "exported"),
    ):
        code, printed = cli(*command)
        assert code == (2 if command[0] == "export" else 0), printed  # which is of language models only
        assert not marker.exists(), command


@pytest.mark.parametrize("link", [False, True])
def test_a_suite_in_a_run_directory_is_found_out_through_links_and_folders(
    home: Path, tmp_path: Path, marker: Path, link: bool
) -> None:
    (home / "run.json").write_text("{}")
    suite_file(home / "below", PROCESS, "deep:Mine")
    if link:
        (tmp_path / "link").symlink_to(home / "below")
    folder = tmp_path / "link" if link else home / "below"
    with pytest.raises(ConfigError, match="--trust-code"):
        load_suite(folder / "mine.yaml")
    assert not marker.exists()
    assert load_suite(folder / "mine.yaml", trust=True).name == "mine"
    assert marker.exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3", "the key 'a' stands in line 1 and again in line 3; keep one of them"),
        ("a: {b: 1,\n  c: 2, b: 1}", "the key 'b' stands in line 1 and again in line 2"),
        ("- {a: 1, 'a': 2}", "the key 'a' stands in line 1 and again in line 1"),
        ("1: a\n0x1: b", "the key '0x1' stands in line 1 and again in line 2"),
        ("yes: a\ntrue: b", "the key 'true'"),
        ("x: &x {a: 1}\ny:\n  <<: *x\n  b: 2\n  b: 3", "the key 'b' stands in line 4 and again in line 5"),
    ],
)
def test_a_key_that_stands_twice_is_refused(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as refused:
        parse_yaml(text, "'f.yaml'")
    assert str(refused.value).startswith("'f.yaml' is not valid YAML: ")
    assert message in str(refused.value)


def test_what_is_merged_in_may_be_overridden() -> None:
    text = (
        "base: &base {rate: 1, size: 2}\nmore: &more {<<: *base, size: 3}\n"
        "most: {rate: 4, <<: *more}\n1: x\n'1': y"
    )  # PyYAML 6.0.4 takes the wrong one of keys of a single letter
    assert parse_yaml(text, "text") == yaml.safe_load(text)
    assert parse_yaml(text, "text")["most"] == {"rate": 4, "size": 3}


def test_a_setting_on_the_command_line_has_no_key_twice(cli: Cli) -> None:
    smoke = Path(__file__).parents[1] / "configs" / "smoke.yaml"
    code, printed = cli("train", smoke, "--set", "rollout={num_problems: 4, num_problems: 5}")
    assert code == 2
    assert "--set rollout: the value" in printed
    assert "the key 'num_problems' stands in line 1 and again" in printed
