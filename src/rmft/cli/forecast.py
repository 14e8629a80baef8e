"""What `rmft train --dry-run` prints."""

from __future__ import annotations

from rich.table import Table

from rmft.cli.app import print_table, say
from rmft.config import RunConfig
from rmft.problems.suites import Suite


def show_forecast(config: RunConfig, suites: dict[str, Suite], calls: int, tokenizer: str | None) -> None:
    """Print what a run will take; see `rmft.costs`. Raises ConfigError for a policy that is not hosted."""
    from rmft.costs import forecast_run

    table = Table("", "calls", "tokens read", "written", "trained on", "USD", "time", title="Forecast")
    for line in forecast_run(config, suites, calls, tokenizer):
        usd = "unknown" if line.usd is None else f"{line.usd:,.2f}"
        minutes = "unknown" if line.seconds is None else f"{line.seconds / 60:,.1f} min"
        counts = (f"{count:,}" for count in (line.calls, line.read, line.written, line.trained))
        table.add_row(line.what, *counts, usd, minutes)
    print_table(table)
    say("Without answers that are asked for again, and without the provider's time for fine-tuning.")
