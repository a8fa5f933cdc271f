"""Section 3.5: the tokens of single blocks, and linear heads on several of them."""

from __future__ import annotations

from collections.abc import Iterator

from ipvit.analysis.data_names import scheme_of
from ipvit.analysis.paper_numbers import Conditions, PaperNumber, SetNamed, TableCell, measured, network, targets

_LAST = 11
"""Number of the last block of the paper's DeiT networks, from 0."""
_LAST_STAGE = 4
"""The same of ResNet50: its pooled features."""


_FREE = frozenset({"train_root", "train_split", "blocks", "last", "tokens", "heads", "features", "store", "val"})
"""Which heads are fitted and put where, and where their data lie."""
_ABOUT_FITS = frozenset(
    {"train", "train_limit", "validation", "penalties", "learning_rates", "weight_decays", "epochs", "batch", "refit"}
    | {"protocol"}
)
_FIXED = _ABOUT_FITS - {"train", "train_limit", "protocol"}
"""What the authors' protocol fixes."""


def paper_numbers() -> Iterator[PaperNumber]:
    """Yield the numbers of the paper that this experiment measures."""
    yield from _figure_15()
    yield from _table_5()
    yield from _figure_16()


def _figure_15() -> Iterator[PaperNumber]:
    key = "fig15_blocks_6_12"
    entry = targets()[key]
    for title, values in measured(entry).items():
        for block, top1 in enumerate(values, start=6):  # the paper counts blocks from 1
            reads = {"head": "own", "tokens": "class", "blocks": str(block - 1)}
            yield PaperNumber(
                key,
                "Figure 15",
                title,
                f"top-1 (%), class token of block {block}",
                top1,
                entry["tol"],
                entry["src"],
                (TableCell("probe", "top1", reads, free=_FREE | _ABOUT_FITS),),
                network=network(title),
                drawn=reads | {"data": "ImageNet"},
            )


def _table_5() -> Iterator[PaperNumber]:
    key = "table5"
    entry = targets()[key]
    for heads, values in measured(entry).items():
        span, _, tokens = heads.partition("_")
        n_blocks = 13 - int(span.partition("-")[0])
        both = tokens == "cls_patch"
        reads = _fitted("class+last_patch" if both else "class", _LAST, n_blocks)
        words = "class and patch tokens" if both else "class tokens"
        for data, top1 in zip(entry["cols"], values, strict=True):
            yield PaperNumber(
                key,
                "Table 5",
                "DeiT-S",
                f"top-1 (%), {data}, {words} of {n_blocks} blocks",
                top1,
                0.005,
                entry["src"],
                (_as_the_authors_fit(reads, scheme_of(data)),),
                scheme_of(data),
                network="deit_small",
                drawn={**reads, "data": data},
            )


def _figure_16() -> Iterator[PaperNumber]:
    key = "fig16_transfer"
    entry = targets()[key]
    for name, values in measured(entry).items():
        title = name.removesuffix("-ens")
        convolutional = title == "ResNet50"
        last, tokens = (_LAST_STAGE, "pooled") if convolutional else (_LAST, "class")
        reads = _fitted(tokens, last, 4 if name.endswith("-ens") else 1)
        for data, top1 in zip(entry["cols"], values, strict=True):
            yield PaperNumber(
                key,
                "Figure 16 (transfer)",
                name,
                f"top-1 (%), {data}",
                top1,
                entry["tol"],
                entry["src"],
                (_as_the_authors_fit(reads, scheme_of(data)),),
                scheme_of(data),
                network=network(title),
                drawn={"model": title, **reads, "data": data},
            )


def _fitted(tokens: str, last: int, n_blocks: int) -> Conditions:
    """Return the columns of a fitted head on the last blocks, which the table calls ``11`` or ``8-11``."""
    blocks = str(last) if n_blocks == 1 else f"{last + 1 - n_blocks}-{last}"
    return {"head": "adamw", "tokens": tokens, "blocks": blocks}


def _as_the_authors_fit(reads: Conditions, scheme: str) -> TableCell:
    settings = {"protocol": "authors", "train": SetNamed(scheme)}
    return TableCell("probe", "top1", reads, settings=settings, free=_FREE | _FIXED)
