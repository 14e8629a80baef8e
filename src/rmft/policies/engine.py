"""A local policy played by servers: its adapters there, one after another, and whether they are played.

Each adapter has a name of its own, made of its content, and a folder of that name, so that no server can
mistake one for another. It is loaded on every server, kept one policy longer, and unloaded. Before it plays,
its probabilities in a few states are compared with those of the model in this process.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from rmft.errors import ConfigError, EndpointError
from rmft.generators.engine import RemoteEngine, draw
from rmft.generators.fleet import Fleet, RefusalError
from rmft.generators.loading import HeldModel
from rmft.generators.local import LocalEngine
from rmft.policies.checkpoint import ADAPTER, ADAPTER_CONFIG, adapter_in, read_policy
from rmft.policies.config import LocalConfig
from rmft.policies.language import LanguagePolicy, State
from rmft.providers.keys import find_key
from rmft.rollout import Player
from rmft.types import FloatArray

PREFIX = "rmft-"
STATES = 4  # that are compared after each load
TOLERANCE = {"float32": 1e-4, "bfloat16": 1e-2}
"""How far a probability may be from this process's own, by precision."""
KEPT = 2  # adapters: the one that plays, and the one before it
PROBE = "Button Q was pressed 3 times and paid 1.25; choose K, T or Z: "


