"""Clean accuracy, of each token's head where a network has two (section 3.2, table 3)."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, ClassVar

from ipvit.experiments.base import Batch, Condition, Experiment, Records, Requirements

if TYPE_CHECKING:
    from ipvit.experiments.accuracy.analysis import AccuracyAnalysis
    from ipvit.models.model import Model

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

    @property
    def requirements(self) -> Requirements:
        """Logits, of each token where there are several."""
        return Requirements(optional=frozenset({"token_heads"}))

    def conditions(self, model: Model) -> Sequence[AccuracyCondition]:
        """Return one answer, or those of the class token, the distillation or shape token and their mean."""
        tokens = [OUTPUT]
        if model.can("token_heads"):
            tokens = ["class", model.distillation_token, MEAN]
        return [AccuracyCondition(token) for token in tokens]

    def measure(self, model: Model, batch: Batch) -> Iterator[Records]:
        """Classify; a network with two heads runs once for both."""
        from ipvit.experiments.scoring import score_logits

        by_token = model.logits_by_token(batch.images) if model.can("token_heads") else None
        for condition in batch.conditions:
            logits = model(batch.images) if by_token is None else by_token[condition.token]
            yield Records(condition, score_logits(logits, batch.labels, clean=True))

    def analysis(self) -> AccuracyAnalysis:
        """Return accuracies per model and token."""
        from ipvit.experiments.accuracy.analysis import AccuracyAnalysis

        return AccuracyAnalysis.of(self)
