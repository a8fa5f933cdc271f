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
    plain = model.removeprefix("torchvision:").split("@")[0].split(".")[0]
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


_ROWS: dict[str, Callable[[], Iterator[dict[str, Any]]]] = {
    "occlusion": _occlusion,
    "shuffle": _shuffle,
    "position": _position,
    "correlation": _correlation,
    "feature-drop": _feature_drop,
}
