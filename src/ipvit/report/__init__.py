"""The report of a run: tables, figures and one page."""

from ipvit.report.figures import inline_svg, save_figure
from ipvit.report.html import Section, write_report
from ipvit.report.pictures import Example, Gallery
from ipvit.report.tables.files import to_markdown, to_records, write_table
from ipvit.report.tables.latex import to_latex
from ipvit.report.tables.terminal import terminal_tables

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
