"""One colour, dash and marker for each model, the same in all figures and tables of a report.

Twelve colours, eight markers and six dashes go round independently of each other: 24 models differ in marker and dash
alone, which is what print in grey keeps, and the first twelve in colour too.
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterable
from contextvars import ContextVar
from typing import Literal, NamedTuple

COLOURS = (
    "#0072B2",
    "#E69F00",
    "#009E73",
    "#D55E00",
    "#CC79A7",
    "#56B4E9",
    "#8F1FFF",
    "#7E5225",
    "#D1B561",
    "#9470FF",
    "#9E2E74",
    "#FF0A66",
)
"""Okabe and Ito's (Color Universal Design, 2008) without yellow and black, then those that lie farthest from all before
them, also as people without one kind of cone see them (Machado et al. 2009): any two are 16 apart in CIELAB."""
_DARKEST, _LIGHTEST = 0x58, 0xC0  # greys that show on white and on dark
SHAPES = ("circle", "square", "triangle-up", "diamond", "triangle-down", "cross", "triangle-right", "triangle-left")
DASHES = ((1, 0), (7, 3), (2, 2), (9, 3, 2, 3), (1, 4), (12, 3, 2, 3, 2, 3))


class Look(NamedTuple):
    """How the marks of a model look."""

    colour: str
    shape: str
    dash: tuple[int, ...]

    @classmethod
    def number(cls, place: int) -> Look:
        """Return the look of the model that stands at a place, from 0, in the order of the study."""
        turn = place // 24  # from there on the same marker comes with other dashes
        return cls(COLOURS[place % len(COLOURS)], SHAPES[place % len(SHAPES)], DASHES[(place + 2 * turn) % len(DASHES)])

    @classmethod
    def neutral(cls, place: int, count: int) -> Look:
        """Return the look of one of ``count`` series that are no models, such as ways to make a mask: greys."""
        grey = round(_DARKEST + (_LIGHTEST - _DARKEST) * place / max(1, count - 1))
        return cls.number(place)._replace(colour="#" + f"{grey:02X}" * 3)

    def varied(self, number: int, marks: Literal["lines", "points", "bars"]) -> Look:
        """Return the look of a further series of the same model; its first one is number 0."""
        if marks == "bars":
            return self._replace(colour=_lighter(self.colour, 0.7**number))
        other = self._replace(shape=SHAPES[(SHAPES.index(self.shape) + number) % len(SHAPES)])
        if marks == "points":
            return other
        # a legend shows the marker, and not the dash
        return other._replace(dash=DASHES[(DASHES.index(self.dash) + number) % len(DASHES)])


def _lighter(colour: str, share: float) -> str:
    """Mix a colour with white; ``share`` is its own part."""
    parts = (int(colour[place : place + 2], 16) for place in (1, 3, 5))
    return "#" + "".join(f"{round(255 - share * (255 - part)):02X}" for part in parts)


class Looks:
    """Which model has which look: the study's in its order, then whatever else is drawn, in order of appearance.

    Args:
        models: names of the study's models, in its order.
    """

    def __init__(self, models: Iterable[str] = ()) -> None:
        self._places: dict[str, int] = {}
        for name in models:
            self._places.setdefault(name, len(self._places))

    def model(self, name: str) -> str:
        """Return the known model that a series is of, such as ``net`` for ``net, mean token``; else the name itself."""
        known = [model for model in self._places if name == model or name.startswith(f"{model}, ")]
        return max(known, key=len, default=name)

    def place(self, name: str) -> int:
        """Return where a model, or what else is drawn like one, stands; a name that is new comes last."""
        return self._places.setdefault(self.model(name), len(self._places))

    def of(self, name: str) -> Look:
        """Return the look of a model, or of a series of its marks."""
        return Look.number(self.place(name))


_LOOKS: ContextVar[Looks | None] = ContextVar("looks", default=None)


@contextlib.contextmanager
def using(looks: Looks) -> Generator[None]:
    """Draw all figures within this context with these looks."""
    token = _LOOKS.set(looks)
    try:
        yield
    finally:
        _LOOKS.reset(token)


def current_looks() -> Looks:
    """Return the looks of the report that is being made; outside of one, looks in order of appearance."""
    return _LOOKS.get() or Looks()
