"""Patch shuffle: how much does a network care where things are? (section 3.3, figures 9 to 11)."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from pydantic import field_validator

from ipvit.core.fields import Runs
from ipvit.experiments.base import BindContext, Condition, Experiment, Measurement
from ipvit.experiments.fields import Several
from ipvit.experiments.grids import Grid, rows_and_columns

if TYPE_CHECKING:
    from ipvit.data.dataset import Dataset
    from ipvit.experiments.shuffle.analysis import ShuffleAnalysis
    from ipvit.models.model import Model

CLEAN = "1x1"
"""The grid of a single cell: the image as it is."""


PAPER_GRIDS = ("2x2", "2x4", "4x4", "4x8", "8x8", "14x14", "16x16")
"""The grids of figures 10 and 11."""


@dataclasses.dataclass(frozen=True)
class ShuffleCondition(Condition):
    """One grid and run."""

    grid: str
    cells: int
    run: int


@dataclasses.dataclass(frozen=True)
class SubstituteCondition(ShuffleCondition):
    """A grid that stands for others, which do not divide the network's input.

    Attributes:
        instead_of: these grids, for example ``14x14`` or ``14x14, 16x16``.
    """

    instead_of: str


class Shuffle(Experiment):
    """Cut the image into cells, put them together in a random order, and watch the accuracy fall."""

    name: ClassVar[str] = "shuffle"
    version: ClassVar[int] = 1
    title: ClassVar[str] = "Patch shuffle"
    reproduces: ClassVar[str] = "Figures 10 and 11"
    question: ClassVar[str] = "How much does a network rely on where the parts of an object are?"

    grids: Several[Grid] = PAPER_GRIDS
    """Rows and columns of cells; the unshuffled image is always measured too. The paper's grids, which are the default,
    give way to the nearest that divides the network's input; others must divide it."""
    runs: Runs = 1
    """Random orders per image and grid."""

    @field_validator("grids")
    @classmethod
    def _without_clean(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(grid for grid in value if grid != CLEAN) or (CLEAN,)

    def bind(self, models: Sequence[Model], data: Dataset, context: BindContext) -> Measurement:
        """Check that every grid divides every model's input, or gives way to one that does."""
        from ipvit.experiments.shuffle.measurement import ShuffleMeasurement

        return ShuffleMeasurement(self, models)

    def analysis(self) -> ShuffleAnalysis:
        """Return curves over the number of cells."""
        from ipvit.experiments.shuffle.analysis import ShuffleAnalysis

        return ShuffleAnalysis.of(self)


def n_cells(grid: str) -> int:
    """Return the number of cells of a grid."""
    rows, columns = rows_and_columns(grid)
    return rows * columns
