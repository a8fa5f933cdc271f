"""Which corrupted pictures may be taken together, and the order of corruptions and families in tables."""

from __future__ import annotations

import dataclasses

import polars as pl

from ipvit.data.corruption import DRAWN
from ipvit.data.formats.imagenet_c import CLEAN, KNOWN
from ipvit.perturb.corruptions import FAMILIES

FAMILY = {name: family for family, names in FAMILIES.items() for name in names}
FROST_PICTURES = ", frost pictures"
"""What stands in a variant's label before its frost pictures."""
OWN_FAMILY = "own"
"""Family of the corruptions that the user wrote."""
_ORDER = {name: place for place, name in enumerate((CLEAN, *KNOWN))}


@dataclasses.dataclass(frozen=True)
class Variant:
    """One way in which pictures were made; pictures of several must not be mixed.

    Attributes:
        made: how, see :data:`ipvit.experiments.corruptions.experiment.FILES`.
        frost: what tells its frost pictures apart; empty where there are none.
    """

    made: str
    frost: str = ""

    @property
    def label(self) -> str:
        """What it is called in the column ``made`` of tables."""
        return self.made if self.frost in ("", DRAWN) else f"{self.made}{FROST_PICTURES} {self.frost}"

    def holds(self, *, corruption: str, made: str, frost: str = "", **_: object) -> bool:
        """Tell whether pictures of a condition belong to it; the clean ones belong to each."""
        return corruption == CLEAN or (made == self.made and frost in ("", self.frost))

    @property
    def own(self) -> pl.Expr:
        """Which rows of a table with ``made`` and ``frost`` are its own; the clean pictures are not."""
        return (pl.col("made") == self.made) & pl.col("frost").is_in(["", self.frost])


def variants_in(conditions: pl.DataFrame) -> list[Variant]:
    """Return the variants among conditions with ``corruption``, ``made`` and ``frost``, in their order.

    Frost made with several sets of pictures makes several variants, which share what is not frost.
    """
    corrupted = conditions.filter(pl.col("corruption") != CLEAN)
    found: list[Variant] = []
    for (made,), group in corrupted.group_by(["made"], maintain_order=True):
        pictures = sorted(set(group["frost"]) - {""}, key=lambda name: (name != DRAWN, name))
        found += [Variant(str(made), frost) for frost in pictures or [""]]
    return found or [Variant(made) for made in conditions["made"].unique(maintain_order=True)]


def corruption_place(name: str) -> tuple[int, str]:
    """Return where a corruption stands among the others: the user's own come last, by name."""
    return _ORDER.get(name, len(_ORDER)), name
