"""A provider on loopback that speaks OpenAI's, Azure's or Together's routes, and misbehaves as it is told."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

KEY = "sk-vendor-0123456789abcdefghij"
PATIENCE = 120.0  # seconds: the machine may be busy
DONE = ("queued", "running", "succeeded")


@dataclass
class Job:
    id: str
    body: dict[str, Any]
    script: deque[str]

    @property
    def status(self) -> str:
        return self.script[0]


@dataclass
class Vendor:
    """What the provider holds and how it behaves.

    reply: put over every chat completion. answers: what one says, from its request.
    faults: what happens to the next requests, whose path holds the first element: see `Handler.misbehave`.
    chance: draws what happens to the others.
    script: the statuses that new jobs go through, one per look. gate: (path part, "before" or "after" the
    deed): the next such request is held there until the gate is opened, and then, before the deed, is lost.
    together: all requests wait for each other.
    """

    models: list[str] = field(default_factory=lambda: ["base-model"])
    shutdown: str | None = "2097-01-14"
    delay: float = 0.0
    stall: float = 1.0
    script: tuple[str, ...] = DONE
    reply: dict[str, Any] = field(default_factory=dict)
    answers: Callable[[dict[str, Any]], str] | None = None
    endpoints: list[dict[str, Any]] = field(default_factory=list)
    deployed: set[str] = field(default_factory=set)
    faults: list[tuple[str, str]] = field(default_factory=list)
    chance: Callable[[], str | None] = lambda: None
    files: dict[str, tuple[str, bytes]] = field(default_factory=dict)
    jobs: list[Job] = field(default_factory=list)
    seen: list[tuple[str, str]] = field(default_factory=list)
    bodies: list[Any] = field(default_factory=list)
    gate: tuple[str, str] | None = None
    reached: threading.Event = field(default_factory=threading.Event)
    opened: threading.Event = field(default_factory=threading.Event)
    together: threading.Barrier | None = None
    in_flight: int = 0
    most_in_flight: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)
    url: str = ""

    def fault_for(self, path: str) -> str | None:
        with self.lock:
            for index, (part, fault) in enumerate(self.faults):
                if part in path:
                    del self.faults[index]
                    return fault
            return self.chance()

    def count(self, method: str, ending: str) -> int:
        return sum(1 for seen, path in self.seen if seen == method and path.endswith(ending))


class Server(ThreadingHTTPServer):
    request_queue_size = 256
    daemon_threads = True


@contextmanager
def serving(vendor: Vendor) -> Iterator[Vendor]:
    """The vendor's server on a free port; its address is `vendor.url`."""
    handler = type("Bound", (Handler,), {"vendor": vendor})
    server = Server(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    vendor.url = f"http://127.0.0.1:{server.server_port}/v1"
    try:
        yield vendor
    finally:
        vendor.opened.set()
        server.shutdown()
        server.server_close()
        thread.join()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    vendor: Vendor

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        self.answer("GET")

    def do_POST(self) -> None:
        self.answer("POST")

    def answer(self, method: str) -> None:
        vendor, url = self.vendor, urlsplit(self.path)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        with vendor.lock:
            vendor.seen.append((method, url.path))
            vendor.in_flight += 1
            vendor.most_in_flight = max(vendor.most_in_flight, vendor.in_flight)
        try:
            time.sleep(vendor.delay)
            if vendor.together is not None:
                vendor.together.wait()
            fault = vendor.fault_for(url.path)
            if self.hold(url.path, "before"):
                fault = "drop"
            if fault is not None and fault != "after":
                self.misbehave(fault)
                return
            status, reply = self.deed(method, url.path, parse_qs(url.query), body)
            self.hold(url.path, "after")
            if fault == "after":
                self.misbehave("drop")
            else:
                self.send(status, json.dumps(reply).encode())
        except OSError:
            self.close_connection = True
        finally:
            with vendor.lock:
                vendor.in_flight -= 1

    def hold(self, path: str, when: str) -> bool:
        gate = self.vendor.gate
        if gate is not None and gate[0] in path and gate[1] == when:
            self.vendor.gate = None
            self.vendor.reached.set()
            self.vendor.opened.wait(PATIENCE)
            return True
        return False

    def send(self, status: int, content: bytes, **headers: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(content)

    def misbehave(self, fault: str) -> None:
        kind, _, detail = fault.partition(":")
        if kind == "status":  # status:429, status:429:retry-after-ms=50, status:400:code=x
            number, _, rest = detail.partition(":")
            name, _, value = rest.partition("=")
            error = {"message": f"no: you sent {self.headers.get('Authorization')}"}
            if name == "code":
                error["code"] = value
            headers = {name: value} if name.startswith("retry") else {}
            self.send(int(number), json.dumps({"error": error}).encode(), **headers)
        elif kind == "half":  # announces more than it sends
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(b'{"choices": [')
            self.close_connection = True
        elif kind == "torn":
            self.send(200, b'{"choices": [{"mess')
        elif kind == "wrong":
            self.send(200, detail.encode() or b'{"hello": "world"}')
        elif kind in ("drop", "stall"):
            if kind == "stall":
                time.sleep(self.vendor.stall)
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
        else:
            raise AssertionError(fault)

    def deed(self, method: str, path: str, query: dict[str, list[str]], body: bytes) -> tuple[int, Any]:
        vendor = self.vendor
        sent = self.headers.get("Authorization", "").removeprefix("Bearer ") or self.headers.get("api-key")
        if sent != KEY:
            return 401, {
                "error": {"message": f"Incorrect API key provided: {sent}.", "code": "invalid_api_key"}
            }
        parts = path.strip("/").split("/")[1:]  # without v1 or openai
        if parts[:1] == ["deployments"]:  # Azure's
            if parts[1] not in vendor.deployed:
                return 404, {"error": {"code": "DeploymentNotFound", "message": "It does not exist."}}
            return 200, chat_reply(vendor)
        if parts == ["chat", "completions"]:
            return self.chat(json.loads(body))
        if parts[:1] == ["files"]:
            return self.file(parts, body)
        if parts == ["models"]:
            models = [{"id": name, "shutdown_date": vendor.shutdown} for name in vendor.models]
            return 200, {"object": "list", "data": models}
        if parts[:3] == ["fine-tunes", "models", "limits"]:
            known = query["model_name"][0] in vendor.models
            return 200, {"max_num_epochs": 20} if known else {"message": "Model is not supported"}
        if parts[:1] == ["endpoints"]:
            return 200, {"data": vendor.endpoints}
        return self.job(method, parts, query, body)

    def chat(self, request: dict[str, Any]) -> tuple[int, Any]:
        self.vendor.bodies.append(request)
        made = [f"tuned:{job.id}" for job in self.vendor.jobs if job.status == "succeeded"]
        if request["model"] not in self.vendor.models + made:
            return 404, {"error": {"message": f"The model {request['model']} does not exist", "code": "x"}}
        reply = chat_reply(self.vendor)
        if self.vendor.answers is not None:
            reply["choices"][0]["message"]["content"] = self.vendor.answers(request)
        return 200, reply

    def file(self, parts: list[str], body: bytes) -> tuple[int, Any]:
        vendor = self.vendor
        if len(parts) == 2 and parts[1] != "upload":
            return 200, {"id": parts[1], "status": "processed"}
        boundary = self.headers["Content-Type"].partition("boundary=")[2].strip('"').encode()
        with vendor.lock:
            file = f"file-{len(vendor.files)}"
            for part in body.split(b"--" + boundary)[1:-1]:
                head, _, content = part.strip(b"\r\n").partition(b"\r\n\r\n")
                if b'name="file"' in head:
                    vendor.files[file] = (head.decode(), content)
        return 200, {"id": file, "object": "file", "bytes": len(body)}

    def job(self, method: str, parts: list[str], query: dict[str, list[str]], body: bytes) -> tuple[int, Any]:
        vendor = self.vendor
        together = parts[0] == "fine-tunes"
        rest = parts[1:] if together else parts[2:]
        if not rest and method == "POST":
            with vendor.lock:
                request = json.loads(body)
                if request["training_file"] not in vendor.files:
                    return 400, {"error": {"message": "no such file"}}
                job = Job(f"job-{len(vendor.jobs)}", request, deque(vendor.script))
                vendor.jobs.append(job)
            return 200, shown(job, together)
        if not rest:
            newest = [shown(job, together) for job in reversed(vendor.jobs)]
            after = query.get("after", [""])[0]
            ids = [job["id"] for job in newest]
            start = ids.index(after) + 1 if after else 0
            page = newest[start : start + 2]  # smaller than asked for, so that pages are turned
            return 200, {"data": newest if together else page, "has_more": start + 2 < len(newest)}
        found = [job for job in vendor.jobs if job.id == rest[0]]
        if not found:
            return 404, {"error": {"message": "no such job"}}
        (job,) = found
        if rest[1:] == ["cancel"]:
            job.script = deque(["cancelled"])
        if rest[1:] == ["checkpoints"]:
            return 200, {"data": [checkpoint(job, step, together) for step in (20, 10)]}
        reply = shown(job, together)
        if len(job.script) > 1:
            job.script.popleft()
        return 200, reply


def shown(job: Job, together: bool) -> dict[str, Any]:
    status, file = job.status, job.body["training_file"]
    made = f"tuned:{job.id}" if status == "succeeded" else None
    if together:
        named = {"succeeded": "completed", "failed": "error"}.get(status, status)
        events = [{"message": "started"}, {"message": "it broke"}]
        names = {"model_output_name": f"me/{job.id}", "token_count": 120}
        return {"id": job.id, "status": named, "training_file": file, "events": events, **names}
    error = {"message": "it broke"} if status == "failed" else {}
    facts = {"fine_tuned_model": made, "trained_tokens": 120 if made else None, "error": error}
    return {"id": job.id, "status": status, "training_file": file, **facts}


def checkpoint(job: Job, step: int, together: bool) -> dict[str, Any]:
    if together:
        return {"path": f"s3://{job.id}/{step}", "step": step, "checkpoint_type": "Intermediate"}
    loss = {"train_loss": 1.0 - step / 100}
    return {"fine_tuned_model_checkpoint": f"{job.id}:{step}", "step_number": step, "metrics": loss}


def chat_reply(vendor: Vendor) -> dict[str, Any]:
    message = {"role": "assistant", "content": "7"}
    usage = {"prompt_tokens": 12, "completion_tokens": 1}
    return {"choices": [{"message": message, "finish_reason": "stop"}], "usage": usage, **vendor.reply}
