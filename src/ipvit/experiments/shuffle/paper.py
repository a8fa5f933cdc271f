"""Figures 10 and 11: shuffled patches."""

from __future__ import annotations

from collections.abc import Iterator

from ipvit.analysis.paper_numbers import PaperNumber, TableCell, network, targets

_GRIDS = {0: "1x1", 4: "2x2", 8: "2x4", 16: "4x4", 32: "4x8", 64: "8x8", 196: "14x14", 256: "16x16"}
_BY_TOKENS = {
    "196": "deit_tiny",
    "100": "patch_22_deit_t",
    "64": "patch_28_deit_t",
    "49": "patch_32_deit_t",
    "25": "patch_38_deit_t",
}
"""The networks of figure 11 by the number of their patches."""


def paper_numbers() -> Iterator[PaperNumber]:
    """Yield the numbers of the paper that this experiment measures."""
    for title, values in targets()["fig10_shuffle"]["y"].items():
        yield from _curve("fig10_shuffle", "Figure 10", title, network(title), values)
    for tokens, values in targets()["fig11_patch"]["tokens"].items():
        yield from _curve("fig11_patch", "Figure 11", f"DeiT-T, {tokens} tokens", _BY_TOKENS[tokens], values)


def _curve(key: str, where: str, title: str, name: str | None, values: list[float]) -> Iterator[PaperNumber]:
    entry = targets()[key]
    for cells, top1 in zip(entry["cells"], values, strict=True):
        number_of_cells = max(cells, 1)  # printed as 0 where nothing is shuffled
        yield PaperNumber(
            key,
            where,
            title,
            f"top-1 (%), {cells} cells shuffled" if cells else "top-1 (%), clean",
            top1,
            entry["tol"],
            entry["src"],
            (
                TableCell(
                    "shuffle",
                    "top1",
                    {"cells": number_of_cells, "grid": _GRIDS[cells]},
                    free=frozenset({"grids", "runs"}),
                ),
            ),
            network=name,
            drawn={"cells": number_of_cells} if key == "fig10_shuffle" else {},
        )
