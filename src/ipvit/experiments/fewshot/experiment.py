"""Few-shot learning on off-the-shelf tokens (section 3.5, figure 16)."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field, field_validator

from ipvit.core.preprocessing import View
from ipvit.data.episodes import META_DATASET, rules
from ipvit.experiments.base import BindContext, Condition, Experiment, Measurement, Requirements
from ipvit.experiments.fields import Several
from ipvit.features import StoredType
from ipvit.features.episode_classifiers import Classifier

if TYPE_CHECKING:
    from ipvit.data.dataset import Dataset
    from ipvit.experiments.fewshot.analysis import FewShotAnalysis
    from ipvit.models.model import Model


@dataclasses.dataclass(frozen=True)
class FewShotCondition(Condition):
    """One kind of episode, one classifier, one choice of tokens.

    Attributes:
        kind: ``meta-dataset``, or for example ``5-way-1-shot``.
        class_queries: queries of each class; 0 where the rules decide.
        classifier: ``logistic``, ``centroid`` or ``ridge``.
        weight: C of the logistic regression, or penalty of the ridge regression; 0 for centroids.
        blocks: so many of the last blocks, side by side.
        patches: with the mean patch token of the last block beside them.
        stored: how the features were stored.
    """

    kind: str
    class_queries: int
    classifier: str
    weight: float
    blocks: int
    patches: bool
    stored: str


class FewShot(Experiment):
    """Learn classes from a handful of feature vectors each, in hundreds of small tasks."""

    name: ClassVar[str] = "fewshot"
    version: ClassVar[int] = 1
    title: ClassVar[str] = "Few-shot learning"
    reproduces: ClassVar[str] = "Figure 16, right"
    question: ClassVar[str] = "How well do the tokens tell new classes apart after a few examples of each?"

    episodes: Several[str] = (META_DATASET, "5-way-1-shot", "5-way-5-shot")
    """Kinds of episodes: meta-dataset (its rules for ways and shots), or N-way-K-shot."""
    count: Annotated[int, Field(ge=2, le=1_000_000)] = 600
    """Episodes of each kind."""
    queries: Annotated[int, Field(ge=1)] = 15
    """Images of each class to be classified in an N-way-K-shot episode."""
    classifiers: Several[Classifier] = ("logistic", "centroid", "ridge")
    """What is fitted on an episode's support images; the paper: logistic regression."""
    blocks: Several[Annotated[int, Field(ge=1)]] = (1, 4)
    """How many of the last blocks (or stages) lend their token; the paper's ensemble: 4."""
    patches: bool = False
    """Put the mean patch token of the last block beside them, for networks with a class token."""
    strength: Annotated[float, Field(gt=0)] = 1.0
    """C of the logistic regression."""
    penalty: Annotated[float, Field(gt=0)] = 1.0
    """Penalty of the ridge regression."""
    only: tuple[str, ...] = ()
    """Draw from these classes only; meta-dataset: those of the published set that its test episodes are drawn from."""
    features: StoredType = "fp32"
    """Type of the stored features: fp32 or fp16."""
    store: str | None = None
    """Folder of the feature store, which several runs may share; by default in the run folder."""

    @field_validator("episodes")
    @classmethod
    def _known(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for kind in value:
            rules(kind)
        return value

    @property
    def requirements(self) -> Requirements:
        """Tokens; the classes of the data need not be the model's."""
        return Requirements(frozenset({"tokens"}), labels=False)

    def view(self, model: Model) -> View:
        """Return a single pixel: what is measured are episodes; the images are read when features are prepared."""
        return View((1, 1), 1.0)

    def bind(self, models: Sequence[Model], data: Dataset, context: BindContext) -> Measurement:
        """Return what draws episodes from the images and answers them."""
        from ipvit.experiments.fewshot.measurement import FewShotMeasurement

        return FewShotMeasurement(self)

    def analysis(self) -> FewShotAnalysis:
        """Return mean accuracies over episodes."""
        from ipvit.experiments.fewshot.analysis import FewShotAnalysis

        return FewShotAnalysis.of(self)
