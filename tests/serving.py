"""A server as a user starts it: `rmft serve` in a process of its own, on a free port."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import httpx2
from openai import OpenAI

PATIENCE = 300.0  # seconds: the machine may be busy


class Server:
    """Serves `model` as its folder's name, and `agent`; files, jobs and episodes lie in `folder`.

    adapters: the folder that it loads adapters from.
    """

    def __init__(
        self,
        model: Path | None,
        folder: Path,
        key: str | None = None,
        agent: str | None = None,
        adapters: Path | None = None,
    ) -> None:
        self.model, self.folder, self.key, self.agent = model, folder, key, agent
        self.adapters = adapters
        self.said: list[str] = []
        self.start()

    def start(self, port: int = 0) -> None:
        """Start it, or start it again, and wait until it listens; 0: at any free port."""
        command = [sys.executable, "-m", "rmft.cli", "serve"]
        command += [] if self.model is None else ["--model", str(self.model)]
        command += [] if self.agent is None else ["--agent", self.agent]
        command += [] if self.adapters is None else ["--adapters", str(self.adapters)]
        command += ["--folder", str(self.folder), "--port", str(port), "--num-threads", "1"]
        environment = {**os.environ, "RMFT_SERVE_KEY": self.key or ""}
        self.log = self.folder.with_name(f"{self.folder.name}.log")
        with self.log.open("a") as log:
            self.process = subprocess.Popen(command, stderr=log, env=environment)
        try:
            until(lambda: len(re.findall(r"at (http\S+)", self.log.read_text())) > len(self.said), self)
        except BaseException:
            self.process.kill()
            self.process.wait()
            raise
        self.said = re.findall(r"at (http\S+)", self.log.read_text())
        self.url = self.said[-1]
        self.client = OpenAI(base_url=self.url, api_key=self.key or "none", max_retries=0, timeout=PATIENCE)

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        """Leave nothing running, whatever happened."""
        if self.process.poll() is None:
            self.kill()

    def kill(self) -> None:
        """Kill it, with no chance to tidy up."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        self.client.close()

    def stop(self) -> None:
        """Ask it to end."""
        self.client.close()
        self.process.terminate()
        self.process.wait(PATIENCE)

    def chat(self, words: str = "Choose.", model: str = "tiny", **wishes: Any) -> Any:
        """One chat completion through the SDK."""
        messages = wishes.pop("messages", [{"role": "user", "content": words}])
        return self.client.chat.completions.create(model=model, messages=messages, **wishes)

    def send(
        self, method: str, path: str, content: bytes | Iterable[bytes] = b"", kind: str = "application/json"
    ) -> httpx2.Response:
        """A request as no SDK would send it."""
        headers = {"content-type": kind, "authorization": f"Bearer {self.key}"}
        return httpx2.request(method, self.url + path, content=content, headers=headers, timeout=PATIENCE)

    def job(self, file: str, **wishes: Any) -> Any:
        """Create a job through the SDK."""
        return self.client.fine_tuning.jobs.create(model="tiny", training_file=file, **wishes)

    def events(self, job: str) -> list[str]:
        """All that was told of a job, the oldest first."""
        told = [event.message for event in self.client.fine_tuning.jobs.list_events(job, limit=100)]
        return told[::-1]

    def ended(self, job: str) -> Any:
        """The job, once it has ended."""
        until(lambda: self.client.fine_tuning.jobs.retrieve(job).finished_at is not None, self)
        return self.client.fine_tuning.jobs.retrieve(job)


def until(happens: Callable[[], object], server: Server) -> None:
    """Wait for it; fails when it takes too long, or the server ends."""
    deadline = time.monotonic() + PATIENCE
    while not happens():
        assert server.process.poll() is None, server.log.read_text()
        assert time.monotonic() < deadline, server.log.read_text()
        time.sleep(0.05)


def chats(count: int = 12) -> bytes:
    """A training file: each chat has two answers, of which only the second is learned from."""
    lines = []
    for number in range(count):
        words = [
            ("system", "Reply with one letter."),
            ("user", f"Round {number % 3}."),
            ("assistant", "J"),
            ("user", "Again."),
            ("assistant", "QS"[number % 3 == 0]),
        ]
        messages: list[dict[str, Any]] = [{"role": role, "content": text} for role, text in words]
        messages[2]["weight"] = 0
        lines.append(json.dumps({"messages": messages}))
    return "\n".join(lines).encode()
