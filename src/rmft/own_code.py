"""A class of a user's own that data names as "module:Class": found as a file, and run only where trusted.

A suite, and a run directory with its suite, may be somebody else's. So what they name is looked for as a .py
file beside the suite or in the current directory, never among standard or installed modules; nothing of that
file runs unless the caller trusts it; and what is called is a class that the file defines, with the methods
of the protocol that it is for.
"""

from __future__ import annotations

import difflib
import hashlib
import os
import sys
import sysconfig
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

from rmft.errors import ConfigError, UnknownNameError
from rmft.files import write_atomically

INSTALLED = {
    Path(os.path.realpath(sysconfig.get_path(kind)))
    for kind in ("stdlib", "platstdlib", "purelib", "platlib")
}
"""The folders of standard and installed modules."""


def load_class(
    reference: str, what: str, protocol: str, methods: Iterable[str], folder: str, *, trust: bool
) -> type[Any]:
    """The class that "module:Class" names, which has the `methods` of `protocol`; it has not been called.

    `module` is the name of a file without .py, in `folder` or else in the current directory; dots lead to
    folders below. The file is run once per process, from its source, under a name that no import finds. It
    can import what is installed, but not its neighbours. what: what the class is for, in messages. Raises
    ConfigError, before anything has run, when there is no such file or `trust` is False; afterwards
    ConfigError or UnknownNameError when the file fails, or holds no such class of its own.
    """
    module_name, colon, name = reference.partition(":")
    if not (colon and name.isidentifier() and all(part.isidentifier() for part in module_name.split("."))):
        raise ConfigError(f"found {what} '{reference}'; expected 'module:Class', a class in module.py.")
    file = _find(module_name, name, f"{what} '{reference}'", folder)
    if not trust:
        raise ConfigError(
            f"{what} '{reference}' would run {file} for its class {name}. A run directory may be somebody "
            "else's, so read that file first; if you trust it, add --trust-code (in Python: trust=True)."
        )
    module = _run(file, f"{what} '{reference}'")
    own = [key for key, value in vars(module).items() if _defined_in(module, value)]
    found = vars(module).get(name)
    if found is None:
        raise UnknownNameError(f"class in {file}:", name, own)
    if name not in own or not isinstance(found, type):
        kind = f"class of {found.__module__}" if isinstance(found, type) else type(found).__name__
        raise ConfigError(f"{what} '{reference}' is a {kind}; expected a class that {file} itself defines.")
    require(found, methods, reference, protocol)
    return found


def file_of(reference: str, found: type[Any]) -> tuple[str, Path]:
    """The file that a class of `load_class` came from, and its name below the folder that it lies in."""
    file = Path(str(sys.modules[found.__module__].__file__))
    return f"{reference.partition(':')[0].replace('.', '/')}.py", file


def keep(files: Mapping[str, Path], folder: Path) -> None:
    """Copy files, by the names that they get, to a run's folder."""
    for name, file in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / name, file.read_bytes())


def as_kept(folder: Path, beside: str, say: Callable[[str], None]) -> str:
    """Where `load_class` is to look, so that a run goes on with the classes that it began with.

    It is `beside`, where they were then, unless a file of what `keep` put into `folder` is another one there
    or gone: then it is `folder`, and `say` is told.
    """
    changed = []
    for copy in sorted(folder.rglob("*.py")):
        name = copy.relative_to(folder)
        found = [path for each in (beside, ".") if (path := Path(each) / name).is_file()]
        if not found or found[0].read_bytes() != copy.read_bytes():
            changed.append(f"{name} is not what it was when the run began; the run's copy is used: {copy}")
    for each in changed:
        say(each)
    return str(folder) if changed else beside


@contextmanager
def running(what: str) -> Iterator[None]:
    """Around a call of a user's own code: what it raises, an exit too, is a ConfigError that says where."""
    try:
        yield
    except (Exception, SystemExit) as error:
        others = (Path(__file__).parent, *INSTALLED)
        places = [
            f" in {frame.filename}, line {frame.lineno}"
            for frame in traceback.extract_tb(error.__traceback__)
            if frame.filename[:1] != "<"
            and not any(Path(frame.filename).is_relative_to(folder) for folder in others)
        ]
        said = f"{type(error).__name__}: {error}".removesuffix(": ")
        raise ConfigError(f"{what} failed{places[-1] if places else ''}: {said}") from error


def require(thing: object, members: Iterable[str], name: str, protocol: str) -> None:
    """Raises ConfigError when `thing`, a class or an object, lacks a member of a protocol."""
    missing = [member for member in members if member not in dir(thing)]
    if missing:
        raise ConfigError(
            f"{name} has no {', '.join(missing)}; the protocol {protocol} needs {', '.join(members)}."
        )


def _find(module_name: str, name: str, what: str, folder: str) -> Path:
    """The file of a module. Raises ConfigError, with the nearest right name, when there is none."""
    *parents, stem = module_name.split(".")
    folders = list(dict.fromkeys(Path(os.path.realpath(each)).joinpath(*parents) for each in (folder, ".")))
    for each in folders:
        file = each / f"{stem}.py"
        if os.path.isfile(file):
            break
    else:
        stems = [path.stem for each in folders if os.path.isdir(each) for path in each.glob("*.py")]
        near = difflib.get_close_matches(stem, stems, n=1, cutoff=0.5)
        hint = f" Did you mean '{'.'.join([*parents, near[0]])}:{name}'?" if near else ""
        raise ConfigError(
            f"{what}: found no file {stem}.py in {' or in '.join(map(str, folders))}; a class of your own is "
            f"looked for there only, never among standard or installed modules.{hint}"
        )
    if any(Path(os.path.realpath(file)).is_relative_to(installed) for installed in INSTALLED):
        raise ConfigError(
            f"{what}: found {file}, which is standard or installed; expected a file of your own."
        )
    return file


class _Source(SourceFileLoader):
    """Runs what a user can read: the source, and never the bytecode that may lie beside it."""

    def get_code(self, fullname: str) -> CodeType:  # noqa: ARG002
        return self.source_to_code(self.get_data(self.path), self.path)


def _run(file: Path, what: str) -> ModuleType:
    """The module of a file. Raises ConfigError when it fails."""
    name = f"_own_{file.stem}_{hashlib.sha256(os.fsencode(file)).hexdigest()[:16]}"
    if name in sys.modules:
        return sys.modules[name]
    loader = _Source(name, str(file))
    spec = spec_from_file_location(name, file, loader=loader)
    assert spec is not None  # which it only is of an ending that is not .py and has no loader
    module = sys.modules[name] = module_from_spec(spec)
    try:
        with running(what):
            loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _defined_in(module: ModuleType, value: object) -> bool:
    return isinstance(value, type) and value.__module__ == module.__name__
