"""What the documentation says to type works: commands, settings and programs are read out of its pages."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from rmft.cli import app
from rmft.config import RunConfig, parse_config
from rmft.problems.tasks import Task
from rmft.studies.study import StudyConfig

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
COMMAND = re.compile(r"^(?:[A-Z_]+=\S+ )*rmft (?P<words>.*?)(?: {2,}#.*)?$", re.MULTILINE)


def blocks(page: Path, language: str | None = None) -> list[str]:
    """The fenced blocks of a page, of one language or of all."""
    found = FENCE.findall(page.read_text("utf-8"))
    return [text for named, text in found if language is None or named == language]


def commands(page: Path) -> list[str]:
    """What follows `rmft` in a page's blocks, line by line, without the comment."""
    joined = (text.replace("\\\n", " ") for text in blocks(page))
    return [found["words"].strip() for text in joined for found in COMMAND.finditer(text)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_command_in_the_docs_exists_with_its_options(page: Path) -> None:
    group = typer.main.get_command(app)
    for line in commands(page):
        words = shlex.split(line.replace("[", "").replace("]", ""), comments=True)
        command: Any = group
        while hasattr(command, "commands") and words and not words[0].startswith("-"):
            if (inner := command.commands.get(words[0])) is None:
                assert words[0].isupper() or command is not group, f"{page.name}: rmft {line}"
                break
            command, words = inner, words[1:]
        known = {name for each in command.params for name in (*each.opts, *each.secondary_opts)}
        known |= {"--help", "--install-completion", "--version"}
        used = {word.partition("=")[0] for word in words if re.match(r"--?[a-z]", word)}
        assert used <= known, f"{page.name}: rmft {line}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_setting_in_the_docs_is_one(page: Path, tmp_path: Path) -> None:
    for text in blocks(page, "yaml"):
        data = yaml.safe_load(text)
        if data.keys() <= RunConfig.model_fields.keys():
            parse_config({"suite": "words/bandits"} | data, source=page.name)
        elif "entries" in data:
            StudyConfig.model_validate(data)
        elif "situation" in data:
            (tmp_path / data["rewards"]).write_text("customer,Sunshine,Keebler,Nabisco\n" + "a,1,0,0\n" * 10)
            Task.model_validate(data, context={"folder": str(tmp_path)})


@pytest.mark.slow
def test_the_notebook_is_its_script_and_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    jupytext = pytest.importorskip("jupytext", reason="needs the extra `notebook`")
    nbformat = pytest.importorskip("nbformat")
    client = pytest.importorskip("nbclient").NotebookClient
    written = jupytext.read(ROOT / "examples" / "tutorial.py")
    notebook = nbformat.read(ROOT / "examples" / "tutorial.ipynb", as_version=4)
    sources = [cell.source for cell in written.cells]
    assert [cell.source for cell in notebook.cells] == sources, "jupytext --sync examples/tutorial.py"
    assert not any(cell.get("outputs") for cell in notebook.cells), "outputs are not kept"
    notebook.cells = [cell for cell in notebook.cells if not cell.source.startswith("%pip")]
    monkeypatch.setenv("TUTORIAL_ITERATIONS", "2")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    client(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    shown = [out.data for cell in notebook.cells for out in cell.get("outputs", ()) if "data" in out]
    assert any("<iframe srcdoc=" in data.get("text/html", "") for data in shown), "the report"
    assert any("application/vnd.plotly.v1+json" in data for data in shown), "a figure"
    everything = [out for cell in notebook.cells for out in cell.get("outputs", ())]
    printed = "".join(out.text for out in everything if out.output_type == "stream")
    assert "thompson" in printed
    assert "iteration" in printed or any("iteration" in str(data) for data in shown), "progress"
