"""Section 3.2 and the table of Jaccard indices: objects found by attention."""

from __future__ import annotations

from collections.abc import Iterator

from ipvit.analysis.paper_numbers import PaperNumber, TableCell, measured, network, targets


def paper_numbers() -> Iterator[PaperNumber]:
    """Yield the numbers of the paper that this experiment measures."""
    key = "jaccard_voc12"
    entry = targets()[key]
    for title, value in measured(entry).items():
        size = title[:6]
        token = "shape" if title.endswith("shape") else "class"
        name = network(f"{size}-SIN") if "SIN" in title else network(size)
        cell = TableCell(
            "segment",
            "jaccard",
            {"token": token, "threshold": 0.9, "mask": "best head (oracle)", "protocol": "authors"},
            settings={"protocol": "authors"},
            free=frozenset({"thresholds"}),
        )
        yield PaperNumber(
            key,
            "Table 4 (Jaccard)",
            title,
            f"Jaccard index (%), {token} token",
            value,
            0.05,
            entry["src"],
            (cell,),
            "voc",
            untrained=title.endswith("random"),
            network=f"{name}_dist" if "dist" in title else name,
            size=512,
        )
