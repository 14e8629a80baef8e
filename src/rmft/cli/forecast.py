"""What `rmft train --dry-run` prints."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table

from rmft.cli.app import print_table, say
from rmft.config import RunConfig
from rmft.errors import ConfigError
from rmft.policies.config import HostedConfig
from rmft.problems.suites import Suite

if TYPE_CHECKING:
    from rmft.forecast_local import Work


def show_forecast(config: RunConfig, suites: dict[str, Suite], calls: int, tokenizer: str | None) -> None:
    """Print what a run will take; see `rmft.costs`. Raises ConfigError for a policy without tokens."""
    from rmft.costs import forecast_local, forecast_run

    if not isinstance(config.policy, HostedConfig):
        if tokenizer is not None:
            raise ConfigError("--tokenizer is of hosted models; a local model's own counts its tokens.")
        say("Counting tokens and operations" + (f", and playing {calls} problems" if calls else ""))
        _show_work(*forecast_local(config, suites, calls))
        return
    table = Table("", "calls", "tokens read", "written", "trained on", "USD", "time", title="Forecast")
    for line in forecast_run(config, suites, calls, tokenizer):
        usd = "unknown" if line.usd is None else f"{line.usd:,.2f}"
        minutes = "unknown" if line.seconds is None else f"{line.seconds / 60:,.1f} min"
        counts = (f"{count:,}" for count in (line.calls, line.read, line.written, line.trained))
        table.add_row(line.what, *counts, usd, minutes)
    print_table(table)
    say("Without answers that are asked for again, and without the provider's time for fine-tuning.")


def _show_work(works: list[Work], memory: dict[str, float]) -> None:
    """The forecast of a local model."""
    table = Table("", "decisions", "tokens read", "written", "trained on", "TFLOP", "time", title="Forecast")
    for work in works:
        minutes = "unknown" if work.seconds is None else f"{work.seconds / 60:,.1f} min"
        counts = (f"{count:,.0f}" for count in (work.decisions, work.read, work.written, work.trained))
        table.add_row(work.what, *counts, f"{work.operations / 1e12:,.4g}", minutes)
    print_table(table)
    parts = ", ".join(f"{name} {size:.2f}" for name, size in memory.items())
    say(f"Memory of this process in GB, but for activations: {sum(memory.values()):.2f} ({parts}).")
    if works[-1].seconds is None:
        say("With --calls N, N problems are really played, to say how long it takes.")
