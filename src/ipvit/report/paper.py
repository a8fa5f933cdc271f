"""The paper's own numbers, beside ours.

``paper_targets.json`` holds them as data, every entry with the tag of its source: P printed in the paper, F read off a
figure (``tol`` is the reading error), R from the authors' README, X from another published source, D computed from
published raw data.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import polars as pl

from ipvit.errors import InputError
from ipvit.models.paper import paper_name

_DATA = Path(__file__).with_name("paper_targets.json")

SUFFIX = " (paper)"
"""What the name of a network carries where the numbers are the paper's."""

_TIMM = {f"deit_{size}_patch16_224": f"deit_{size}" for size in ("tiny", "small", "base")}
"""timm's names of networks of the paper, where they differ."""


@functools.cache
def targets() -> dict[str, Any]:
    """Return the paper's numbers by table or figure."""
    return json.loads(_DATA.read_text("utf-8"))


def network_of(model: str) -> str | None:
    """Return the paper's name of a model (``deit_small``), or None where it is not one of the paper's networks."""
    plain = model.removeprefix("torchvision:").split("@")[0].split("?")[0].split(".")[0]
    try:
        return paper_name(_TIMM.get(plain, plain))
    except InputError:
        return None


def reference(experiment: str, models: Iterable[str]) -> pl.DataFrame | None:
    """Return the paper's rows for an experiment and the networks among ``models`` that are the paper's.

    The columns are those of the experiment's own table, as far as the paper gives them; the model's name ends in
    ``(paper)``.
    """
    make = _ROWS.get(experiment)
    wanted = {name for model in models if (name := network_of(model)) is not None}
    if make is None or not wanted:
        return None
    rows = [row for row in make() if paper_name(row["model"]) in wanted]
    for row in rows:
        row["model"] += SUFFIX
    return pl.DataFrame(rows, infer_schema_length=None) if rows else None


def _occlusion() -> Iterator[dict[str, Any]]:
    for key, mode in (("fig3_random", "random"), ("fig3_salient", "salient"), ("fig3_nonsalient", "non_salient")):
        entry = targets()[key]
        for model, values in entry["y"].items():
            for percent, top1 in zip(entry["x"], values, strict=True):
                # figure 3 plots the measured share of dropped patches for every mode
                yield {
                    "model": model,
                    "mode": mode,
                    "dropped": percent / 100,
                    "top1": float(top1),
                    "source": entry["src"],
                }


def _shuffle() -> Iterator[dict[str, Any]]:
    entry = targets()["fig10_shuffle"]
    for model, values in entry["y"].items():
        for cells, top1 in zip(entry["cells"], values, strict=True):
            yield {"model": model, "cells": max(cells, 1), "top1": float(top1), "source": entry["src"]}


def _position() -> Iterator[dict[str, Any]]:
    entry = targets()["table8_corner"]
    for model in (name for name in entry if name not in ("src", "cols")):
        for place, top1 in zip(entry["cols"], entry[model], strict=True):
            yield {"model": model, "place": place, "top1": float(top1), "source": entry["src"]}


def _correlation() -> Iterator[dict[str, Any]]:
    entry = targets()["table1_corr"]
    for model, means in entry["mean"].items():
        for percent, mean, spread in zip(entry["levels"], means, entry["std"][model], strict=True):
            yield {
                "model": model,
                "information_loss": percent / 100,
                "correlation": float(mean),
                "correlation_std": float(spread),
                "source": entry["src"],
            }


def _feature_drop() -> Iterator[dict[str, Any]]:
    table6, table7 = targets()["table6_lesion"], targets()["table7_lesion_resnet50"]
    blocks = [(model, block, values) for model in ("ViT-L", "DeiT-B") for block, values in table6[model].items()]
    blocks += [("ResNet50", layer, values) for layer, values in table7.items() if layer.isdecimal()]
    for model, block, values in blocks:
        for percent, top1 in zip(table6["rates"], values, strict=True):
            # the paper counts blocks and layers from 1
            yield {
                "model": model, "block": int(block) - 1, "rate": percent / 100, "top1": float(top1), "source": "P",
            }  # fmt: skip


