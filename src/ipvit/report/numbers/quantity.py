"""What a number of the paper is, and where its counterpart stands."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from ipvit.errors import InputError
from ipvit.models.paper import paper_name

Conditions = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Place:
    """Where our counterpart of a number stands.

    Attributes:
        experiment: whose table.
        measure: column.
        conditions: values of other columns in its row; a column that the table lacks is not looked at.
        table: name of the table; the experiment's main one by default.
        along: column and value: the row lies between two of ours, and is interpolated linearly.
        settings: parameters that the experiment must have been run with, where the table has no column for them.
        any_network: the number does not depend on the network that was measured.
    """

    experiment: str
    measure: str
    conditions: Conditions = dataclasses.field(default_factory=dict)
    table: str = ""
    along: tuple[str, float] | None = None
    settings: Conditions = dataclasses.field(default_factory=dict)
    any_network: bool = False


@dataclasses.dataclass(frozen=True)
class Quantity:
    """One number of the paper.

    Attributes:
        key: entry of ``paper_targets.json``.
        where: table or figure.
        title: of the network, as printed.
        what: what was measured, in words.
        value: the paper's.
        uncertainty: how far it may be off, by rounding or by reading a figure.
        source: tag of the source, see ``paper_targets.json``.
        places: where ours may stand, the first that exists counts; none where there is nothing to measure.
        data: on which data it was measured.
        untrained: the network has random weights.
        network: name of the network: of the paper's zoo, or another source's.
        why_not: why nothing can be compared, where ``places`` is empty.
    """

    key: str
    where: str
    title: str
    what: str
    value: float
    uncertainty: float
    source: str
    places: tuple[Place, ...] = ()
    data: str = "imagenet"
    untrained: bool = False
    network: str | None = None
    why_not: str = ""


CLEAN = (
    Place("accuracy", "top1", {"token": "output"}),
    Place("occlusion", "top1", {"information_loss": 0.0}),
    Place("shuffle", "top1", {"cells": 1}),
    Place("position", "top1", {"place": "whole image"}),
    Place("feature-drop", "top1", {"block": -1}),
)
"""Where a clean accuracy may be found."""


def network(title: str) -> str | None:
    """Return the name of a network of the paper as the targets write it, or None."""
    try:
        return paper_name({"AugMix-R50": "AugMix", "VGG19_BN": "vgg19_bn"}.get(title, title))
    except InputError:
        return None
