"""Every `rmft` command and every program in the documentation is run, page by page, with less to play."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import string
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from typer.testing import CliRunner

from rmft.cli import app
from serving import Server, chats
from test_docs import PAGES, ROOT, blocks, commands

RUN = "runs/demo-20260101-120000"
SMALL = [
    "--set=iterations=1",
    "--set=rollout={num_problems: 2, num_rollouts: 4}",
    "--set=validation.num_problems=2",
]
TINY = ["--set=policy.lora.num_layers=2", "--set=policy.precision=float32", "--set=policy.device=cpu"]
ENDLESS = "serve", "view"
ANSWERS = "\n".join(string.ascii_uppercase) * 100  # one of each round's letters is among them


def stem(page: Path) -> str:
    return page.stem


@pytest.fixture(scope="module")
def server(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """What stands where a vendor stands."""
    store, adapters = tmp_path_factory.mktemp("served") / "store", tmp_path_factory.mktemp("adapters")
    with Server(tiny_llama, store, adapters=adapters) as started:
        yield started


@pytest.fixture
def _place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a reader is: with a trained run, the files that pages show, and a key."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    done = CliRunner().invoke(
        app, ["train", "smoke", "--run-dir", RUN, "--set=tracking.kind=tensorboard", *SMALL]
    )
    assert done.exit_code == 0, done.output
    study = yaml.safe_load(blocks(ROOT / "docs" / "studies.md", "yaml")[0])
    study["settings"] |= {"iterations": 1, "rollout": {"num_problems": 2}, "validation": {"num_problems": 2}}
    study["seeds"] = "0-1"
    study["evaluate"] = [each | {"num_problems": 4} for each in study["evaluate"]]
    for name in ("my-study.yaml", "selection.yaml"):
        (tmp_path / name).write_text(yaml.safe_dump(study))
    hosted = yaml.safe_load(blocks(ROOT / "docs" / "hosted.md", "yaml")[1])
    (tmp_path / "my-hosted.yaml").write_text(yaml.safe_dump({"suite": "words/bandits", **hosted}))
    (tmp_path / "my-prices.yaml").write_text(blocks(ROOT / "docs" / "hosted.md", "yaml")[0])
    for name in ("data", "configs"):
        (tmp_path / name).mkdir()
    shutil.copy(ROOT / "configs" / "qwen3-8b.yaml", "configs")


def smaller(words: list[str], tiny: Path, server: Server) -> list[str]:
    """A command of a page, with little to play, and with what is on this machine in place of what is not."""
    here = {
        "http://10.0.0.1:8000/v1": server.url,
        "/shared/adapters": str(server.adapters),
        "/data/": "data/",
    }
    here |= dict.fromkeys(("Qwen/Qwen2.5-0.5B-Instruct", "Qwen/Qwen3-8B", "~/models/my-llama"), str(tiny))
    for there, own in here.items():
        words = [word.replace(there, own) for word in words]
    own_model = [f"--set=policy.model={tiny}", *TINY, *SMALL]
    match words[:2]:
        case ["train", "smoke"]:
            return [*words, *SMALL]
        case ["train", "hosted-small" | "my-hosted.yaml"] if "--dry-run" in words and "--calls" not in words:
            return [*words, *SMALL]
        case ["train", "hosted-small" | "my-hosted.yaml"]:
            vendor = {"provider": "compatible", "base_url": server.url, "model": tiny.name}
            policy = {"kind": "hosted", **vendor, "catalogue": "my-prices.yaml"}
            return [*words, *SMALL, f"--set=policy={json.dumps(policy)}"]
        case ["train", "configs/qwen3-8b.yaml"]:
            brief = "--set=policy.reasoning_budget=8"
            return [*words, *own_model, brief, f"--set=policy.engine.model={tiny.name}"]
        case ["train", _]:
            return [*words, *own_model]
        case ["evaluate", _]:
            return [*words, "--num-problems", "2"]
        case ["export", _]:
            return [*words, "--merge"]  # so little training may leave the policy before it the best
        case ["serve", *_]:
            return [*words, "--port", "0"]
    return words


def newest(word: str) -> str:
    """`runs/demo-...` as the newest of these."""
    if not word.endswith("-..."):
        return word
    return str(max(Path().glob(word.removesuffix("...") + "*"), key=lambda each: each.stat().st_mtime))


def run(words: list[str]) -> None:
    if words[0] not in ENDLESS:
        done = CliRunner().invoke(app, words, input=ANSWERS)
        assert done.exit_code == 0, f"rmft {' '.join(words)}\n{done.output}\n{done.exception}"
        return
    command = [sys.executable, "-u", "-m", "rmft.cli", *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            assert process.stdout is not None
            assert any("http://127.0.0.1:" in line for line in process.stdout), words
        finally:
            process.terminate()


@pytest.mark.usefixtures("_place")
@pytest.mark.parametrize("page", [page for page in PAGES if commands(page)], ids=stem)
def test_every_command_of_a_page_runs(page: Path, tiny_llama: Path, server: Server) -> None:
    for line in commands(page):
        words = shlex.split(line, comments=True)
        names = {"RUN": RUN, "RUN...": RUN, "POLICY": "ucb"}
        run(smaller([newest(names.get(word, word)) for word in words], tiny_llama, server))


@pytest.mark.usefixtures("_place")
@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python")], ids=stem)
def test_every_program_of_a_page_runs(page: Path, tiny_llama: Path, server: Server) -> None:
    Path("kept.jsonl").write_bytes(chats())
    there = {"http://127.0.0.1:8000/v1": server.url, "smollm2-135m": tiny_llama.name}
    for program in blocks(page, "python"):
        for name, own in there.items():
            program = program.replace(name, own)
        program = re.sub(r"runs/(demo|brands)-[0-9.\-]+", RUN, program)
        customer = SimpleNamespace(bought=lambda name: float(name == "Keebler"))
        exec(compile(program, page, "exec"), {"visits": [customer] * 14})


@pytest.mark.skipif(not shutil.which("curl"), reason="needs curl")
def test_an_agent_is_asked_as_its_page_says(tmp_path: Path) -> None:
    (script,) = (text for text in blocks(ROOT / "docs" / "agent.md") if "curl" in text)
    script = "\n".join(line for line in script.splitlines() if not line.startswith("rmft "))
    first, *later = re.split(r"^(?=curl)", script, flags=re.MULTILINE)[1:]
    with Server(None, tmp_path / "store", agent="thompson") as started:
        episode = ""
        for line in (first, *later):
            line = line.replace("localhost:8000/v1", started.url).replace("episode-...", episode)
            done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=True)
            answer = json.loads(done.stdout)
            assert "error" not in answer, answer
            episode = episode or answer["id"]
        assert answer["num_rounds"] == 1