def _corruptions() -> Iterator[dict[str, Any]]:
    for model, mce in targets()["mce"].items():
        if model != "src":
            name = "ResNet50-AugMix" if model == "AugMix-R50" else model
            yield {"model": name, "made": "ImageNet-C files", "mce": float(mce), "source": targets()["mce"]["src"]}


def _probe() -> Iterator[dict[str, Any]]:
    blocks = targets()["fig15_blocks_6_12"]
    for model in (name for name in blocks if name not in ("src", "tol")):
        for block, top1 in enumerate(blocks[model], start=5):  # the paper's block 6 is block 5 here
            yield {
                "model": model, "head": "own", "tokens": "class", "blocks": str(block),
                "data": "ImageNet", "top1": float(top1), "source": blocks["src"],
            }  # fmt: skip
    table5 = targets()["table5"]
    for key, values in ((key, table5[key]) for key in table5 if key not in ("src", "cols")):
        span, _, tokens = key.partition("_")
        first = int(span.partition("-")[0])
        for data, top1 in zip(table5["cols"], values, strict=True):
            yield {
                "model": "DeiT-S", "head": "adamw", "tokens": "class+last_patch" if tokens == "cls_patch" else "class",
                "blocks": "11" if first == 12 else f"{first - 1}-11",
                "data": data, "top1": float(top1), "source": table5["src"],
            }  # fmt: skip
    yield from _transfer()


def _transfer() -> Iterator[dict[str, Any]]:
    entry = targets()["fig16_transfer"]
    for name, values in ((name, entry[name]) for name in entry if name not in ("src", "tol", "cols")):
        model, last, n_blocks = name.removesuffix("-ens"), 4 if name == "ResNet50" else 11, 4 if "-ens" in name else 1
        for data, top1 in zip(entry["cols"], values, strict=True):
            yield {
                "model": model, "head": "adamw", "tokens": "pooled" if model == "ResNet50" else "class",
                "blocks": str(last) if n_blocks == 1 else f"{last + 1 - n_blocks}-{last}", "data": data,
                "top1": float(top1), "source": entry["src"],
            }  # fmt: skip


def _fewshot() -> Iterator[dict[str, Any]]:
    entry = targets()["fig16_fewshot"]
    for name in (name for name in entry if name not in ("src", "tol", "cols")):
        for data, accuracy in zip(entry["cols"], entry[name], strict=True):
            yield {
                "model": name.removesuffix("-ens"), "data_set": data.replace("Flower", "Flowers"),  # as in table 5
                "kind": "meta-dataset", "classifier": "logistic",
                "blocks": 4 if "-ens" in name else 1, "accuracy": 100 * float(accuracy), "source": entry["src"],
            }  # fmt: skip


def _attack() -> Iterator[dict[str, Any]]:
    for key, attack in (("fig13_fgsm", "fgsm"), ("fig13_pgd5", "pgd")):
        entry = targets()[key]
        for model, values in entry["y"].items():
            for epsilon, top1 in zip(entry["eps"], values, strict=True):
                yield {
                    "model": model, "attack": attack, "epsilon": float(epsilon), "top1": float(top1),
                    "source": entry["src"],
                }  # fmt: skip
    entry = targets()["fig12_patch"]
    for model, values in entry["y"].items():
        for percent, top1 in zip(entry["sizes"], values, strict=True):
            yield {
                "model": model, "attack": "patch", "area": percent / 100, "top1": float(top1), "source": entry["src"],
            }  # fmt: skip


_ROWS: dict[str, Callable[[], Iterator[dict[str, Any]]]] = {
    "occlusion": _occlusion,
    "shuffle": _shuffle,
    "position": _position,
    "correlation": _correlation,
    "feature-drop": _feature_drop,
    "probe": _probe,
    "fewshot": _fewshot,
    "corruptions": _corruptions,
    "attack": _attack,
}
