"""What the columns of tables and records mean: data that is kept in the run folder."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

from pydantic import BaseModel, ConfigDict

from ipvit.metrics.temperature import SCALED

Unit = Literal["", "percent", "share", "count"]
Average = Literal["", "proportion", "mean", "flag"]


class Column(BaseModel):
    """One column of a table, of the records, or of both."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    title: str = ""
    """Head of the column for people; empty: the column's name with spaces."""
    unit: Unit = ""
    """``percent``: from 0 to 100, differences are percentage points. ``share``: from 0 to 1, a level is shown in per
    cent. ``count``: a whole number. Empty: a plain number or text."""
    digits: int | None = None
    """Decimals of a value with an interval; by default one from 10 on, else three."""
    level: bool = False
    """The values are steps of one quantity: they stand side by side, and are the horizontal axis of a chart."""
    of: str = ""
    """The column of the records that is averaged; empty: the column of the same name."""
    average: Average = ""
    """How it is averaged over images: ``proportion`` (share of true values, in per cent, with Wilson's interval),
    ``mean`` (with Student's interval). ``flag``: a false value marks a result that is left out. Empty: not averaged."""
    missing: str = ""
    """What a missing value means, as the end of a sentence that begins with their number: ``values were not finite``.
    Missing are numbers that are not finite, whole numbers below 0, empty texts, and false flags."""

    range: tuple[float | None, float | None] = (None, None)
    """Smallest and largest value that the quantity can have; no interval leaves them."""
    detail: bool = False
    """Only in the files, in JSON, and where a page shows all columns of a table."""
    special: dict[str, str] = {}
    """Words for values that are no numbers of anything, such as ``clean`` for block ``-1``."""

    def head(self, name: str) -> str:
        """Return the head of the column for people, with the unit that its values are written without."""
        return self.title or name.replace("_", " ") + (" (%)" if self.unit == "percent" else "")

    @property
    def limits(self) -> tuple[float, float]:
        """Smallest and largest value, which may be infinite."""
        low, high = self.range
        return (-math.inf if low is None else low, math.inf if high is None else high)

    def number(self, value: float) -> str:
        """Return a value with as many decimals as the column has."""
        digits = self.digits if self.digits is not None else 1 if abs(value) >= 10 else 3
        return f"{value:z.{digits}f}"

    def level_text(self, value: object) -> str | None:
        """Return the value of a level in per cent where it is a share; None for any other."""
        return f"{100 * value:.0f} %" if self.unit == "share" and isinstance(value, int | float) else None


Columns = Mapping[str, Column]

RUN = "run"
"""Number of the repetition with other random masks."""

SHARED_MASK = "shared_mask"
"""Number of the mask that several images share; they are no independent trials."""

RESERVED = frozenset(
    {
        "image",
        "label",
        "condition",
        "model",
        "experiment",
        "version",
        "weights",
        "data",
        "seed",
        "precision",
        "labels",
        "answers",
    }
)
"""What identifies a row; a condition's field may not have one of these names."""

SCORES = frozenset(
    {
        "prediction",
        "confidence",
        "label_probability",
        "correct",
        "correct5",
        "label_log_probability",
        "probability_squares",
        *SCALED,
    }
)
"""Columns of a classification record, see :func:`ipvit.experiments.scoring.score_logits`."""

CALIBRATION_RECORDS = ("confidence", "label_probability", "label_log_probability", "probability_squares")
"""Columns of the records that calibration is made of, beside ``correct``."""

CALIBRATION: dict[str, Column] = {
    "ece": Column(title="ECE", digits=3, range=(0, 1), detail=True),
    "nll": Column(title="NLL (nats)", digits=3, range=(0, None), detail=True),
    "brier": Column(title="Brier score", digits=3, range=(0, 2), detail=True),
    "overconfidence": Column(digits=3, range=(-1, 1), detail=True),
    "auroc": Column(title="AUROC of confidence", digits=3, range=(0, 1), detail=True),
}
"""How well confidences say how often answers are right: calibration error (debiased, 15 bins of equal mass), negative
log-likelihood, Brier's score, confidence less accuracy, and how well confidence tells right answers from wrong ones."""

CALIBRATION_NOTE = "calibration_note"
"""Column that says which of them have no interval or are not recorded, and why."""

COMMON: dict[str, Column] = {
    "n_images": Column(unit="count"),
    "n_answers": Column(title="answers", unit="count"),
    "n_runs": Column(unit="count"),
    "top1": Column(title="top-1 (%)", unit="percent", digits=1, of="correct", average="proportion"),
    "top5": Column(title="top-5 (%)", unit="percent", digits=1, of="correct5", average="proportion"),
    "retained": Column(title="retained (%)", unit="percent", digits=1),
    "chance": Column(unit="percent"),
    "area_top1": Column(title="area under top-1 (%)", unit="percent", digits=1),
    "area_retained": Column(title="area under retained (%)", unit="percent", digits=1),
    "top1_std": Column(title="std over runs", unit="percent"),
    "top5_std": Column(title="std over runs (top-5)", unit="percent"),
    "label_name": Column(title="label"),
    "prediction_name": Column(title="prediction"),
    "prediction": Column(missing="predictions were not finite numbers; they count as wrong."),
    **CALIBRATION,
    CALIBRATION_NOTE: Column(title="of the calibration", detail=True),
}
"""Columns that many experiments have."""

LEFT_OUT = "values of {} were not finite numbers; they are left out of the means."
"""What a missing value of a measured quantity means."""


def measured(
    name: str,
    *,
    title: str = "",
    unit: Unit = "",
    digits: int | None = None,
    range: tuple[float | None, float | None] = (None, None),  # noqa: A002 - what the column calls it
) -> Column:
    """Return the column of a quantity that is averaged over images; values that are not finite are left out."""
    return Column(title=title, unit=unit, digits=digits, average="mean", missing=LEFT_OUT.format(name), range=range)


PLAIN = Column()
"""What is known of a column that nothing is said of."""
