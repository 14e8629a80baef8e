"""A run to look at: one self-contained HTML page, and runs beside each other in a table."""

from rmft.report.compare import RunSummary, compare_runs, comparison_table
from rmft.report.page import write_report

__all__ = ["RunSummary", "compare_runs", "comparison_table", "write_report"]
