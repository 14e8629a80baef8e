"""Rollouts against a server that answers after a fixed delay: many at once, beside one at a time.

    python benchmarks/hosted_rollout_speed.py                # needs the extra api

Prints rounds per second at both, and how many times as many it is: at most the concurrency.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import re
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing.connection import Connection as Pipe

import numpy as np

from rmft.config import EndpointConfig, HostedConfig
from rmft.generators.api import ApiModel, Features
from rmft.policies.hosted import HostedPolicy
from rmft.problems.suites import load_suite
from rmft.providers.connection import Connection
from rmft.providers.journal import Journal
from rmft.rollout import Rollouts, rollout_in_pieces

FEATURES = Features(
    temperature=True, seed=True, logprobs=False, structured=False, max_completion_tokens=False
)


def serve(delay: float, pipe: Pipe) -> None:
    """Answer every chat completion with the first letter that it lists, `delay` seconds later."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            listed = re.search(r"^([A-Z]) ", request["messages"][0]["content"], re.MULTILINE)
            time.sleep(delay)
            message = {"role": "assistant", "content": listed[1] if listed else "?"}
            reply = json.dumps({"choices": [{"message": message, "finish_reason": "stop"}]}).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(reply)))
            self.end_headers()
            self.wfile.write(reply)

    ThreadingHTTPServer.request_queue_size = 256
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    pipe.send(server.server_port)
    server.serve_forever()


def rounds_per_second(url: str, concurrency: int, num_rollouts: int, journal: Journal) -> float:
    """Of whole rollouts of words/bandits' problems, parsing, journal and bookkeeping included."""
    batch = load_suite("words/bandits").draw("train", 2 * num_rollouts)[0]
    config = HostedConfig(model="delayed", endpoint=EndpointConfig(concurrency=concurrency))
    with Connection(base_url=url, concurrency=concurrency) as connection:
        policy = HostedPolicy(ApiModel(connection, journal, "delayed", FEATURES, lambda *_: None), config)
        rows, setting = np.arange(num_rollouts), batch.setting
        paths = [(concurrency, int(row)) for row in rows]
        begun = time.perf_counter()
        rollouts = Rollouts(setting.rules, setting.game, batch.table, batch.words, rows, 0, paths)
        pieces = rollout_in_pieces(lambda _: policy, rollouts)
        failed = sum(len(piece.histories.failed) for piece in pieces)
        seconds = time.perf_counter() - begun
    if failed:
        raise SystemExit(f"{failed} rollouts failed.")
    return num_rollouts * setting.rules.horizon / seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--delay", type=float, default=1.0, help="seconds until an answer")
    parser.add_argument("--concurrency", type=int, default=64)
    parser.add_argument("--rollouts", type=int, default=256, help="at that concurrency; 2 one at a time")
    arguments = parser.parse_args()
    ours, theirs = multiprocessing.Pipe()
    server = multiprocessing.get_context("spawn").Process(
        target=serve, args=(arguments.delay, theirs), daemon=True
    )
    server.start()
    url = f"http://127.0.0.1:{ours.recv()}/v1"
    one = rounds_per_second(url, 1, 2, Journal(None))
    many = rounds_per_second(url, arguments.concurrency, arguments.rollouts, Journal(None))
    server.terminate()
    print(f"{os.cpu_count()} cores, {arguments.delay:g} s until an answer")
    print(f"one at a time: {one:.2f} rounds/s; {arguments.concurrency} at once: {many:.1f} rounds/s")
    print(f"{many / one:.1f} times as many (at most {arguments.concurrency})")


if __name__ == "__main__":
    main()
