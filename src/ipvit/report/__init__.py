"""The report of a run: tables, figures and one page."""

from ipvit.report.figures import file_name, save_figure
from ipvit.report.html import Example, Section, write_report
from ipvit.report.tables import terminal_tables, to_markdown, to_records, write_table

__all__ = [
    "Example",
    "Section",
    "file_name",
    "save_figure",
    "terminal_tables",
    "to_markdown",
    "to_records",
    "write_report",
    "write_table",
]
