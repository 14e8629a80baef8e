"""A policy that servers play: two real `rmft serve` on loopback, against the model in this process."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest
import torch
import yaml

from rmft.config import parse_config
from rmft.errors import ConfigError, EndpointError
from rmft.generators.engine import RemoteEngine
from rmft.generators.fleet import Fleet
from rmft.generators.loading import load_model
from rmft.generators.local import LocalEngine
from rmft.improve import rollouts_of
from rmft.policies.config import LocalConfig
from rmft.policies.language import LanguagePolicy
from rmft.rollout import Player, rollout_in_pieces
from rmft.training.adapter import load_trainable, save_trained, trained_weights
from rmft.training.local import new_policy
from rmft.types import PolicyRef, Trajectories
from rmft.wiring.backends import backend
from rmft.wiring.suites import load_suites
from serving import Server

TIMEOUT = 300.0
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")  # peft's own use of transformers


@pytest.fixture(scope="module")
def adapters(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("adapters")


@pytest.fixture(scope="module")
def servers(
    tiny_llama: Path, adapters: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[list[Server]]:
    folder = tmp_path_factory.mktemp("serve")
    with (
        Server(tiny_llama, folder / "one", adapters=adapters) as one,
        Server(tiny_llama, folder / "two", adapters=adapters) as two,
    ):
        yield [one, two]


@pytest.fixture(scope="module")
def local(tiny_llama: Path) -> LocalEngine:
    return LocalEngine(load_model(str(tiny_llama), "float32", "cpu")[0], 1.0)


def settings(model: Path, urls: list[str], adapters: Path, **policy: Any) -> Any:
    """Of a run on words/bandits that servers play; without urls this process does."""
    engine = {"urls": urls, "adapter_folder": str(adapters), "model": "tiny"}
    played_by = {"engine": engine} if urls else {}
    return parse_config({
        "name": "tiny", "suite": "words/bandits", "iterations": 1, "num_threads": 1,
        "policy": {
            "kind": "local", "model": str(model), "device": "cpu", **played_by, **policy
        },
        "rollout": {"num_problems": 4, "num_rollouts": 4},
        "credit": {"kind": "top_k_regret", "num_selected": 2},
        "training": {"batch_size": 4, "learning_rate": 0.01},
        "validation": {"num_problems": 4},
    })  # fmt: skip


def random_adapter(config: Any, folder: Path, seed: int) -> PolicyRef:
    """A policy whose adapter is far from none."""
    folder.mkdir()
    start = new_policy(config.policy, 0, folder)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model, tokenizer = load_trainable(start.path, config.policy)
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(weight, std=0.2)
    save_trained(model, tokenizer, config.policy.model, trained_weights(model), folder)
    return start


def played(config: Any, player: Player) -> Trajectories:
    """What a backend of these settings plays of 4 problems x 4 rollouts."""
    suites = load_suites(config)
    made = backend(config, suites)
    try:
        batch = suites[config.suite].draw("train", 4)[0]
        paths = [(1, int(problem), rollout) for problem in batch.indices for rollout in range(4)]
        return Trajectories.concatenate(list(made.play(player, rollouts_of(batch, 4, 0, paths))))
    finally:
        made.close()


def turns(trajectories: Trajectories) -> list[list[int]]:
    return [[*turn.ids.tolist()] for each in trajectories.histories.words.turns for turn in each]


def test_a_session_far_away_is_as_one_here(servers: list[Server], local: LocalEngine) -> None:
    """Read, choose and write over several rounds: the same tokens and probabilities, by both ways."""
    generator = np.random.default_rng(0)
    openings = [generator.integers(300, 4000, 40).tolist() for _ in range(3)]
    for allowed in (False, True):
        fleet = Fleet([server.url for server in servers], None, TIMEOUT)
        fleet.look()
        engine = RemoteEngine(fleet, "tiny", local.context, local.stop_ids, allowed=allowed)
        near, far = local.session(6, 400), engine.session(6, 400)
        for session in (near, far):
            session.read([openings[row // 2] for row in range(6)])
        for number in range(3):
            legal = generator.integers(300, 4000, (6, 4))
            uniforms = generator.random(6)
            one, other = near.choose(legal, uniforms, 0.7), far.choose(legal, uniforms, 0.7)
            assert np.array_equal(one[0], other[0])
            assert one[1] == pytest.approx(other[1], abs=1e-4)
            assert one[2] == pytest.approx(other[2], abs=1e-5)
            ends = lambda ids: True if ids[-1] % 7 == 0 else (False if ids[-1] % 7 == 1 else None)  # noqa: E731
            wrote = far.write(8, ends, generator.random((6, 8)))
            for row, each in enumerate(wrote):
                again = local.session(1, 400)
                again.read([far.ids[row][: len(far.ids[row]) - len(each.ids)]])
                for token, logprob in zip(each.ids, each.logprobs, strict=True):
                    logs = again.logits(np.array([0]))[0].double().log_softmax(-1)
                    assert float(logs[token]) == pytest.approx(logprob, abs=1e-4)
                    again.read([[token]])
                assert each.ended or len(each.ids) == 8
            assert len({tuple(each.ids) for each in wrote}) > 3, "rows that begin alike have their own luck"
            near.read([far.ids[row][len(near.ids[row]) :] for row in range(6)])
            told = [generator.integers(300, 4000, 3 + number).tolist()] * 6
            near.read(told)
            far.read(told)
        homes = far._homes(range(6))  # which rows are where
        assert homes[0] == homes[1] != homes[2] == homes[3]
        del far, session
        assert set(engine._load.values()) == {0}, "rows that are over take no room"
        fleet.close()


def test_sessions_go_on_by_themselves_and_share_the_servers(
    servers: list[Server], local: LocalEngine, tiny_llama: Path
) -> None:
    """In threads, a slow one keeping no other waiting: the decisions are those of one process."""
    config = LocalConfig.model_validate({"model": str(tiny_llama), "device": "cpu"})
    fleet = Fleet([server.url for server in servers], None, TIMEOUT)
    fleet.look()
    far = RemoteEngine(fleet, "tiny", local.context, local.stop_ids, rows=12)
    assert (far.sessions_at_once, far.rows_at_once(100)) == (8, 3)
    batch = load_suites(settings(tiny_llama, [], Path()))["words/bandits"].draw("train", 9)[0]
    todo = rollouts_of(
        batch, 2, 0, [(1, int(problem), each) for problem in batch.indices for each in range(2)]
    )
    found = []
    for engine in (local, far):
        policy = LanguagePolicy(engine, load_model(str(tiny_llama), "float32", "cpu")[1], config)
        found.append(turns(Trajectories.concatenate(list(rollout_in_pieces(lambda _, p=policy: p, todo)))))
    assert found[0] == found[1]
    homes = list(far._homes.values())
    assert {homes.count(url) for url in fleet.urls} <= set(range(2, 8)), "each has some of the problems"
    fleet.close()


def test_adapters_come_and_go(
    servers: list[Server], tiny_llama: Path, adapters: Path, tmp_path: Path
) -> None:
    server = servers[0]
    random_adapter(settings(tiny_llama, [], adapters), adapters / "mine", 0)

    def post(path: str, **body: Any) -> httpx2.Response:
        return server.send("POST", path, json.dumps(body).encode())

    assert post("/load_lora_adapter", lora_name="mine", lora_path=str(adapters / "mine")).status_code == 200
    shown = {model["id"]: model for model in server.send("GET", "/models").json()["data"]}
    assert (shown["mine"]["parent"], shown["mine"]["root"]) == ("tiny", str(adapters / "mine"))
    asked = {"prompt": [[300, 301, 302]], "max_tokens": 1, "logprobs": 1, "logprob_token_ids": [5, 6]}
    found = [
        post("/completions", model=model, **asked).json()["choices"][0]["logprobs"]["top_logprobs"][0]
        for model in ("tiny", "mine", "mine")
    ]
    assert found[0] != found[1] == found[2]
    (tmp_path / "elsewhere").mkdir()
    (adapters / "empty").mkdir()
    for name, folder, why in [
        ("mine", adapters / "mine", "There is a model 'mine' already"),
        ("other", tmp_path / "elsewhere", "loads those in"),
        ("other", adapters / "empty", "finds no adapter in"),
        ("other", adapters / ".." / "x", "loads those in"),
    ]:
        refused = post("/load_lora_adapter", lora_name=name, lora_path=str(folder))
        assert refused.status_code == 400
        assert why in refused.json()["error"]["message"]
    assert post("/unload_lora_adapter", lora_name="mine").status_code == 200
    assert post("/unload_lora_adapter", lora_name="mine").status_code == 404
    assert post("/completions", model="mine", **asked).status_code == 404
    assert post("/completions", model="tiny", prompt=[[70_000]]).status_code == 400
    assert post("/completions", model="tiny", prompt=[[5] * 2048]).json()["error"]["param"] == "prompt"
    assert post("/completions", model="tiny", prompt="words").status_code in (400, 422)


@pytest.mark.parametrize("reasoning", ["off", pytest.param("brief", marks=pytest.mark.slow)])
def test_servers_play_what_this_process_would(
    servers: list[Server], tiny_llama: Path, adapters: Path, tmp_path: Path, reasoning: str
) -> None:
    wording = {"wording": {"reasoning": reasoning}, "reasoning_budget": 5}
    config = settings(tiny_llama, [], adapters, **wording)
    player = Player(random_adapter(config, tmp_path / "policy", 1), sample_arms=True)
    urls = [server.url for server in servers]
    far = played(settings(tiny_llama, urls, adapters, **wording), player)
    if reasoning == "off":
        near = played(config, player)
        assert turns(near) == turns(far)
        assert near.histories.probabilities == pytest.approx(far.histories.probabilities, abs=1e-4)
    else:
        alone = played(settings(tiny_llama, urls[1:], adapters, **wording), player)
        assert turns(alone) == turns(far), "what is written does not depend on where"
    for server in servers:  # nothing is left behind
        assert [model["id"] for model in server.send("GET", "/models").json()["data"]] == ["tiny"]


class Faulty(BaseHTTPRequestHandler):
    """In front of a real server: says that it has loaded adapters and plays the base model in their place.

    It stops answering after `lives` completions.
    """

    real = ""
    lives = 10**9
    stalls = False

    def do_GET(self) -> None:
        self._answer(httpx2.get(f"{self.real}/models", timeout=TIMEOUT).content)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        if self.path.endswith("_lora_adapter"):
            self._answer(b"Success", "text/plain")
            return
        kind = type(self)
        if self.path.endswith("/completions"):
            kind.lives -= 1
            if kind.lives < 0:
                if kind.stalls:
                    threading.Event().wait(3)
                self.close_connection = True
                return
        asked = {**json.loads(body), "model": "tiny"}
        address = self.real.removesuffix("/v1") + self.path
        self._answer(httpx2.post(address, json=asked, timeout=TIMEOUT).content)

    def _answer(self, content: bytes, kind: str = "application/json") -> None:
        self.send_response(200)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """It is quiet."""


@pytest.fixture
def faulty(servers: list[Server]) -> Iterator[tuple[str, type[Faulty]]]:
    kind = type("FaultyNow", (Faulty,), {"real": servers[1].url})
    server = ThreadingHTTPServer(("127.0.0.1", 0), kind)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/v1", kind
    server.shutdown()
    server.server_close()


def test_a_server_that_ignores_adapters_stops_the_run(
    faulty: tuple[str, type[Faulty]], tiny_llama: Path, adapters: Path, tmp_path: Path
) -> None:
    config = settings(tiny_llama, [faulty[0]], adapters)
    player = Player(random_adapter(config, tmp_path / "policy", 2))
    with pytest.raises(EndpointError, match=r"ignores the adapter 'rmft-"):
        played(config, player)


@pytest.mark.parametrize(("lives", "stalls"), [(5, False), pytest.param(7, True, marks=pytest.mark.slow)])
def test_rows_of_a_server_that_dies_move_and_nothing_changes(
    servers: list[Server],
    faulty: tuple[str, type[Faulty]],
    tiny_llama: Path,
    adapters: Path,
    tmp_path: Path,
    lives: int,
    stalls: bool,
) -> None:
    """The base model plays. Where the last server dies too, the run stops, and says how it goes on."""
    url, kind = faulty
    config = settings(tiny_llama, [], adapters)
    (tmp_path / "policy").mkdir()
    player = Player(new_policy(config.policy, 0, tmp_path / "policy"), sample_arms=True)
    kind.lives, kind.stalls = lives, stalls
    both = settings(tiny_llama, [servers[0].url, url], adapters)
    engine = both.policy.engine.model_copy(update={"timeout": 2.0 if stalls else TIMEOUT})
    both = both.model_copy(update={"policy": both.policy.model_copy(update={"engine": engine})})
    found = played(both, player)
    assert kind.lives < 0, "it died while it played"
    assert turns(found) == turns(played(config, player))
    kind.lives, kind.stalls = lives, False
    with pytest.raises(EndpointError, match="Nothing is lost: start one, and resume the run"):
        played(settings(tiny_llama, [url], adapters), player)


@pytest.mark.slow
def test_what_is_wrong_is_told_with_its_remedy(
    servers: list[Server], tiny_llama: Path, adapters: Path, tmp_path: Path
) -> None:
    def refused(config: Any) -> str:
        with pytest.raises((EndpointError, ConfigError)) as raised:
            backend(config, load_suites(config))
        return str(raised.value)

    url = servers[0].url
    assert "No server of policy.engine.urls answers" in refused(
        settings(tiny_llama, ["http://127.0.0.1:9/v1"], adapters)
    )
    config = settings(tiny_llama, [url], adapters)
    engine = config.policy.engine.model_copy(update={"model": "other"})
    config = config.model_copy(update={"policy": config.policy.model_copy(update={"engine": engine})})
    assert "serves tiny, not 'other'" in refused(config)
    hot = config.model_copy(update={
        "policy": settings(tiny_llama, [url], adapters, wording={"reasoning": "brief"}).policy,
        "rollout": config.rollout.model_copy(update={"temperature": 1.5}),
    })  # fmt: skip
    assert "expected 1: servers tell log probabilities at temperature 1" in refused(hot)
    with pytest.raises(ConfigError, match="servers take adapters, not whole models"):
        settings(tiny_llama, [url], adapters, lora=None)
    config = settings(tiny_llama, [url], tmp_path)  # which the server may not load from
    player = Player(random_adapter(config, tmp_path / "policy", 3))
    with pytest.raises(EndpointError, match=r"refuses the adapter in .* It has to see that folder"):
        played(config, player)


@pytest.mark.slow
def test_a_run_trains_on_what_servers_play(
    servers: list[Server], tiny_llama: Path, adapters: Path, tmp_path: Path
) -> None:
    """Two iterations: the metrics of a run that plays here, but for rounding."""
    from rmft.cli import main

    found = []
    for name, urls in {"near": [], "far": [server.url for server in servers]}.items():
        config = settings(tiny_llama, urls, adapters).model_copy(update={"iterations": 2})
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(config.model_dump(mode="json")))
        with pytest.raises(SystemExit) as ended:
            main(["train", str(tmp_path / f"{name}.yaml"), "--run-dir", str(tmp_path / name)])
        assert not ended.value.code
        lines = (tmp_path / name / "metrics.jsonl").read_text().splitlines()
        found.append([json.loads(line) for line in lines])
    for near, far in zip(*found, strict=True):
        if "validation" in near:
            assert near["validation"]["regret"] == pytest.approx(far["validation"]["regret"], abs=1e-6)
        assert near.get("train", {}) == pytest.approx(far.get("train", {}), rel=1e-3, abs=1e-6)
