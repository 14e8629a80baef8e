"""Low-rank adapters that clients load and let go of while the server runs, as with vLLM's routes."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

from fastapi import APIRouter
from fastapi.responses import PlainTextResponse

from rmft.errors import RmftError
from rmft.generators.loading import load_model
from rmft.models.catalogue import find_model
from rmft.policies.checkpoint import ADAPTER_CONFIG, adapter_in
from rmft.server.models import Base, Loaded, unknown_model
from rmft.server.refusals import ApiError
from rmft.server.schemas import LoadAdapter, UnloadAdapter

MAX_ADAPTERS = 4
"""Each is a model of its own in memory."""


@dataclass(frozen=True)
class Adapter:
    """An adapter that is loaded: its base model, and the folder that it came from."""

    base: Base
    folder: Path


class Adapters:
    """Those that are loaded, by name. They are not kept when the server ends.

    place: the folder that they have to lie in, as clients say where; None: none may be loaded.
    """

    def __init__(self, bases: dict[str, Base], loaded: Loaded, place: Path | None) -> None:
        self._bases, self._loaded, self._place = bases, loaded, place
        self.known: dict[str, Adapter] = {}
        self._lock = Lock()

    def load(self, name: str, path: str) -> None:
        """Merge the adapter in a folder into a model of its own. Raises ApiError (400)."""
        with self._lock:
            folder = self._folder(path)
            if name in self.known or name in self._bases:
                raise _refused(f"There is a model '{name}' already; give the adapter a name of its own.")
            if len(self.known) >= MAX_ADAPTERS:
                raise _refused(
                    f"{MAX_ADAPTERS} adapters are loaded, as many as there may be; unload one of "
                    f"{', '.join(self.known)}."
                )
            base = self._base(folder)
            config = base.config
            try:
                adapter_in(folder)
                self._loaded.adapters[name], _ = load_model(
                    find_model(config.model), config.precision, config.device, folder
                )
            except RmftError as error:
                raise _refused(str(error)) from None
            self.known[name] = Adapter(base, folder)

    def unload(self, name: str) -> None:
        """Let go of one. Raises ApiError (404)."""
        with self._lock:
            if name not in self.known:
                raise unknown_model(name, self.known)
            del self.known[name]
            self._loaded.adapters.pop(name)

    def _folder(self, path: str) -> Path:
        if self._place is None:
            raise _refused("This server loads no adapters. Start it with --adapters FOLDER to let it.")
        folder = Path(os.path.realpath(path))
        if not folder.is_relative_to(os.path.realpath(self._place)):
            raise _refused(
                f"The adapter's folder is {path!r:.200}; this server loads those in '{self._place}' only."
            )
        if not (folder / ADAPTER_CONFIG).is_file():
            raise _refused(
                f"This server finds no adapter in {path!r:.200}, which lacks {ADAPTER_CONFIG}. It has to see "
                "the same files under the same name as who wrote them."
            )
        return folder

    def _base(self, folder: Path) -> Base:
        """The model that an adapter is for: that of its name, or the only one."""
        try:
            named = json.loads((folder / ADAPTER_CONFIG).read_text("utf-8")).get("base_model_name_or_path")
        except (OSError, ValueError, AttributeError):
            raise _refused(f"'{folder / ADAPTER_CONFIG}' is damaged: expected a JSON object.") from None
        for base in self._bases.values():
            if named in (base.name, base.config.model):
                return base
        if len(self._bases) != 1:
            served = ", ".join(self._bases) or "none"
            raise _refused(f"The adapter is for {named!r:.200}; served are {served}.")
        return next(iter(self._bases.values()))


def _refused(message: str) -> ApiError:
    return ApiError(message, code="invalid_value", param="lora_path")


def adapter_routes(adapters: Adapters) -> APIRouter:
    """`/load_lora_adapter` and `/unload_lora_adapter`."""
    routes = APIRouter(tags=["adapters"])

    @routes.post("/load_lora_adapter")
    def load_adapter(asked: LoadAdapter) -> Any:
        adapters.load(asked.lora_name, asked.lora_path)
        return PlainTextResponse(f"Success: LoRA adapter '{asked.lora_name}' added successfully.")

    @routes.post("/unload_lora_adapter")
    def unload_adapter(asked: UnloadAdapter) -> Any:
        adapters.unload(asked.lora_name)
        return PlainTextResponse(f"Success: LoRA adapter '{asked.lora_name}' removed successfully.")

    return routes
