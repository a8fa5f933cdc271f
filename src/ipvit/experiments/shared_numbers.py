"""What several experiments need to say which of the paper's numbers they measure."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from ipvit.analysis.paper_numbers import PaperNumber, TableCell, network, targets

CLEAN = (
    TableCell("accuracy", "top1", {"token": "output"}, implied={"token": {}}),
    TableCell("occlusion", "top1", {"information_loss": 0.0}, free=None),
    TableCell("shuffle", "top1", {"cells": 1}, free=None),
    TableCell("position", "top1", {"place": "whole image"}, free=None),
    TableCell("feature-drop", "top1", {"block": -1}, free=None),
)
"""Where the accuracy on images as they are stands; the first that there is counts."""

_TOKENS = {"cls": "class", "shape": "shape"}


@dataclasses.dataclass(frozen=True)
class Table3Row:
    """One network's answer in table 3: its accuracy on ImageNet and its shape bias.

    Attributes:
        place: in the table, from 0.
        title: of the network, as printed.
        token: whose answer: of a token of a distilled network, or the ``output`` of any other.
        distilled: the network has two tokens that answer.
        accuracy: top-1 in percent.
        shape_bias: between 0 and 1.
    """

    place: int
    title: str
    token: str
    distilled: bool
    accuracy: float
    shape_bias: float

    def number(
        self, measure: str, value: float, uncertainty: float, cells: tuple[TableCell, ...], data: str = "imagenet"
    ) -> PaperNumber:
        """Return one of its two numbers."""
        name = network(self.title)
        return PaperNumber(
            "table3",
            "Table 3",
            f"{self.title}, distilled" if self.distilled else self.title,
            f"{measure}, {self.token} token" if self.distilled else measure,
            value,
            uncertainty,
            targets()["table3"]["src"],
            cells,
            data,
            network=f"{name}_dist" if self.distilled else name,
            row=self.place,
        )


def table_3() -> Iterator[Table3Row]:
    """Yield the rows of table 3."""
    for place, (title, distilled, token, accuracy, bias) in enumerate(targets()["table3"]["rows"]):
        yield Table3Row(place, title, _TOKENS[token] if distilled else "output", distilled, accuracy, bias)
