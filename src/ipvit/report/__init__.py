"""The report of a run: tables, figures and one page."""

from ipvit.report.figures import inline_svg, save_figure
from ipvit.report.html import Section, write_report
from ipvit.report.pictures import Example, Gallery
from ipvit.report.tables import terminal_tables, to_latex, to_markdown, to_records, write_table

__all__ = [
    "Example",
    "Gallery",
    "Section",
    "inline_svg",
    "save_figure",
    "terminal_tables",
    "to_latex",
    "to_markdown",
    "to_records",
    "write_report",
    "write_table",
]
