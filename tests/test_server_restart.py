"""What `rmft serve` has accepted outlives a kill; who may use it; and a real model behind it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx2
import openai
import psutil
import pytest

from rmft.errors import ConfigError
from rmft.policies.checkpoint import ADAPTER
from rmft.server.access import listen
from serving import Server, chats, until


def test_without_a_key_only_this_machine_is_served() -> None:
    for host in ("0.0.0.0", "::"):
        with pytest.raises(ConfigError, match="RMFT_SERVE_KEY"):
            listen(host, 0, None)
        listen(host, 0, "a key").close()
    with listen("localhost", 0, None) as taken, pytest.raises(ConfigError, match="Can't serve"):
        listen("localhost", taken.getsockname()[1], None)


@pytest.mark.slow
def test_every_accepted_job_ends_once_though_the_server_is_killed(tiny_llama: Path, tmp_path: Path) -> None:
    """A job that was interrupted ends in the same model as one that was not; those that waited are run."""
    with Server(tiny_llama, tmp_path / "store") as server:
        files, jobs = server.client.files, server.client.fine_tuning.jobs
        file = files.create(file=("t.jsonl", chats()), purpose="fine-tune")
        long = [{"role": role, "content": "a " * 2100} for role in ("user", "assistant")]
        too_long = files.create(
            file=("t.jsonl", json.dumps({"messages": long}).encode()), purpose="fine-tune"
        )
        chosen: dict[str, Any] = {"seed": 5, "hyperparameters": {"n_epochs": 8, "batch_size": 1}}
        whole = server.ended(server.job(file.id, suffix="whole", **chosen).id)
        cut = server.job(file.id, suffix="cut", **chosen)
        further = jobs.create(model=whole.fine_tuned_model, training_file=file.id, suffix="further")
        failing = server.job(too_long.id)
        until(lambda: sum("Step" in told for told in server.events(cut.id)) > 20, server)
        (training,) = psutil.Process(server.process.pid).children()
        server.kill()
        training.wait(60)  # it does not outlive the server
        assert not (server.folder / "models" / cut.id).exists()

        server.start()
        jobs = server.client.fine_tuning.jobs
        assert server.client.files.content(file.id).content == chats()
        ended = [server.ended(job.id) for job in (cut, further, failing)]
        assert [job.status for job in ended] == ["succeeded", "succeeded", "failed"]
        assert "reads 2048" in ended[-1].error.message
        with pytest.raises(openai.BadRequestError, match="has failed already"):
            jobs.cancel(failing.id)
        models = {model.id for model in server.client.models.list()}
        assert models == {"tiny", *(job.fine_tuned_model for job in (whole, *ended[:2]))}
        adapters = [
            (server.folder / "models" / job.id / ADAPTER).read_bytes() for job in (whole, cut, further)
        ]
        assert adapters[0] == adapters[1] != adapters[2]
        told = [event.message for event in jobs.list_events(cut.id)]
        assert sum("begins anew" in each for each in told) == sum("new model" in each for each in told) == 1
        first, last = (
            next(event.data["train_loss"] for event in list(jobs.list_events(job.id))[::-1] if event.data)
            for job in (whole, further)
        )
        assert last < first - 1  # training went on from the model that it was given
        server.stop()
        assert list((server.folder / "work").iterdir()) == []


@pytest.mark.slow
def test_a_real_model_answers(smollm2: Path, tmp_path: Path) -> None:
    with Server(smollm2, tmp_path / "store") as server:
        asked: dict[str, Any] = {"model": smollm2.name, "temperature": 0, "max_tokens": 12}
        answer = server.chat("What is the capital of France?", **asked)
        assert "Paris" in answer.choices[0].message.content
        elsewhere = httpx2.get(f"{server.url}/models", headers={"host": "a-page-in-a-browser.example"})
        assert (elsewhere.status_code, elsewhere.json()["error"]["code"]) == (400, "invalid_host")
        server.stop()
