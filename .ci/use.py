"""Use what an extra brings, in an environment that has rmft with it only: python .ci/use.py EXTRA"""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
import urllib.request
from pathlib import Path

FEW = "--set iterations=1 --set rollout.num_problems=2 --set validation.num_problems=2"
MODEL = "smollm2-135m"
ADDRESS = re.compile(r"http://[\d.:]+/v1")
TUTORIAL = Path(__file__).resolve().parent.parent / "examples" / "tutorial.ipynb"


def rmft(line: str) -> list[str]:
    """A command line of the installed program."""
    return [str(Path(sys.executable).parent / "rmft"), *shlex.split(line)]


def run(line: str) -> None:
    """A command of it, which has to succeed."""
    subprocess.run(rmft(line), check=True)


def train(settings: str = "") -> None:
    run(f"train smoke --run-dir run --set iterations=2 --set validation.num_problems=20 {settings}")


def none() -> None:
    run("--version")
    run("doctor")
    run("evaluate ucb --suite smoke --num-problems 20")
    run("task new my-task")
    run("task check my-task")


def torch() -> None:
    train()
    run("evaluate run --num-problems 20")
    run("show run")
    run("report run -o page.html")


def llm() -> None:
    run(f"models add {MODEL}")
    run(f"train demo --run-dir run {FEW}")
    run("export run -o exported --merge")


def serve() -> None:
    run(f"models add {MODEL}")
    line = rmft(f"serve --model {MODEL} --folder store --port 0")
    with subprocess.Popen(line, stderr=subprocess.PIPE, text=True) as server:
        try:
            assert server.stderr is not None
            address = next(found[0] for told in server.stderr if (found := ADDRESS.search(told)))
            messages = [{"role": "user", "content": "Hi"}]
            body = {"model": MODEL, "messages": messages, "max_completion_tokens": 4}
            question = urllib.request.Request(f"{address}/chat/completions", json.dumps(body).encode())
            question.add_header("content-type", "application/json")
            with urllib.request.urlopen(question, timeout=300) as answer:
                assert json.load(answer)["choices"][0]["message"]["content"]
        finally:
            server.terminate()


def api() -> None:
    """An endpoint that nobody answers at is a message, and not a traceback."""
    run("train hosted-small --dry-run")
    line = rmft("train demo-hosted --run-dir run --set policy.base_url=http://127.0.0.1:9/v1")
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    assert done.returncode, done.stdout
    assert "127.0.0.1:9" in done.stderr, done.stderr
    assert "Traceback" not in done.stderr, done.stderr


def ray() -> None:
    train("--set compute.kind=ray --set compute.workers=2 --set compute.address=local")


def parquet() -> None:
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.table({"x": [1.0, 0.0] * 60, "y": [0.0] * 120}), "log.parquet")
    process = "{kind: logged, rewards: log.parquet}"
    setting = f"{{name: own, feedback: bandit, horizon: 10, num_arms: 2, reward_process: {process}}}"
    Path("own.yaml").write_text(f"name: own\ntitle: Own\ntrain: {{settings: [{setting}]}}\n", "utf-8")
    run("evaluate ucb --suite own.yaml --num-problems 4")


def gymnasium() -> None:
    from rmft.environments.gym import GymnasiumEnv

    env = GymnasiumEnv("mab/uniform-means")
    env.reset(seed=1)
    assert len(env.step(0)) == 5


def plot() -> None:
    import matplotlib.figure

    from rmft import plots

    train()
    figure = matplotlib.figure.Figure()
    figure.subplots().plot([len(chart.data) for chart in plots("run").values()])
    figure.savefig("figure.png")


def tracked(settings: str) -> None:
    train(f"--set tracking.kind={settings}")
    run("track run")
    assert json.loads(Path("run/tracking.json").read_text("utf-8"))


def trackio() -> None:
    tracked("trackio")


def tensorboard() -> None:
    tracked("tensorboard")


def wandb() -> None:
    tracked("wandb --set tracking.mode=offline")


def mlflow() -> None:
    tracked(f"mlflow --set tracking.uri=sqlite:///{Path.cwd()}/mlflow.db")


def notebook() -> None:
    import nbformat
    from nbclient import NotebookClient

    cells = nbformat.read(TUTORIAL, as_version=4)
    cells.cells = [cell for cell in cells.cells if not cell.source.startswith("%pip")]
    NotebookClient(cells, timeout=600).execute()


if __name__ == "__main__":
    globals()[sys.argv[1]]()
