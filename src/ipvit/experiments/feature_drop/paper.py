"""Tables 6 and 7: lost features."""

from __future__ import annotations

from collections.abc import Iterator

from ipvit.analysis.paper_numbers import PaperNumber, TableCell, measured, network, targets

_FREE = frozenset({"blocks", "rates", "runs", "protocol"})


def paper_numbers() -> Iterator[PaperNumber]:
    """Yield the numbers of the paper that this experiment measures."""
    table_6 = targets()["table6_lesion"]
    for title in ("ViT-L", "DeiT-B"):
        yield from _rows("table6_lesion", "Table 6", title, table_6[title])
    yield from _rows("table7_lesion_resnet50", "Table 7", "ResNet50", measured(targets()["table7_lesion_resnet50"]))


def _rows(key: str, where: str, title: str, blocks: dict[str, list[float]]) -> Iterator[PaperNumber]:
    for block, values in blocks.items():
        for percent, top1 in zip(targets()["table6_lesion"]["rates"], values, strict=True):
            place = {"block": int(block) - 1, "rate": percent / 100}  # the paper counts blocks and layers from 1
            yield PaperNumber(
                key,
                where,
                title,
                f"top-1 (%), {percent} % lost before block {block}",
                top1,
                0.005,
                targets()[key]["src"],
                (TableCell("feature-drop", "top1", place, free=_FREE),),
                network=network(title),
                drawn=place,
            )
