"""Clean accuracy, of each token's head where a network has two (section 3.2, table 3)."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, ClassVar

import polars as pl

from ipvit.analysis import charts
from ipvit.analysis.aggregate import accuracy_table, varying
from ipvit.experiments.base import Batch, Condition, Experiment, Records, judge
from ipvit.models.model import Model

if TYPE_CHECKING:
    from ipvit.analysis.charts import Figure

OUTPUT = "output"
"""The network's answer, where it has a single one."""
MEAN = "mean"
"""The answer of a network with two heads: the mean of their logits."""


@dataclasses.dataclass(frozen=True)
class AccuracyCondition(Condition):
    """Whose answer counts: ``output``, or one of a distilled network's tokens, or their ``mean``."""

    token: str


class Accuracy(Experiment):
    """Classify images as they are."""

    name: ClassVar[str] = "accuracy"
    version: ClassVar[int] = 1
    title: ClassVar[str] = "Clean accuracy"
    reproduces: ClassVar[str] = "Table 3"
    question: ClassVar[str] = "How accurate is a network on whole images, and each head of one that has two?"
    reads: ClassVar[tuple[str, ...] | None] = ("token", "correct", "correct5")

    def whole_passes(self, model: Model) -> bool:
        """See :class:`Experiment`; the answers of single tokens are read inside the network."""
        return super().whole_passes(model) and "token_heads" not in model.capabilities

    def conditions(self, model: Model) -> Sequence[AccuracyCondition]:
        """Return one answer, or those of the class token, the distillation or shape token and their mean."""
        tokens = [OUTPUT]
        if "token_heads" in model.capabilities:
            tokens = ["class", model.distillation_token, MEAN]
        return [AccuracyCondition(token) for token in tokens]

    def measure(self, model: Model, batch: Batch) -> Iterator[Records]:
        """Classify; a network with two heads runs once for both."""
        by_token = model.logits_by_token(batch.images) if "token_heads" in model.capabilities else None
        for condition in batch.conditions:
            logits = model(batch.images) if by_token is None else by_token[condition.token]
            yield Records(condition, judge(logits, batch.labels))

    def tables(self, records: pl.DataFrame) -> dict[str, pl.DataFrame]:
        """Return top-1 and top-5 accuracy per model, and per token where a model has several."""
        by = ["model", "token"] if varying(records, ["token"]) else ["model"]
        return {"accuracy": accuracy_table(records, by)}

    def comparable(self, records: pl.DataFrame) -> pl.DataFrame:
        """Return each network's own answer: of two heads, their mean."""
        return records.filter(pl.col("token").is_in([OUTPUT, MEAN]))

    def figures(self, tables: dict[str, pl.DataFrame]) -> dict[str, Figure]:
        """Return one row per model and token."""
        table = tables["accuracy"]
        words = [pl.col(name) for name in ("model", "token") if name in table.columns]
        series = pl.concat_str(words, separator=", ").str.strip_suffix(f", {OUTPUT}")
        return {
            "accuracy": charts.dots(
                table.with_columns(series.alias("series")),
                charts.Encoding(x="top1", y="series", series="series", x_title="Top-1 accuracy (%)"),
                title="Clean accuracy",
            )
        }

    def summary(self, tables: dict[str, pl.DataFrame]) -> list[str]:
        """Say how accurate each model is."""
        return [
            f"{row['model']}{_of(row.get('token', OUTPUT))}: {row['top1']:.1f} % top-1 "
            f"[{row['top1_low']:.1f}, {row['top1_high']:.1f}], {row['top5']:.1f} % top-5."
            for row in tables["accuracy"].to_dicts()
        ]


def _of(token: str) -> str:
    return "" if token == OUTPUT else ", mean of both heads" if token == MEAN else f", head of the {token} token"
