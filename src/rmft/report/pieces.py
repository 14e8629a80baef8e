"""What the page is made of, piece by piece, by name: one file holds them all, a server makes them on demand.

runs                  the runs: names, versions (which change when a run does), whether they are going on
0/overview, 0/curves  blocks of the run 0
0/trajectories        the index of its trajectories, as columns
0/trajectory/NAME.5   the trajectory in place 5 of the file NAME
compare               blocks of all runs beside each other
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from rmft.report.blocks import Json, Style, as_json
from rmft.report.charts import run_styles
from rmft.report.compare_view import compare_piece
from rmft.report.conversation import conversation
from rmft.report.curves import curves
from rmft.report.folders import expanded, folder_of, short_name
from rmft.report.overview import overview
from rmft.report.run_reader import Run, read_run
from rmft.report.trajectories import shelves, stored
from rmft.report.trajectory_index import index

PASSING = (".tmp", ".html", "answers.jsonl")  # that come and go, are made of the run, or grow by the second


class Pieces:
    """The pieces of some runs; a folder of seeds stands for its runs.

    Raises RunDirectoryError when one is no run directory.
    """

    def __init__(self, run_dirs: Sequence[Path]) -> None:
        self.run_dirs = expanded(run_dirs)
        self._kept: dict[str, tuple[str, Json]] = {}
        for run_dir in self.run_dirs:
            read_run(run_dir)

    def piece(self, name: str) -> Json:
        """The piece called `name`, made anew when its run has changed. Raises LookupError for none."""
        parts = name.split("/")
        if name == "runs":
            return self._runs()
        if name == "compare":
            version = " ".join(self.version(place) for place in range(len(self.run_dirs)))
            return self._made(name, version, lambda: as_json(compare_piece(self._read_all())))
        place = int(parts[0]) if parts[0].isdigit() else len(self.run_dirs)
        if place >= len(self.run_dirs) or len(parts) not in (2, 3):
            raise LookupError(name)
        if len(parts) == 3 and parts[1] == "trajectory":
            return self.trajectories(place, [parts[2]])[parts[2]]
        make: dict[str, Callable[[], Json]] = {
            "overview": lambda: as_json(overview(*self._styled(place))),
            "curves": lambda: as_json(curves(*self._styled(place))),
            "trajectories": lambda: index(shelves(self.run_dirs[place])),
        }
        if len(parts) != 2 or parts[1] not in make:
            raise LookupError(name)
        return self._made(name, self.version(place), make[parts[1]])

    def trajectories(self, place: int, names: Sequence[str]) -> dict[str, Json]:
        """Trajectories of a run, by name. Raises LookupError for a name that its index does not have."""
        found = {shelf.name: shelf for shelf in shelves(self.run_dirs[place])}
        wanted: dict[str, set[int]] = {}
        for name in names:
            shelf_name, _, digits = name.rpartition(".")
            if shelf_name not in found or not digits.isdecimal() or len(digits) > 9:
                raise LookupError(name)
            wanted.setdefault(shelf_name, set()).add(int(digits))
        read: dict[str, Json] = {}
        for shelf_name, rows in wanted.items():
            shelf = found[shelf_name]
            for row, line in stored(self.run_dirs[place], shelf, rows):
                if isinstance(line, dict):
                    read[f"{shelf_name}.{row}"] = conversation(shelf, line)
        for name in names:
            read.setdefault(name, conversation(found[name.rpartition(".")[0]], {}))
        return read

    def version(self, place: int) -> str:
        """Something that changes whenever a file of the run does."""
        run_dir = self.run_dirs[place]
        stamps = [
            entry.stat().st_mtime_ns
            for folder in (run_dir, run_dir / "trajectories", folder_of(run_dir))
            if folder is not None and folder.is_dir()
            for entry in os.scandir(folder)
            if entry.is_file() and not entry.name.startswith(".") and not entry.name.endswith(PASSING)
        ]
        return f"{max(stamps, default=0):x}-{len(stamps)}"

    def _runs(self) -> Json:
        rows = []
        for place, run_dir in enumerate(self.run_dirs):
            name = short_name(run_dir)
            going = not (run_dir / "result.json").exists()
            rows.append({"name": name, "version": self.version(place), "going_on": going})
        return {"runs": as_json(rows)}

    def _styled(self, place: int) -> tuple[Run, dict[str, Style]]:
        run = read_run(self.run_dirs[place])
        run.notes += [note for shelf in shelves(self.run_dirs[place]) for note in shelf.notes]
        return run, run_styles(run)

    def _read_all(self) -> list[Run]:
        return [read_run(path) for path in self.run_dirs]

    def _made(self, name: str, version: str, make: Callable[[], Json]) -> Json:
        """What `make` gives, kept until the version is another one."""
        if self._kept.get(name, ("",))[0] != version:
            self._kept[name] = version, make()
        return self._kept[name][1]
