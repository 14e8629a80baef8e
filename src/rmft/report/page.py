"""The page that shows runs: one self-contained HTML file, or the same page fed by `rmft view`.

The page asks the network for nothing: plotly.js and the page's own script are inlined, and a content
security policy forbids every other script and every request, in `rmft view` all but those to its server.
What a run holds is data: JSON here, text nodes in the browser (web/), never HTML.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import os
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from importlib import resources
from pathlib import Path
from string import Template

from plotly.offline import get_plotlyjs

from rmft.errors import RunDirectoryError
from rmft.report.blocks import Json
from rmft.report.pieces import Pieces
from rmft.report.trajectories import shelves
from rmft.report.trajectory_index import index, sample

SCRIPTS = ("dom.js", "tables.js", "charts.js", "blocks.js", "conversation.js", "trajectories.js", "app.js")
MAX_SAMPLE = 400  # trajectories in one file
MAX_SAMPLE_BYTES = 4 * 2**20

GENERATOR = '<meta name="generator" content="rmft"/>'
PAGE = Template("""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8"/>
$generator
<meta name="viewport" content="width=device-width, initial-scale=1"/>
<meta http-equiv="Content-Security-Policy" content="$policy"/>
<meta name="referrer" content="no-referrer"/>
<link rel="icon" href="data:,"/>
<title>$title</title>
<style>$style</style>
</head>
<body>
<noscript><p>This page needs JavaScript, which is switched off. In a terminal: rmft show RUN</p></noscript>
<script type="application/json" id="pieces">$data</script>
<script type="text/plain" id="plotly">$plotly</script>
<script>$script</script>
</body>
</html>
""")


def write_report(
    run_dirs: Sequence[Path] | Path, target: Path | None = None, *, replace: bool = False
) -> Path:
    """Write the report on runs, or folders of seeds, to `target`, by default report.html in the first.

    Returns its path. Parts of a run that are missing or damaged are named in the page, and the rest is
    shown. A report that exists is replaced, at once and whole; any other file only with `replace`, and what
    is no file never. Raises RunDirectoryError when a folder is no run directory or the page cannot be
    written.
    """
    paths = [run_dirs] if isinstance(run_dirs, Path) else list(run_dirs)
    replace, target = replace or target is None, target or paths[0] / "report.html"
    _check_target(target, replace=replace)
    page = page_with(embedded(paths))
    partial = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        try:
            partial.write_text(page, encoding="utf-8")
            partial.replace(target)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        raise RunDirectoryError(
            f"Cannot write the report to '{target}': {error.strerror}. Name a file in a folder "
            "that exists and can be written."
        ) from error
    return target


def _check_target(target: Path, *, replace: bool) -> None:
    """Raises RunDirectoryError when something else than a report would be replaced."""
    if not os.path.lexists(target):
        return
    if target.is_symlink() or not target.is_file():
        found = "a link" if target.is_symlink() else "a folder" if target.is_dir() else "no ordinary file"
        raise RunDirectoryError(
            f"'{target}' is {found}, which a report does not replace; name a file with -o."
        )
    with suppress(OSError), target.open("rb") as file:
        if GENERATOR.encode() in file.read(500) or replace:
            return
    raise RunDirectoryError(
        f"'{target}' exists and is no report. Choose another name, or replace it with --force."
    )


def embedded(run_dirs: Sequence[Path]) -> dict[str, Json]:
    """The pieces of some runs for one file: all of them, of the trajectories a sample that says so."""
    pieces = Pieces(run_dirs)
    found = {"runs": pieces.piece("runs"), "compare": pieces.piece("compare")}
    run_dirs = pieces.run_dirs
    for place, run_dir in enumerate(run_dirs):
        for view in ("overview", "curves"):
            found[f"{place}/{view}"] = pieces.piece(f"{place}/{view}")
        stored = shelves(run_dir)
        names = sample(stored, MAX_SAMPLE // len(run_dirs))
        read = pieces.trajectories(place, names)
        names = _within(MAX_SAMPLE_BYTES // len(run_dirs), names, read)
        total = sum(len(shelf.entries) for shelf in stored)
        note = (
            f"This file holds {len(names):,} of {total:,} trajectories, evenly spread; rmft view shows all."
        )
        found[f"{place}/trajectories"] = index(stored, set(names), note if len(names) < total else "")
        found |= {f"{place}/trajectory/{name}": read[name] for name in names}
    return found


def _within(most: int, names: list[str], read: dict[str, Json]) -> list[str]:
    """As many of the names, evenly spread, as there is room for in `most` bytes."""
    sizes = {name: len(json.dumps(read[name])) for name in names}
    while names and sum(sizes[name] for name in names) > most:
        names = names[: len(names) // 2] if len(names) < 4 else [n for i, n in enumerate(names) if i % 4 != 3]
    return names


def page_with(pieces: dict[str, Json] | None) -> str:
    """The whole page, as HTML. pieces: by name; None for a page that asks its server for them."""
    plotly, script = _inline(get_plotlyjs()), _inline(_script())
    requests = "connect-src 'self'; " if pieces is None else ""
    policy = (
        f"default-src 'none'; script-src {_hash(plotly)} {_hash(script)}; style-src 'unsafe-inline'; "
        f"{requests}img-src data: blob:; base-uri 'none'; form-action 'none'"
    )
    title = "rmft" if pieces is None else str(pieces["0/overview"]["title"])
    return PAGE.substitute(
        generator=GENERATOR,
        policy=policy,
        title=html.escape(title),
        style=_resource("page.css"),
        data=_json(pieces),
        plotly=plotly,
        script=script,
    )


def _json(value: object) -> str:
    """JSON that no HTML parser can mistake for a tag."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _inline(script: str) -> str:
    """A script of our own or plotly's, refused if it could end the element that holds it."""
    if "</script" in script.lower() or "<!--" in script:
        raise ValueError("An inlined script contains '</script' or '<!--'; it needs another way in.")
    return script


@cache
def _hash(script: str) -> str:
    """How a content security policy names an inline script."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"


def _script() -> str:
    """The page's own script: the files in web/, one after the other, in one scope."""
    return '"use strict";\n' + "".join(_resource(name) for name in SCRIPTS)


def _resource(name: str) -> str:
    return (resources.files("rmft.report") / "web" / name).read_text(encoding="utf-8")
