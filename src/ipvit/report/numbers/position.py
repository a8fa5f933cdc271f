"""Section 3.3 and the appendices: shuffled patches, lost features, the image in a corner."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from ipvit.report.numbers.quantity import CLEAN, Place, Quantity, network
from ipvit.report.paper import targets

_GRIDS = {0: "1x1", 4: "2x2", 8: "2x4", 16: "4x4", 32: "4x8", 64: "8x8", 196: "14x14", 256: "16x16"}
_PATCH_NETWORKS = {"196": "DeiT-T", "100": "patch_22_deit_t", "64": "patch_28_deit_t", "49": "patch_32_deit_t",
                   "25": "patch_38_deit_t"}  # fmt: skip


def quantities() -> Iterator[Quantity]:
    """Yield the numbers of this part of the paper."""
    yield from _shuffle()
    yield from _feature_drop()
    yield from _position()


def _shuffle() -> Iterator[Quantity]:
    rows = [("fig10_shuffle", "Figure 10", title, title, ys) for title, ys in targets()["fig10_shuffle"]["y"].items()]
    patches = targets()["fig11_patch"]["tokens"]
    rows += [
        ("fig11_patch", "Figure 11", f"DeiT-T, {tokens} tokens", _PATCH_NETWORKS[tokens], ys)
        for tokens, ys in patches.items()
    ]
    for key, where, title, name, values in rows:
        entry = targets()[key]
        for cells, top1 in zip(entry["cells"], values, strict=True):
            place = Place("shuffle", "top1", {"cells": max(cells, 1), "grid": _GRIDS[cells]})
            words = f"{cells} cells shuffled" if cells else "clean"
            yield Quantity(
                key, where, title, f"top-1 (%), {words}", top1, entry["tol"], entry["src"], (place,),
                network=network(name),
            )  # fmt: skip
    entry = targets()["released_deit_t_variants"]
    for key in (key for key in entry if key != "src"):
        name = "no_pos_deit_t" if key == "no_pos" else f"patch_{key.removeprefix('patch')}_deit_t"
        for words, measure, value in zip(("top-1", "top-5"), ("top1", "top5"), entry[key], strict=True):
            places = tuple(dataclasses.replace(place, measure=measure) for place in CLEAN)
            yield Quantity(
                "released_deit_t_variants", "Authors' checkpoints", name, f"{words} (%), clean", value, 0.05,
                entry["src"], places, network=name,
            )  # fmt: skip


def _feature_drop() -> Iterator[Quantity]:
    table6, table7 = targets()["table6_lesion"], targets()["table7_lesion_resnet50"]
    rows = [("table6_lesion", "Table 6", title, table6[title]) for title in ("ViT-L", "DeiT-B")]
    rows.append(("table7_lesion_resnet50", "Table 7", "ResNet50", {k: v for k, v in table7.items() if k != "src"}))
    for key, where, title, blocks in rows:
        for block, values in blocks.items():
            for percent, top1 in zip(table6["rates"], values, strict=True):
                # the paper counts blocks and layers from 1
                place = Place("feature-drop", "top1", {"block": int(block) - 1, "rate": percent / 100})
                yield Quantity(
                    key, where, title, f"top-1 (%), {percent} % lost before block {block}", top1, 0.005,
                    targets()[key]["src"], (place,), network=network(title),
                )  # fmt: skip


def _position() -> Iterator[Quantity]:
    entry = targets()["table8_corner"]
    for title in (key for key in entry if key not in ("src", "cols")):
        for corner, top1 in zip(entry["cols"], entry[title], strict=True):
            place = Place("position", "top1", {"place": corner}, settings={"scale": 128 / 224})
            yield Quantity(
                "table8_corner", "Table 8", title, f"top-1 (%), {corner}", top1, 0.005, entry["src"], (place,),
                network=network(title),
            )  # fmt: skip
