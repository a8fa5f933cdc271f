"""What the members of an experiment were called before measuring and analysing were taken apart."""

from __future__ import annotations

from typing import Any

from ipvit.errors import InputError
from ipvit.experiments.base import Experiment

RENAMED = {
    "needs": "requirements",
    "check": "bind",
    "check_all": "bind",
    "on": "bind",
    "opening_data": "bind",
    "subject": "items",
    "covers": "applicable_images",
    "alteration": "image_transform",
    "reads": "Analysis.record_columns",
    "measures": "Column(average=...)",
    "compare": "Analysis.metric",
    "compare_by": "Analysis.compare_by",
    "comparable": "Analysis.reduce",
    "tables": "Analysis.reduce and Analysis.tables",
    "figures": "Analysis.figures",
    "figures_across": "Analysis.figures_across",
    "summary": "Analysis.summary",
}
"""Old member of an experiment -> what takes its place."""


def refuse_earlier(kind: type[Experiment], name: str) -> None:
    """Refuse a class that still overrides members of the earlier interface.

    Raises:
        InputError: it does; the message names the first such member and what takes its place.
    """
    defined: dict[str, Any] = {}
    for base in kind.__mro__:
        if base is Experiment:
            break
        defined |= vars(base)
    old = [member for member in RENAMED if member in defined and member not in kind.model_fields]
    if old:
        more = f" (and {len(old) - 1} more)" if len(old) > 1 else ""
        raise InputError(
            f"{name!r} is written for an earlier version: {old[0]!r} is now {RENAMED[old[0]]}{more}; the table in "
            "CHANGELOG.md has all names"
        )
