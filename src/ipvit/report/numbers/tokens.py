"""Section 3.5: tokens off the shelf, transfer and few-shot learning."""

from __future__ import annotations

from collections.abc import Iterator

from ipvit.report.numbers.quantity import Place, Quantity, network
from ipvit.report.paper import targets

DATA = {
    "Aircraft": "aircraft",
    "CUB": "cub",
    "DTD": "dtd",
    "Flowers": "flowers102",
    "Fungi": "fungi",
    "GTSRB": "gtsrb",
    "Places365": "places365",
    "iNat": "inaturalist2019",
}
"""The paper's names of data sets, and those of our data names."""

FEW_SHOT_DATA = {
    "Omniglot": "omniglot",
    "Aircraft": "aircraft",
    "CUB": "cub",
    "DTD": "dtd",
    "QuickDraw": "quickdraw",
    "Fungi": "fungi",
    "Flower": "flowers102",
    "GTSRB": "gtsrb",
    "MS-COCO": "coco-crops",
    "MNIST": "mnist",
    "CIFAR-10": "cifar10",
    "CIFAR-100": "cifar100",
}
"""The same for few-shot learning."""


def quantities() -> Iterator[Quantity]:
    """Yield the numbers of this part of the paper."""
    yield from _blocks()
    yield from _table_5()
    yield from _figure_16()
    yield from _few_shot()


def _blocks() -> Iterator[Quantity]:
    entry = targets()["fig15_blocks_6_12"]
    for title in (key for key in entry if key not in ("src", "tol")):
        for block, top1 in enumerate(entry[title], start=6):
            # the paper counts blocks from 1
            place = Place("probe", "top1", {"head": "own", "tokens": "class", "n_blocks": 1, "block": block - 1})
            yield Quantity(
                "fig15_blocks_6_12", "Figure 15", title, f"top-1 (%), class token of block {block}", top1,
                entry["tol"], entry["src"], (place,), network=network(title),
            )  # fmt: skip


def _table_5() -> Iterator[Quantity]:
    entry = targets()["table5"]
    for key in (key for key in entry if key not in ("src", "cols")):
        span, _, tokens = key.partition("_")
        n_blocks = 13 - int(span.partition("-")[0])
        kind = "class+last_patch" if tokens == "cls_patch" else "class"
        words = "class and patch tokens" if tokens == "cls_patch" else "class tokens"
        for data, top1 in zip(entry["cols"], entry[key], strict=True):
            yield Quantity(
                "table5", "Table 5", "DeiT-S", f"top-1 (%), {data}, {words} of {n_blocks} blocks", top1, 0.005,
                entry["src"], (_head(11, n_blocks, kind),), DATA[data], network="deit_small",
            )  # fmt: skip


def _figure_16() -> Iterator[Quantity]:
    entry = targets()["fig16_transfer"]
    for key in (key for key in entry if key not in ("src", "tol", "cols")):
        title = key.removesuffix("-ens")
        place = _head(4, 1, "pooled") if title == "ResNet50" else _head(11, 4 if "-ens" in key else 1, "class")
        for data, top1 in zip(entry["cols"], entry[key], strict=True):
            yield Quantity(
                "fig16_transfer", "Figure 16 (transfer)", key, f"top-1 (%), {data}", top1, entry["tol"], entry["src"],
                (place,), DATA[data], network=network(title),
            )  # fmt: skip


def _few_shot() -> Iterator[Quantity]:
    entry = targets()["fig16_fewshot"]
    for key in (key for key in entry if key not in ("src", "tol", "cols")):
        for data, share in zip(entry["cols"], entry[key], strict=True):
            conditions = {
                "kind": "meta-dataset", "classifier": "logistic", "blocks": 4 if "-ens" in key else 1,
                "patches": False, "weight": 1.0,
            }  # fmt: skip
            place = Place("fewshot", "accuracy", conditions, settings={"patches": False, "strength": 1.0})
            yield Quantity(
                "fig16_fewshot", "Figure 16 (few-shot)", key, f"accuracy (%), {data}", round(100 * share, 1),
                100 * entry["tol"], entry["src"], (place,), FEW_SHOT_DATA[data],
                network=network(key.removesuffix("-ens")),
            )  # fmt: skip


def _head(block: int, n_blocks: int, tokens: str) -> Place:
    """Where the accuracy of a head stands that was fitted as the authors fit theirs."""
    conditions = {"head": "adamw", "tokens": tokens, "n_blocks": n_blocks, "block": block}
    return Place("probe", "top1", conditions, settings={"protocol": "authors"})
