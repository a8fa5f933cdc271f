"""What a study is made of."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection

from ipvit.experiments.base import Experiment
from ipvit.models.model import Model


@dataclasses.dataclass(frozen=True)
class Selected:
    """An experiment of a study, and which of the study's models it is for.

    Attributes:
        experiment: with its parameters.
        models: labels or names; None for all models.
    """

    experiment: Experiment
    models: Collection[str] | None = None

    def concerns(self, model: Model) -> bool:
        """Tell whether a model of the study is to be measured."""
        names = {model.name} if model.origin is None else {model.name, model.origin[0]}
        return self.models is None or not names.isdisjoint(self.models)
