"""The package is laid out as docs/architecture.md says, and its parts stay small and documented."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "rmft"
MODULES = sorted(PACKAGE.rglob("*.py"))
NEEDS_A_TRACKER = {f"rmft.tracking.{name}" for name in ("mlflow", "tensorboard", "trackio", "wandb")}
NEEDS_TORCH = {
    *(f"rmft.generators.{name}" for name in ("cache", "chat", "devices", "loading", "local")),
    "rmft.models.gguf",
    "rmft.cluster",  # which loads Ray
    "rmft.forecast_local",
    *("rmft.policies.engine", "rmft.policies.language", "rmft.policies.numeric"),
    *(
        f"rmft.policies.networks.{name}"
        for name in ("arm_encoder", "attention", "causal_transformer", "network")
    ),
    *(f"rmft.training.{name}" for name in ("adapter", "export", "local", "low_rank", "optimizer", "packing")),
    *(f"rmft.training.{name}" for name in ("numeric", "objective", "outline", "processes", "sharding")),
    *(
        f"rmft.server.{name}"
        for name in ("answers", "app", "fine_tuning", "fine_tuning_routes", "generation", "jobs", "models")
    ),
    *(f"rmft.server.{name}" for name in ("adapters", "completions", "service", "serving", "worker")),
}
MARKER = re.compile("TO" + "DO|FIX" + "ME|XX" + "X")
WRITTEN = ("src", "tests", "examples", "benchmarks", "docs", "configs")
MAX_LINES = 400


def dotted(path: Path) -> str:
    """The name that a module of the package is imported by."""
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def tree_paths(markdown: str) -> set[str]:
    """The paths below src/rmft/ in the tree of docs/architecture.md: the first fenced block that has it.

    Indentation says what lies in what; a line may name several files (with an ending) and folders (with
    a slash), and what follows two spaces or a `#` is a note: `    moving.py, logged.py   two of them`.
    """
    fences = re.findall(r"^```[^\n]*\n(.*?)^```", markdown, flags=re.MULTILINE | re.DOTALL)
    block = next((fence for fence in fences if "src/rmft/" in fence), "")
    paths: set[str] = set()
    folders: list[tuple[int, str]] = []
    for line in block.splitlines():
        indent = len(line) - len(line.lstrip(" │├└─"))
        names = re.split(r"\s{2,}|#", line[indent:].strip())[0]
        while folders and folders[-1][0] >= indent:
            folders.pop()
        parent = folders[-1][1] if folders else ""
        for name in re.findall(r"[\w.-]+(?:/[\w.-]+)*(?:/|\.\w+)(?![\w.])", names):
            path = parent + name
            if name.endswith("/"):
                folders.append((indent, path))
            paths.add(path)
    return {path.partition("src/rmft/")[2] for path in paths} - {""}


def test_a_tree_is_read_as_it_is_drawn() -> None:
    markdown = """
```sh
make demo
```
```
src/rmft/
├── types.py            the nouns, in one.py file; and
│                       the protocols
├── problems/           where rewards come from
│   ├── moving.py, logged.py   # both
│   └── suites/         named sets
└── cli.py              the command line
docs/architecture.md    why
```
"""
    assert tree_paths(markdown) == {
        "types.py", "problems/", "problems/moving.py", "problems/logged.py", "problems/suites/", "cli.py"
    }  # fmt: skip


def test_the_readme_names_every_module_and_no_other() -> None:
    named = tree_paths((ROOT / "docs" / "architecture.md").read_text("utf-8"))
    modules = {path.relative_to(PACKAGE).as_posix() for path in MODULES if path.name != "__init__.py"}
    missing = sorted((modules | {"problems/suites/"}) - named)
    unknown = sorted(path for path in named if not (PACKAGE / path).exists())
    assert (missing, unknown) == ([], []), "docs/architecture.md's tree: (missing, does not exist)"


@pytest.mark.parametrize("imported", ["rmft", "rmft.cli", "every module of the core"])
def test_importing_loads_no_torch(imported: str) -> None:
    core = [dotted(path) for path in MODULES if dotted(path) not in NEEDS_TORCH | NEEDS_A_TRACKER]
    names = core if imported.startswith("every") else [imported]
    code = f"""
import importlib, sys
for name in {names!r}:
    importlib.import_module(name)
    found = {{"torch", "safetensors"}} & set(sys.modules)
    if found:
        sys.exit(f"importing {{name}} loads {{found}}")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("path", MODULES, ids=dotted)
def test_a_module_says_what_it_is_and_stays_small(path: Path) -> None:
    text = path.read_text("utf-8")
    if text.strip():  # an empty __init__.py has nothing to say
        docstring = ast.get_docstring(ast.parse(text))
        assert docstring, "a module needs a docstring that says what it is"
    assert len(text.splitlines()) <= MAX_LINES, "look for the second idea in it"


def test_nothing_is_left_to_be_done_in_the_text() -> None:
    files = [path for folder in WRITTEN for path in (ROOT / folder).rglob("*") if path.is_file()]
    texts = [path for path in files if path.suffix in {".py", ".md", ".yaml", ".js", ".css"}]
    assert [str(path) for path in texts if MARKER.search(path.read_text("utf-8"))] == []


def test_a_wheel_holds_everything_that_is_not_code(tmp_path: Path) -> None:
    pytest.importorskip("hatchling")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    packed = {name for name in zipfile.ZipFile(wheel).namelist() if name.startswith("rmft/")}
    present = {
        path.relative_to(PACKAGE.parent).as_posix()
        for path in PACKAGE.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    present |= {f"rmft/{path.relative_to(ROOT).as_posix()}" for path in (ROOT / "configs").rglob("*.yaml")}
    assert {Path(name).suffix for name in packed} >= {".py", ".yaml", ".css", ".js"}
    assert packed == present
