"""The rows of the paper that figures show beside ours."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import polars as pl

from ipvit.analysis.paper_numbers import PaperNumber
from ipvit.core.manifest import RunSummary
from ipvit.experiments.registry import paper_numbers
from ipvit.report.comparison import size_of
from ipvit.report.identification import identified, other_data
from ipvit.report.matching import Tables, measured_alike

SUFFIX = " (paper)"
"""What the name of a network carries where the numbers are the paper's."""


def reference(experiment: str, tables: Tables, manifest: RunSummary, parameters: Any) -> pl.DataFrame | None:
    """Return the paper's rows for an experiment that was run as the paper did, on its data and its trained networks.

    The columns are those of the experiment's own table, as far as the paper gives them; the model's name ends in
    ``(paper)``. Several measures of one entry at one place share a row.

    Args:
        experiment: its name.
        tables: of the run, by experiment and by name.
        manifest: of the run.
        parameters: the experiment, with its parameters.
    """
    models = [known for model in manifest.models if not model.untrained for known in identified(model)[:1] if known]
    drawn = [number for number in paper_numbers() if number.drawn and number.cells[0].experiment == experiment]
    alike: list[PaperNumber] = []
    for number in drawn:
        names = [model.name for model in models if (model.network, model.size) == (number.network, size_of(number))]
        if not names or other_data(manifest, number.data)(experiment):
            continue
        if measured_alike(number.cells[0], tables, names, parameters, number.drawn):
            alike.append(number)
    found, every = drawn_rows(alike), drawn_rows(drawn)
    if found is None or every is None:
        return None
    return pl.concat([every.clear(), found], how="diagonal_relaxed")  # the same columns whatever was measured


def drawn_rows(numbers: Iterable[PaperNumber]) -> pl.DataFrame | None:
    """Return numbers of the paper that are drawn as rows of a table; see :func:`reference`."""
    rows: dict[tuple[Any, ...], dict[str, Any]] = {}
    for number in numbers:
        place = {"model": number.title, **number.drawn}
        place["model"] += SUFFIX
        row = rows.setdefault((number.key, *place.values()), place)
        row.pop("source", None)
        row |= {number.cells[0].measure: float(number.value), "source": number.source}  # the source stays last
    return pl.DataFrame(list(rows.values()), infer_schema_length=None) if rows else None
