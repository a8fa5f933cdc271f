"""The rows of the paper that figures show beside ours."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import polars as pl

from ipvit.experiments.registry import paper_numbers
from ipvit.models.zoo.paper import network_of

SUFFIX = " (paper)"
"""What the name of a network carries where the numbers are the paper's."""


def reference(experiment: str, models: Iterable[str]) -> pl.DataFrame | None:
    """Return the paper's rows for an experiment and the networks among ``models`` that are the paper's.

    The columns are those of the experiment's own table, as far as the paper gives them; the model's name ends in
    ``(paper)``. Several measures of one entry at one place share a row.
    """
    wanted = {name for model in models if (name := network_of(model)) is not None}
    rows: dict[tuple[Any, ...], dict[str, Any]] = {}
    for number in paper_numbers():
        if not number.drawn or number.network not in wanted or number.cells[0].experiment != experiment:
            continue
        place = {"model": number.title, **number.drawn}
        place["model"] += SUFFIX
        row = rows.setdefault((number.key, *place.values()), place)
        row.pop("source", None)
        row |= {number.cells[0].measure: float(number.value), "source": number.source}  # the source stays last
    return pl.DataFrame(list(rows.values()), infer_schema_length=None) if rows else None
