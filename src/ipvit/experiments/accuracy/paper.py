"""Clean accuracies that the paper and its authors state."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from ipvit.analysis.paper_numbers import PaperNumber, TableCell, measured, targets
from ipvit.experiments.shared_numbers import CLEAN, table_3


def paper_numbers() -> Iterator[PaperNumber]:
    """Yield the numbers of the paper that this experiment measures."""
    key = "patchdrop_deit_b_fig27"
    entry = targets()[key]
    yield PaperNumber(
        key, "Figure 27", "DeiT-B", "top-1 (%), clean", entry["clean"], 0.05, entry["src"], CLEAN, network="deit_base"
    )
    for row in table_3():
        cells = (TableCell("accuracy", "top1", {"token": row.token}),) if row.distilled else CLEAN
        yield row.number("top-1 (%)", row.accuracy, 0.05, cells)
    yield from _checkpoints()


def _checkpoints() -> Iterator[PaperNumber]:
    """Yield what the authors' README says of their own networks."""
    key = "released_deit_t_variants"
    entry = targets()[key]
    for variant, values in measured(entry).items():
        name = "no_pos_deit_t" if variant == "no_pos" else f"patch_{variant.removeprefix('patch')}_deit_t"
        for words, measure, value in zip(("top-1", "top-5"), ("top1", "top5"), values, strict=True):
            cells = tuple(dataclasses.replace(cell, measure=measure) for cell in CLEAN)
            what = f"{words} (%), clean"
            yield PaperNumber(key, "Authors' checkpoints", name, what, value, 0.05, entry["src"], cells, network=name)
