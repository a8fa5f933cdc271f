"""What the page may ask for, checked before anything is computed."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from ipvit.perturb.corruptions import CORRUPTIONS, EXTRA
from ipvit.perturb.patchdrop import Fill

MOST_CELLS_A_SIDE = 40
"""The finest grid on offer; 37 cells a side are the patches of a DINOv2 at its own size."""

MOST_EPSILON = 16.0
"""The strongest attack on offer, in grey levels of 255."""

Side = Annotated[int, Field(ge=1, le=MOST_CELLS_A_SIDE)]
Seed = Annotated[int, Field(ge=0, lt=2**31)]
Name = Annotated[str, Field(max_length=40)]
Number = Annotated[int, Field(ge=0, lt=2**31)]


class Request(BaseModel):
    """A request; unknown keys and wrong types are refused."""

    model_config = ConfigDict(extra="forbid", strict=True, use_attribute_docstrings=True)


class More(Request):
    """The next photos on the shelf."""

    first: Number = 0


class PhotoRequest(Request):
    """A photo as one network gets it, untouched."""

    photo: Name
    model: Number


class CellsRequest(Request):
    """Which cells of the grid an information loss drops."""

    photo: Name
    grid: Side
    mode: Literal["random", "salient", "non_salient"]
    loss: Annotated[float, Field(ge=0, le=1)]
    """Random: share of the cells; otherwise share of the salience."""
    seed: Seed = 0


class Inside(Request):
    """Where to look inside a network."""

    block: Number
    head: Annotated[int, Field(ge=-1, le=1000)] = -1
    """A head's number; -1 is the mean of all."""
    token: Name = "class"
    """Whose attention: a token's, or ``patches`` for the mean over all patches."""
    threshold: Annotated[float, Field(gt=0, le=1)] = 0.9
    """The mask is the fewest patches that hold this share of the attention."""


class PerturbedRequest(Request):
    """What is done to a photo before one network sees it, and what is read from the network."""

    panel: Literal["left", "right"]
    photo: Name
    model: Number
    grid: Side = 8
    dropped: Annotated[list[Number], Field(max_length=MOST_CELLS_A_SIDE**2)] = []
    """Cells, counted row by row."""
    fill: Fill = "black"
    shuffle: Side = 1
    """Rows and columns of the shuffle grid; 1 leaves the picture as it is."""
    corruption: Name = CORRUPTIONS[0]
    severity: Annotated[int, Field(ge=0, le=5)] = 0
    """0 leaves the picture as it is."""
    attack: Literal["fgsm", "pgd"] = "fgsm"
    epsilon: Annotated[float, Field(ge=0, le=MOST_EPSILON)] = 0
    """In grey levels of 255; 0 leaves the picture as it is."""
    seed: Seed = 0
    inside: Inside | None = None

    @field_validator("corruption")
    @classmethod
    def _known(cls, value: str) -> str:
        if value not in CORRUPTIONS + EXTRA:
            raise ValueError(f"unknown corruption {value!r}")
        return value

    @model_validator(mode="after")
    def _on_the_grid(self) -> PerturbedRequest:
        if any(cell >= self.grid**2 for cell in self.dropped):
            raise ValueError(f"a grid of {self.grid}x{self.grid} has cells 0 to {self.grid**2 - 1}")
        return self
