"""Similarity of the class token and the shape token (section 3.2)."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, ClassVar

from ipvit.experiments.base import Batch, Condition, Experiment, Records, Requirements

if TYPE_CHECKING:
    from ipvit.experiments.token_similarity.analysis import TokenSimilarityAnalysis
    from ipvit.models.model import Model


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
    question: ClassVar[str] = "Do the two tokens of a distilled network hold the same, or something of their own?"

    norm: bool = True
    """Read the tokens after the final normalisation, as the heads do (the paper does not say)."""

    @property
    def requirements(self) -> Requirements:
        """A network with two tokens and two heads."""
        return Requirements(frozenset({"tokens", "token_heads"}), labels=False)

    def conditions(self, model: Model) -> Sequence[TokenSimilarityCondition]:
        """Return the one pair of tokens."""
        return [TokenSimilarityCondition(f"class, {model.distillation_token}", self.norm)]

    def measure(self, model: Model, batch: Batch) -> Iterator[Records]:
        """Return the cosine of the angle between the two tokens of every image."""
        from ipvit.metrics.correlation import cosine

        last = model.adapter.n_blocks - 1
        tokens = model.tokens(batch.images, [last], norm=self.norm)[last]
        similarity = cosine(tokens.vector("class"), tokens.vector(model.distillation_token))
        for condition in batch.conditions:
            yield Records(condition, {"cosine": similarity})

    def analysis(self) -> TokenSimilarityAnalysis:
        """Return the mean cosine per model."""
        from ipvit.experiments.token_similarity.analysis import TokenSimilarityAnalysis

        return TokenSimilarityAnalysis.of(self)
