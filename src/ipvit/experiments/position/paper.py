"""Table 8: the image in a corner."""

from __future__ import annotations

from collections.abc import Iterator

from ipvit.analysis.paper_numbers import PaperNumber, TableCell, measured, network, targets


def paper_numbers() -> Iterator[PaperNumber]:
    """Yield the numbers of the paper that this experiment measures."""
    key = "table8_corner"
    entry = targets()[key]
    for title, values in measured(entry).items():
        for corner, top1 in zip(entry["cols"], values, strict=True):
            cell = TableCell(
                "position", "top1", {"place": corner}, settings={"scale": 128 / 224}, free=frozenset({"corners"})
            )
            what = f"top-1 (%), {corner}"
            yield PaperNumber(
                key,
                "Table 8",
                title,
                what,
                top1,
                0.005,
                entry["src"],
                (cell,),
                network=network(title),
                drawn={"place": corner},
            )
