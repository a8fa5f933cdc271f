"""What is said and drawn of an experiment that is shown as its own code made it when it was last run."""

from __future__ import annotations

from typing import Any

from ipvit.analysis.base import Analysis
from ipvit.analysis.last_run import LastRun
from ipvit.report.figures import inline_svg


def as_of_last_run(analysis: Analysis, last_run: LastRun) -> str:
    """Return the sentence that says why an experiment is shown as of its last run."""
    code = analysis.own_code.removeprefix("ipvit_user_")  # as a file's module is called
    return (
        f"Shown as of its last run, which ended {last_run.finished}: this call does not name {code}, "
        "which made these tables, and code that a run folder names is not run."
    )


def drawn(last_run: LastRun) -> tuple[dict[str, Any], list[str]]:
    """Return the charts of a last run by name, and what is said of those that are left out."""
    charts, left_out = last_run.charts()
    for key, chart in list(charts.items()):
        try:
            inline_svg(chart, "")
        except Exception:  # noqa: BLE001 - a specification of anybody's
            del charts[key]
            left_out.append(f"The figure {key} of its last run is not drawn: it cannot be.")
    return charts, left_out
