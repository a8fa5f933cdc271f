"""Table 1: the correlation of representations under PatchDrop."""

from __future__ import annotations

from collections.abc import Iterator

from ipvit.analysis.paper_numbers import PaperNumber, TableCell, network, targets


def paper_numbers() -> Iterator[PaperNumber]:
    """Yield the numbers of the paper that this experiment measures."""
    key = "table1_corr"
    entry = targets()[key]
    for title, means in entry["mean"].items():
        for percent, mean, spread in zip(entry["levels"], means, entry["std"][title], strict=True):
            for measure, words, value in (("correlation", "mean", mean), ("correlation_std", "spread", spread)):
                level = {"information_loss": percent / 100}
                cell = TableCell("correlation", measure, level | {"grid": "14x14"}, settings={"grid": "14x14"})
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
