"""The whole loop through `rmft serve`: a real model behind a real API, trained there, with no vendor."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from hosted_client import PATIENCE, finish, start
from rmft.providers.hosted_model import read_hosted
from serving import Server


def write_config(folder: Path, model: str, iterations: int, **more: Any) -> Path:
    config = {
        "name": "served",
        "suite": "words/bandits",
        "iterations": iterations,
        "policy": {"kind": "hosted", "provider": "compatible", "model": model, "poll_seconds": 0.2},
        "rollout": {"num_problems": 2, "num_rollouts": 3},
        "credit": {"kind": "top_k_regret", "num_selected": 1},
        "validation": {"every": iterations, "num_problems": 2},
        **more,
    }
    path = folder / "served.yaml"
    path.write_text(yaml.safe_dump(config), "utf-8")
    return path


def outcome(run: Path) -> dict[str, Any]:
    """What a finished run came to, but for times and the names that the server drew.

    Numbers to three digits: answers are written together with others, which rounds their log probabilities.
    """
    lines = (run / "metrics.jsonl").read_text("utf-8").splitlines()
    metrics = [json.loads(line, parse_float=lambda number: round(float(number), 3)) for line in lines]
    result = json.loads((run / "result.json").read_text("utf-8"))
    training = [file.read_text("utf-8") for file in sorted((run / "fine-tuning").glob("*.jsonl"))]
    return {"metrics": metrics, "result": result, "training": training}


def jobs(server: Server) -> list[Any]:
    return list(server.client.fine_tuning.jobs.list(limit=100))[::-1]


@pytest.mark.slow
def test_two_iterations_through_the_server(tiny_llama: Path, tmp_path: Path) -> None:
    server = Server(tiny_llama, tmp_path / "store")
    try:
        config = write_config(tmp_path, "tiny", 2)
        finish("train", config, "--run-dir", tmp_path / "run", "--set", f"policy.base_url={server.url}")
        first, second = jobs(server)
        assert (first.status, second.status) == ("succeeded", "succeeded")
        assert (first.model, second.model) == ("tiny", first.fine_tuned_model)
        made = read_hosted(tmp_path / "run" / "checkpoints" / "000002")
        assert (made.base, made.model, made.job) == ("tiny", second.fine_tuned_model, second.id)
        rollout = outcome(tmp_path / "run")["metrics"][1]["rollout"]
        assert rollout["failed"] == 0  # the server holds answers to the schema
        assert rollout["entropy"] > 0.3  # of its log probabilities; a random model's, of two or three
        finish("evaluate", tmp_path / "run", "--num-problems", "2", "--against", "thompson")
    finally:
        server.stop()


@pytest.mark.slow
def test_killed_everywhere_it_comes_to_the_same(smollm2: Path, tmp_path: Path) -> None:
    """SmolLM2, three iterations: the client killed in rollouts, upload and polling, the server in a job."""
    name = smollm2.name
    config = write_config(tmp_path, name, 3)
    whole = Server(smollm2, tmp_path / "whole-store")
    try:
        finish("train", config, "--run-dir", tmp_path / "whole", "--set", f"policy.base_url={whole.url}")
        whole_models = [job.status for job in jobs(whole)]
    finally:
        whole.stop()

    server = Server(smollm2, tmp_path / "store")
    run = tmp_path / "killed"

    def answered() -> int:
        path = run / "answers.jsonl"
        return path.read_bytes().count(b"\n") if path.exists() else 0

    def state() -> str:
        path = run / "fine-tuning" / "000001.json"
        return path.read_text("utf-8") if path.exists() else ""

    arguments: tuple[object, ...] = ("train", config, "--run-dir", run)
    arguments += ("--set", f"policy.base_url={server.url}")
    try:
        moments: list[Callable[[], bool]] = [
            lambda: answered() > 40,  # in rollouts
            lambda: (run / "fine-tuning" / "000001.jsonl").exists(),  # in the upload
            lambda: '"job":"ftjob' in state().replace(" ", ""),  # in polling
        ]
        for moment in moments:
            process = start(*arguments)
            deadline = time.monotonic() + PATIENCE
            while not moment() and process.poll() is None and time.monotonic() < deadline:
                time.sleep(0.002)
            process.send_signal(signal.SIGKILL)
            process.communicate()
            assert process.returncode == -signal.SIGKILL
            arguments = ("resume", run)
        process = start("resume", run)
        while len(jobs(server)) < 2 or jobs(server)[1].status != "running":
            assert process.poll() is None
            time.sleep(0.02)
        server.kill()
        server.start(int(server.url.rsplit(":", 1)[1].removesuffix("/v1")))
        _, said = process.communicate(timeout=PATIENCE)
        if process.returncode:  # it gave up while the server was gone
            finish("resume", run)
        assert [job.status for job in jobs(server)] == whole_models
        assert outcome(run) == outcome(tmp_path / "whole"), said.decode()
    finally:
        server.stop()
