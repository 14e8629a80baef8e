"""A run in a notebook: its report inline, its figures one by one; as text where there is no notebook."""

from __future__ import annotations

import html
from pathlib import Path

from plotly.graph_objects import Figure

from rmft.errors import NoRunError
from rmft.report.blocks import Chart
from rmft.report.charts import run_styles
from rmft.report.curves import curves
from rmft.report.folders import is_folder
from rmft.report.over_seeds import summary_lines
from rmft.report.page import embedded, page_with
from rmft.report.run_reader import read_run
from rmft.report.training_charts import training_charts


class Shown:
    """What a run came to: in a notebook the page of `rmft report`, elsewhere the text of `rmft show`."""

    def __init__(self, run: Path, height: int) -> None:
        self._run, self._height = run, height

    def __repr__(self) -> str:
        return "\n".join(summary_lines(self._run))

    def _repr_html_(self) -> str:
        """A frame of its own, which can do nothing to the notebook around it."""
        page = html.escape(page_with(embedded([self._run])))
        return (
            f'<iframe srcdoc="{page}" sandbox="allow-scripts" title="rmft report" '
            f'style="width:100%;height:{self._height}px;border:1px solid #ccc"></iframe>'
        )


def show(run: str | Path, *, height: int = 760) -> Shown:
    """A run, or a folder of seeds, as a notebook shows it: the whole report, trajectories included.

    height: of the frame, in pixels. Where there is no notebook it prints as 40 lines of text. Raises
    RunDirectoryError when `run` is none.
    """
    _check(Path(run))
    return Shown(Path(run), height)


def plots(run: str | Path) -> dict[str, Figure]:
    """The figures of a run's report by their titles, as plotly has them: of training, then of evaluations.

    Raises RunDirectoryError when `run` is none.
    """
    _check(Path(run))
    read = read_run(Path(run))
    styles = run_styles(read)
    blocks = [*training_charts(read, styles), *curves(read, styles).blocks]
    return {block.title: block.figure for block in blocks if isinstance(block, Chart)}


def _check(run: Path) -> None:
    if not (run / "run.json").exists() and not is_folder(run):
        raise NoRunError(run)
