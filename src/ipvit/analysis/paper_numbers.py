"""What a number of the paper is, and where its counterpart stands in our tables.

The numbers themselves are in ``paper_targets.json``, every entry with the tag of its source: P printed in the paper, F
read off a figure (``tol`` is the reading error), R from the authors' README, X from another published source, D
computed from published raw data. How far each may be off is written there, or follows from how the number is printed:
half a unit of its last digit. The entries are in the order in which numbers are listed.

Each experiment says in its own ``paper.py`` which of them are about it; see
:func:`ipvit.experiments.registry.paper_numbers`.
"""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ipvit.errors import InputError
from ipvit.models.zoo.paper import paper_name

Conditions = Mapping[str, Any]

LAST = "the last"
"""The condition of a column of blocks: the network's last one, where the parameter ``blocks`` asks for it."""


@dataclasses.dataclass(frozen=True)
class SetNamed:
    """The condition of a parameter that names data: they are a split of this published set.

    Attributes:
        scheme: how the names of the set begin.
    """

    scheme: str

    def __str__(self) -> str:
        """Return what a refusal says."""
        return f"a split of {self.scheme}"


_DATA = Path(__file__).with_name("paper_targets.json")


@dataclasses.dataclass(frozen=True)
class TableCell:
    """Where our counterpart of a number stands.

    Every condition and setting must be told by the table or by the experiment, else the cell is not read. Where the
    table has the column, the row is chosen by it. Where it has not, the experiment must have been run with a parameter
    of that name and that value. All other parameters must have their defaults, which are the paper's protocol, but for
    those in ``free``.

    Attributes:
        experiment: whose table.
        measure: column.
        conditions: values of other columns in its row, or of parameters where the table lacks the column.
        table: name of the table; the experiment's main one by default.
        along: column and value: the row lies between two of ours, and is interpolated linearly.
        settings: values of parameters, where they are written in another way than in a column or have none.
        any_network: the number does not depend on the network that was measured.
        implied: by column, for conditions that no parameter has the name of: the parameters that must hold where the
            table lacks the column, as it does where all its rows have one value. Where it has it, they are free.
        free: parameters that choose which conditions are measured, or that this number does not depend on; None where
            it depends on none.
    """

    experiment: str
    measure: str
    conditions: Conditions = dataclasses.field(default_factory=dict[str, Any])
    table: str = ""
    along: tuple[str, float] | None = None
    settings: Conditions = dataclasses.field(default_factory=dict[str, Any])
    any_network: bool = False
    implied: Mapping[str, Conditions] = dataclasses.field(default_factory=dict[str, Conditions])
    free: frozenset[str] | None = frozenset()


@dataclasses.dataclass(frozen=True)
class PaperNumber:
    """One number of the paper.

    Attributes:
        key: entry of ``paper_targets.json``.
        where: table or figure.
        title: of the network, as printed.
        what: what was measured, in words.
        value: the paper's.
        uncertainty: how far it may be off, by rounding or by reading a figure.
        source: tag of the source, see ``paper_targets.json``.
        cells: where ours may stand, the first that exists counts; none where there is nothing to measure.
        data: on which published set it was measured; see :func:`ipvit.data.recognition.published_set`.
        untrained: the network has random weights.
        network: name of the network: of the paper's zoo, or another source's.
        size: height and width of its input in pixels; by default those that it was published with.
        why_not: why nothing can be compared, where ``cells`` is empty.
        row: its row in the entry, where several experiments measure what one table prints.
        drawn: columns of the row in which the experiment's figures show it beside ours, except the measure and the
            source, and the model where it is called as ``title`` says; empty where it is not drawn.
    """

    key: str
    where: str
    title: str
    what: str
    value: float
    uncertainty: float
    source: str
    cells: tuple[TableCell, ...] = ()
    data: str = "imagenet"
    untrained: bool = False
    network: str | None = None
    size: int | None = None
    why_not: str = ""
    row: int = 0
    drawn: Conditions = dataclasses.field(default_factory=dict[str, Any])


@functools.cache
def targets() -> dict[str, Any]:
    """Return the paper's numbers by table or figure."""
    return json.loads(_DATA.read_text("utf-8"))


def measured(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parts of an entry that hold numbers of networks, by network, without what is said about them."""
    return {name: value for name, value in entry.items() if name not in ("src", "tol", "cols")}


def network(title: str) -> str | None:
    """Return the name of a network of the paper as the targets write it, or None."""
    try:
        return paper_name("AugMix" if title == "AugMix-R50" else title)
    except InputError:
        return None


def in_order(numbers: list[PaperNumber]) -> tuple[PaperNumber, ...]:
    """Return numbers in the order of the targets; those of other publications come last."""
    places = {key: place for place, key in enumerate(targets())}
    return tuple(sorted(numbers, key=lambda number: (places.get(number.key, len(places)), number.row)))
