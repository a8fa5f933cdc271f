"""Section 3.2: how alike the two tokens of a distilled network are."""

from __future__ import annotations

from collections.abc import Iterator

from ipvit.analysis.paper_numbers import PaperNumber, TableCell, targets

_NETWORKS = {
    "DeiT-T-SIN": "deit_t_sin_dist",
    "DeiT-S-SIN": "deit_s_sin_dist",
    "DeiT-T-distilled": "deit_tiny_distilled",
    "DeiT-S-distilled": "deit_small_distilled",
}


def paper_numbers() -> Iterator[PaperNumber]:
    """Yield the numbers of the paper that this experiment measures."""
    key, what = "token_cosine", "cosine of class and shape (or distillation) token"
    entry = targets()[key]
    cells = (TableCell("token-similarity", "cosine", {"norm": True}),)
    for title, name in _NETWORKS.items():
        yield PaperNumber(key, "Section 3.2", title, what, entry[title], 0.005, entry["src"], cells, network=name)
