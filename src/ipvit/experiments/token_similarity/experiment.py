"""Similarity of the class token and the shape token (section 3.2)."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, ClassVar

import polars as pl

from ipvit.analysis import charts
from ipvit.analysis.aggregate import mean_table, varying
from ipvit.experiments.base import Batch, Condition, Experiment, Records, Requirements
from ipvit.metrics.correlation import cosine
from ipvit.models.model import Model

if TYPE_CHECKING:
    from ipvit.analysis.charts import Figure


@dataclasses.dataclass(frozen=True)
class TokenSimilarityCondition(Condition):
    """Which two tokens of the last block, and whether after the final normalisation."""

    tokens: str
    norm: bool


class TokenSimilarity(Experiment):
    """Compare the two tokens of a distilled network, image by image."""

    name: ClassVar[str] = "token-similarity"
    version: ClassVar[int] = 1
    title: ClassVar[str] = "Similarity of class and shape token"
    reproduces: ClassVar[str] = "Section 3.2"
    measures: ClassVar[tuple[str, ...]] = ("cosine",)
    question: ClassVar[str] = "Do the two tokens of a distilled network hold the same, or something of their own?"
    compare: ClassVar[str] = "cosine"
    compare_by: ClassVar[tuple[str, ...]] = ("norm",)

    norm: bool = True
    """Read the tokens after the final normalisation, as the heads do (the paper does not say)."""

    @property
    def needs(self) -> Requirements:
        """A network with two tokens and two heads."""
        return Requirements(frozenset({"tokens", "token_heads"}), labels=False)

    def conditions(self, model: Model) -> Sequence[TokenSimilarityCondition]:
        """Return the one pair of tokens."""
        return [TokenSimilarityCondition(f"class, {model.distillation_token}", self.norm)]

    def measure(self, model: Model, batch: Batch) -> Iterator[Records]:
        """Return the cosine of the angle between the two tokens of every image."""
        last = model.adapter.n_blocks - 1
        tokens = model.tokens(batch.images, [last], norm=self.norm)[last]
        similarity = cosine(tokens.vector("class"), tokens.vector(model.distillation_token))
        for condition in batch.conditions:
            yield Records(condition, {"cosine": similarity})

    def tables(self, records: pl.DataFrame) -> dict[str, pl.DataFrame]:
        """Return mean and spread per model."""
        by = ["model", "tokens", *varying(records, ["norm"])]
        return {"token-similarity": mean_table(records, by, ["cosine"])}

    def figures(self, tables: dict[str, pl.DataFrame]) -> dict[str, Figure]:
        """Return one row per model."""
        return {
            "token-similarity": charts.dots(
                tables["token-similarity"],
                charts.Encoding(
                    x="cosine", y="model", x_title="Cosine of class and shape (or distillation) token", x_format=".2f"
                ),
                title="How alike the two tokens are",
            )
        }

    def summary(self, tables: dict[str, pl.DataFrame]) -> list[str]:
        """Say how alike the tokens of each model are."""
        return [
            f"{row['model']}: the tokens ({row['tokens']}) have a mean cosine of {row['cosine']:.2f} over "
            f"{row['n_images']:,} images."
            for row in tables["token-similarity"].to_dicts()
        ]