class EnginePlayers:
    """Makes policies play on the servers of `config.engine`.

    held: the model in this process. states: tokens, and legal ones after them, to compare in. Raises
    EndpointError when no server answers, or one is of no use.
    """

    def __init__(self, config: LocalConfig, held: HeldModel, states: Sequence[State]) -> None:
        assert config.engine is not None
        self.config, self.engine, self.held = config, config.engine, held
        self.states = list(states)[:STATES]
        key = None if self.engine.key is None else find_key(self.engine.key)
        self.fleet = Fleet(self.engine.urls, key, self.engine.timeout)
        self.local = LocalEngine(held.model, config.memory_gb)
        self._context, self._stop_ids = self.local.context, self.local.stop_ids
        self._allowed: bool | None = None
        self._compared: set[tuple[str, str]] = set()  # what was compared on which server
        self._used: list[str] = []  # names of adapters, the newest last
        self._asleep = False
        held.adapt(None)
        self._base = self._own()
        try:
            self.fleet.look()
            for url in self.fleet.urls:
                self._check_server(url)
            self._compare(self._called(), None)
        except BaseException:
            self.fleet.close()
            raise

    def load(self, player: Player) -> LanguagePolicy:
        """The policy, on all servers that answer. Raises EndpointError as the class does."""
        self._wake()
        adapter = adapter_in(player.policy.path)
        name = self._called() if adapter is None else _name(adapter)
        back = set(self.fleet.look()) - {url for url, _ in self._compared}
        for url in back:
            self._check_server(url)
        if adapter is not None:
            folder = self._publish(adapter, name)
            self._used = [*(each for each in self._used if each != name), name]
            for url in list(self.fleet.alive):
                self._load(url, name, folder)
            self._retire()
        self._compare(name, adapter)
        config = read_policy(player.policy.path)
        engine = RemoteEngine(
            self.fleet, name, self._context, self._stop_ids, self.engine.rows, allowed=bool(self._allowed)
        )
        return LanguagePolicy(
            engine, self.held.tokenizer, config, player.temperature, sample_arms=player.sample_arms
        )

    def rest(self) -> None:
        """Let the servers sleep while this process trains, where that is wanted."""
        if self.engine.sleep and not self._asleep:
            self._everywhere(
                "../sleep?level=1", {}, "start vLLM with VLLM_SERVER_DEV_MODE=1 --enable-sleep-mode"
            )
            self._asleep = True

    def close(self) -> None:
        """Unload the run's adapters, and end all connections."""
        self._used = []
        self._retire()
        self.fleet.close()

    def _wake(self) -> None:
        if self._asleep:
            self._everywhere("../wake_up", {}, "start vLLM with VLLM_SERVER_DEV_MODE=1")
            self._asleep = False

    def _everywhere(self, path: str, body: dict[str, Any], remedy: str) -> None:
        for url in list(self.fleet.alive):
            try:
                self.fleet.call(url, path, body)
            except RefusalError as refusal:
                raise EndpointError(f"{url} refuses {path[2:]}: {refusal}. To use it, {remedy}.") from None

    def _called(self) -> str:
        return self.engine.model or self.config.model

    def _check_server(self, url: str) -> None:
        """Raises EndpointError when a server that answers does not serve the model, or reads other tokens."""
        if url not in self.fleet.alive:
            return
        served = self.fleet.models[url]
        name = self._called()
        if name not in served:
            raise EndpointError(
                f"{url} serves {', '.join(served) or 'nothing'}, not '{name}'. Serve the policy's model "
                "there, or say in policy.engine.model what it is called there."
            )
        self._context = min(self._context, int(served[name].get("max_model_len") or self._context))
        expected = self.held.tokenizer.encode(PROBE, add_special_tokens=False)
        asked = {"model": name, "prompt": PROBE, "add_special_tokens": False}
        try:
            answer = self.fleet.call(url, "../tokenize", asked)
        except RefusalError as refusal:
            if refusal.status in (404, 405):
                return  # it lacks the route; probabilities are compared anyway
            raise EndpointError(f"{url} refuses a text to be tokenized: {refusal}") from None
        if answer is not None and (not isinstance(answer, dict) or answer.get("tokens") != expected):
            raise EndpointError(
                f"{url} reads other tokens than policy.model '{self.config.model}': expected "
                f"{expected[:8]}... for a probe text. Serve the same model with its own tokenizer there."
            )

    def _publish(self, adapter: Path, name: str) -> Path:
        """The adapter in a folder of its own that servers see, whole or not at all."""
        folder = self.engine.adapter_folder.absolute() / name
        if not folder.exists():
            making = folder.with_name(f".{name}")
            try:
                shutil.rmtree(making, ignore_errors=True)
                making.mkdir(parents=True)
                for file in (ADAPTER, ADAPTER_CONFIG):
                    shutil.copyfile(adapter / file, making / file)
                making.rename(folder)
            except OSError as error:
                raise ConfigError(
                    f"policy.engine.adapter_folder '{folder.parent}' can't be written to: {error}."
                ) from None
        return folder

    def _load(self, url: str, name: str, folder: Path) -> None:
        if name in self.fleet.models.get(url, ()):
            return
        body = {"lora_name": name, "lora_path": str(folder)}
        try:
            if self.fleet.call(url, "/load_lora_adapter", body) is not None:
                self.fleet.models[url][name] = {}
        except RefusalError as refusal:
            if refusal.status in (404, 405) and "lora" not in str(refusal).lower():
                raise EndpointError(
                    f"{url} takes no adapters while it runs ({refusal}). Start vLLM with --enable-lora and "
                    "VLLM_ALLOW_RUNTIME_LORA_UPDATING=1, or rmft serve with --adapters FOLDER."
                ) from None
            raise EndpointError(
                f"{url} refuses the adapter in '{folder}': {refusal}. It has to see that folder under the "
                f"same name, and take adapters of rank {self._rank} (vLLM: --max-lora-rank)."
            ) from None

    @property
    def _rank(self) -> int:
        assert self.config.lora is not None
        return self.config.lora.rank

    def _retire(self) -> None:
        """Unload this run's adapters but the newest, wherever they are; their folders go too."""
        keep = self._used[-KEPT:]
        self._used = keep
        root = self.engine.adapter_folder
        for url in list(self.fleet.alive):
            for name in [name for name in self.fleet.models.get(url, ()) if name.startswith(PREFIX)]:
                if name in keep:
                    continue
                with suppress(RefusalError):  # it is gone already
                    self.fleet.call(url, "/unload_lora_adapter", {"lora_name": name})
                self.fleet.models[url].pop(name, None)
        if root.is_dir():
            for old in root.glob(f"{PREFIX}*"):
                if old.name not in keep:
                    shutil.rmtree(old, ignore_errors=True)

    def _own(self) -> list[FloatArray]:
        """Probabilities of the legal tokens in each state, of the model in this process as it is now."""
        found = []
        for ids, legal in self.states:
            session = self.local.session(1, len(ids) + 1)
            session.read([ids])
            found.append(session.choose(legal, np.zeros(1))[2][0])
        return found

    def _compare(self, name: str, adapter: Path | None) -> None:
        """Raises EndpointError when a server does not play what this process would."""
        todo = [url for url in self.fleet.alive if (url, name) not in self._compared]
        if not todo:
            return
        self.held.adapt(adapter)
        own = self._own()
        for url in todo:
            found = self._played(url, name)
            if found is None:
                continue
            away, from_base = _distance(found, own), _distance(found, self._base)
            bound = TOLERANCE[self.config.precision]
            if away > bound and adapter is not None and from_base <= bound:
                raise EndpointError(
                    f"{url} ignores the adapter '{name}': it plays like the model without it. Check that it "
                    "was started to take adapters for all layers that policy.lora names."
                )
            if away > bound:
                raise EndpointError(
                    f"{url} does not play what policy.model '{self.config.model}' would: probabilities "
                    f"differ by up to {away:.2g}; expected at most {bound:g} in {self.config.precision}. "
                    "Serve the same weights there, in policy.precision."
                )
            self._compared.add((url, name))
        self.fleet.some_alive()

    def _played(self, url: str, name: str) -> list[FloatArray] | None:
        """The same on a server, by whichever way of scoring it knows; None when it has died."""
        ways = (False, True) if self._allowed is None else (self._allowed,)
        for allowed in ways:
            engine = RemoteEngine(self.fleet, name, self._context, self._stop_ids, allowed=allowed)
            try:
                found = []
                for ids, legal in self.states:
                    (logs,) = engine.scores([ids], legal[None], [url])
                    if logs is None:
                        return None
                    found.append(draw(logs[None], np.zeros(1))[2][0])
            except EndpointError:
                if allowed == ways[-1]:
                    raise
                continue
            self._allowed = allowed
            return found
        return None


def _name(adapter: Path) -> str:
    """A name that no other adapter has."""
    content = hashlib.sha256()
    for file in (ADAPTER_CONFIG, ADAPTER):
        content.update((adapter / file).read_bytes())
    return PREFIX + content.hexdigest()[:20]


def _distance(found: Sequence[FloatArray], expected: Sequence[FloatArray]) -> float:
    return max(float(np.abs(a - b).max()) for a, b in zip(found, expected, strict=True))
