"""What stands behind the routes: the store, the models, the thread that answers and the one that trains."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from rmft.errors import ConfigError
from rmft.policies.config import LocalConfig
from rmft.server.adapters import Adapters
from rmft.server.generation import Generator
from rmft.server.jobs import Jobs
from rmft.server.models import Base, Loaded, unknown_model
from rmft.server.store import MAX_GB, Record, Store
from rmft.server.worker import Worker

BASE_MODEL: Record = {"object": "model", "created": 0, "owned_by": "rmft"}


class Service:
    """All of a server but its routes, from `start` to `close`.

    bases: the base models by name; all have the same settings but for the model. max_gb: see `Store`.
    adapters: the folder that clients may load adapters from, if any. Raises RunDirectoryError when the folder
    can't be used, and ConfigError when a job in it is owed on a model that is not served.
    """

    def __init__(
        self,
        folder: Path,
        bases: dict[str, Base],
        num_threads: int,
        max_gb: float = MAX_GB,
        adapters: Path | None = None,
    ) -> None:
        self.bases = bases
        self._loaded = Loaded(bases)
        self.adapters = Adapters(bases, self._loaded, adapters)
        self.store = Store(folder, max_gb)
        self.jobs = Jobs(self.store, bases)
        for job in self.jobs.owed():
            if job["base"] not in bases:
                self.store.close()
                raise ConfigError(
                    f"In '{folder}' the job {job['id']} is to train '{job['base']}', which is not served. "
                    f"Add --model {job['base']}, or choose another --folder."
                )
        self.worker = Worker(self.jobs, bases, num_threads)
        self._num_threads = num_threads

    def start(self) -> None:
        """Begin to answer, and to train what is owed."""
        config = next((base.config for base in self.bases.values()), LocalConfig())
        self.generator = Generator(self._loaded, config.memory_gb)
        self.worker.start()

    def close(self) -> None:
        """End both; jobs that have not ended are owed."""
        self.worker.close()
        self.generator.close()
        self.store.close()

    def models(self) -> Mapping[str, Record]:
        """The records of all models by name."""
        found = {name: self.model(name) for name in (*self.bases, *self.adapters.known)}
        tuned = (model for model in self.store.all("models") if model["base"] in self.bases)
        return found | {str(model["id"]): model for model in tuned}

    def model(self, name: str) -> Record:
        """The record of a model, of which a client is told a part. Raises ApiError (404)."""
        if name in self.bases:
            base = self.bases[name]
            return {"id": name, **BASE_MODEL, "root": base.config.model, "max_model_len": base.context}
        if (adapter := self.adapters.known.get(name)) is not None:
            return {"id": name, **BASE_MODEL, "root": str(adapter.folder), "parent": adapter.base.name}
        model = self.store.find("models", name)
        if model is None or model["base"] not in self.bases:
            raise unknown_model(name, self.models())
        return model

    def playing(self, name: str) -> tuple[Base, Path | None]:
        """A model's base, and its folder if it was fine-tuned here. Raises ApiError (404)."""
        model = self.model(name)
        if name in self.bases:
            return self.bases[name], None
        if (adapter := self.adapters.known.get(name)) is not None:
            return adapter.base, None
        return self.bases[model["base"]], self.store.model(model["job"])
