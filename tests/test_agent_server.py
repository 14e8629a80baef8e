"""`rmft serve --agent`: decisions over HTTP are those in a program; repeated, wrong, interrupted requests."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

import rmft
from serving import Server

KEY = "a-key-that-nobody-guesses"
BEGUN: dict[str, Any] = {"options": ["red", "green", "blue"], "horizon": 5, "seed": 7}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(None, tmp_path_factory.mktemp("agent") / "store", KEY, agent="thompson") as started:
        yield started
        started.stop()


def send(server: Server, path: str, body: object = None, key: str | None = None, method: str = "POST") -> Any:
    """The status and the body of an answer."""
    headers = {"authorization": f"Bearer {server.key}", **({"idempotency-key": key} if key else {})}
    content = b"" if body is None else json.dumps(body).encode()
    if content:
        headers["content-type"] = "application/json"
    answer = httpx2.request(method, server.url + path, content=content, headers=headers, timeout=300)
    return answer.status_code, answer.json()


def alone(rounds: int) -> list[int]:
    """What the same agent decides in a program."""
    arms = []
    with rmft.Agent.load("thompson").episode(**BEGUN) as episode:
        for _ in range(rounds):
            arms.append(episode.decide().arm)
            episode.observe(arms[-1] / 2)
    return arms


def test_an_episode_over_http_is_the_one_in_a_program(server: Server) -> None:
    status, begun = send(server, "/episodes", BEGUN)
    assert (status, begun["num_rounds"], begun["done"], begun["choice"]) == (200, 0, False, None)
    assert {name: begun[name] for name in BEGUN} == BEGUN
    where, arms = f"/episodes/{begun['id']}", []
    for number in range(5):
        choice = send(server, f"{where}/decide")[1]
        assert (choice["round"], choice["name"]) == (number + 1, BEGUN["options"][choice["arm"]])
        shown = send(server, where, method="GET")[1]
        assert shown["choice"]["arm"] == choice["arm"]
        shown = send(server, f"{where}/observe", {"reward": choice["arm"] / 2})[1]
        assert (shown["num_rounds"], shown["choice"]) == (number + 1, None)
        arms.append(choice["arm"])
    assert shown["done"]
    assert arms == alone(5)
    status, refused = send(server, f"{where}/decide")
    assert (status, refused["error"]["code"]) == (409, "out_of_turn")
    assert send(server, where, method="DELETE")[1]["deleted"]
    assert send(server, where, method="GET")[0] == 404


def test_a_request_that_is_repeated_changes_nothing(server: Server) -> None:
    begun = send(server, "/episodes", BEGUN, "one")
    assert send(server, "/episodes", BEGUN, "one") == begun
    assert send(server, "/episodes", BEGUN, "another")[1]["id"] != begun[1]["id"]
    status, refused = send(server, "/episodes", {**BEGUN, "horizon": 6}, "one")
    assert (status, refused["error"]["code"]) == (422, "idempotency_key_reused")
    where = f"/episodes/{begun[1]['id']}"
    decided = send(server, f"{where}/decide", key="one")
    assert send(server, f"{where}/decide", key="one") == decided
    assert send(server, f"{where}/decide")[0] == send(server, f"{where}/decide", key="two")[0] == 409
    observed = send(server, f"{where}/observe", {"reward": 1}, "one")
    assert send(server, f"{where}/observe", {"reward": 1}, "one") == observed
    assert send(server, f"{where}/observe", {"reward": 1})[0] == 409
    assert send(server, where, method="GET")[1]["num_rounds"] == 1
    later = send(server, f"{where}/decide", key="two")  # was refused before, which is no answer to keep
    assert (later[0], later[1]["round"]) == (200, 2)


def test_wrong_requests_are_refused_in_the_api_s_shape(server: Server) -> None:
    where = f"/episodes/{send(server, '/episodes', BEGUN)[1]['id']}"
    send(server, f"{where}/decide")
    for path, body, said in (
        ("/episodes", {**BEGUN, "options": ["red", "red"]}, "red more than once"),
        ("/episodes", {**BEGUN, "options": ["red"]}, "at least 2"),
        ("/episodes", {**BEGUN, "horizon": 10**6}, "horizon"),
        ("/episodes", {**BEGUN, "feedback": "full"}, "needs bandit feedback"),
        ("/episodes", {**BEGUN, "reward_range": [0, None]}, "finite range"),
        ("/episodes", {**BEGUN, "contexts": "meadow"}, "meadows"),
        ("/episodes", {**BEGUN, "pickle": 1}, "pickle"),
        (f"{where}/observe", {"reward": 3}, "from 0 to 1"),
        (f"{where}/observe", {"reward": "1"}, "number"),
        (f"{where}/observe", {}, "reward"),
        (f"{where}/observe", {"rewards": [0, 0, 1]}, "bandit feedback"),
    ):
        status, refused = send(server, path, body)
        assert status in (400, 422), refused
        assert said in refused["error"]["message"]
    assert send(server, "/episodes/episode-nobody's/decide")[0] == 404
    assert send(server, f"{where}/observe", {"reward": 1})[1]["num_rounds"] == 1
    assert httpx2.post(f"{server.url}{where}/decide", timeout=300).status_code == 401


@pytest.mark.slow
def test_a_kill_loses_no_observation_and_decides_nothing_twice(tmp_path: Path) -> None:
    arms = []
    with Server(None, tmp_path / "store", agent="thompson") as server:
        where = f"/episodes/{send(server, '/episodes', BEGUN)[1]['id']}"
        for number in range(3):
            decided = send(server, f"{where}/decide", key=f"{number}")
            server.kill()
            server.start()
            assert send(server, f"{where}/decide", key=f"{number}") == decided
            observed = send(server, f"{where}/observe", {"reward": decided[1]["arm"] / 2}, f"{number}")
            if number == 1:
                server.kill()
                server.start()
            again = send(server, f"{where}/observe", {"reward": decided[1]["arm"] / 2}, f"{number}")
            assert again == observed
            assert observed[1]["num_rounds"] == number + 1
            arms.append(decided[1]["arm"])
        server.kill()
        server.agent = "greedy"
        server.start()
        status, refused = send(server, f"{where}/decide")
        assert (status, "'thompson'" in refused["error"]["message"]) == (400, True)
        server.stop()
    assert arms == alone(3)


def test_a_decision_is_shown_its_context(server: Server) -> None:
    begun = send(server, "/episodes", BEGUN | {"context": {"age": "number", "job": "text"}})[1]
    assert begun["context"] == ["age", "job"]
    where, asked = f"/episodes/{begun['id']}", {"context": {"age": 41, "job": "pilot"}}
    assert send(server, f"{where}/decide")[0] == 400
    assert send(server, f"{where}/decide", {"context": {"age": 41}})[0] == 400
    decided = send(server, f"{where}/decide", asked, "one")
    assert decided[0] == 200
    assert send(server, f"{where}/decide", asked, "one") == decided
    status, refused = send(server, f"{where}/decide", {"context": {"age": 42, "job": "pilot"}}, "one")
    assert (status, refused["error"]["code"]) == (422, "idempotency_key_reused")
    assert send(server, f"{where}/observe", {"reward": 1})[1]["num_rounds"] == 1
    assert send(server, f"{where}/decide", {"context": [40, "pilot"]})[0] == 200
    assert send(server, "/episodes", BEGUN | {"context": {"age": "colour"}})[0] in (400, 422)
