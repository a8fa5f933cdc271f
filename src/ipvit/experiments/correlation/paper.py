"""Table 1: the correlation of representations under PatchDrop."""

from __future__ import annotations

from collections.abc import Iterator
from types import MappingProxyType

from ipvit.analysis.paper_numbers import LAST, Conditions, PaperNumber, TableCell, network, targets

_GRID: Conditions = MappingProxyType({"grid": "14x14"})
_WHERE: Conditions = MappingProxyType({**_GRID, "block": LAST})
_FREE = frozenset({"levels", "runs", "blocks"})


def paper_numbers() -> Iterator[PaperNumber]:
    """Yield the numbers of the paper that this experiment measures."""
    yield from _table_1()
    yield from _figure_5()


def _figure_5() -> Iterator[PaperNumber]:
    key = "fig5_superclass"
    entry = targets()[key]
    level = entry["level"]
    for title, means in entry["mean"].items():
        for superclass, mean in zip(entry["cols"], means, strict=True):
            place = {"information_loss": level / 100, "superclass": superclass.lower(), **_WHERE}
            yield PaperNumber(
                key,
                "Figure 5",
                title,
                f"correlation, mean, {level} % dropped, {superclass}",
                mean,
                entry["tol"],
                entry["src"],
                (TableCell("correlation", "correlation", place, "correlation-superclass", settings=_GRID, free=_FREE),),
                network=network(title),
            )


def _table_1() -> Iterator[PaperNumber]:
    key = "table1_corr"
    entry = targets()[key]
    for title, means in entry["mean"].items():
        for percent, mean, spread in zip(entry["levels"], means, entry["std"][title], strict=True):
            for measure, words, value in (("correlation", "mean", mean), ("correlation_std", "spread", spread)):
                level = {"information_loss": percent / 100}
                cell = TableCell("correlation", measure, {**level, **_WHERE}, settings=_GRID, free=_FREE)
                what = f"correlation, {words}, {percent} % dropped"
                yield PaperNumber(
                    key,
                    "Table 1",
                    title,
                    what,
                    value,
                    0.005,
                    entry["src"],
                    (cell,),
                    network=network(title),
                    drawn=level,
                )
