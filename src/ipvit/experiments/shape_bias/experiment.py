"""Shape bias on cue-conflict images (section 3.2, figure 6, table 3)."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

from ipvit.errors import InputError
from ipvit.experiments.base import BindContext, Condition, Experiment, Measurement, Requirements

if TYPE_CHECKING:
    from ipvit.core.preprocessing import View
    from ipvit.data.dataset import Dataset
    from ipvit.experiments.shape_bias.analysis import ShapeBiasAnalysis
    from ipvit.models.model import Model

Ties = Literal["first", "last"]


@dataclasses.dataclass(frozen=True)
class ShapeBiasCondition(Condition):
    """One answer of the network; ``output`` is its only one, ``mean`` the mean of a distilled network's two."""

    token: str
    ties: str


class ShapeBias(Experiment):
    """Show shapes in the texture of something else and count which of the two decides."""

    name: ClassVar[str] = "shape-bias"
    version: ClassVar[int] = 1
    title: ClassVar[str] = "Shape bias"
    reproduces: ClassVar[str] = "Figure 6 and Table 3"
    question: ClassVar[str] = "When shape and texture disagree, which of the two does a network go by?"
    own_answers: ClassVar[bool] = True
    only_categories: ClassVar[bool] = True

    ties: Ties = "first"
    """Of equally probable categories, take the first in the alphabet (texture-vs-shape) or the last
    (model-vs-human)."""
    stimuli: str | None = None
    """Cue-conflict images beside those of the study, for example ``cue-conflict:PATH``; by default the study's own
    images are the stimuli."""

    @property
    def requirements(self) -> Requirements:
        """Logits, of each token where there are several, and the shape and texture of every image."""
        return Requirements(optional=frozenset({"token_heads"}), labels=False, fields=("shape", "texture"))

    def view(self, model: Model) -> View:
        """Return the whole picture scaled to the model's input: the benchmark's 224 pixels are neither cut nor scaled.

        Networks with another input size get the whole picture, scaled.
        """
        return dataclasses.replace(model.preprocessing.view, crop_pct=1.0, crop_mode="squash")

    def bind(self, models: Sequence[Model], data: Dataset, context: BindContext) -> Measurement:
        """Open the stimuli where they are not the study's images, and check that every model knows their categories."""
        from ipvit.experiments.shape_bias.measurement import ShapeBiasMeasurement, categories_of

        stimuli = None if self.stimuli is None else context.open_data(self.stimuli)
        shown = data if stimuli is None else stimuli
        if shown.fields.keys() >= set(self.requirements.fields):  # else the lack of these is what to tell of
            for model in models:
                categories_of(model, shown.classes, shown.aliases)
            shapes, textures = (shown.fields[cue] for cue in ("shape", "texture"))
            if len(shapes) and (shapes == textures).all():
                instead = f"{shown.name}/cue-conflict" if shown.name == "demo:trifeature" else "cue-conflict:PATH"
                raise InputError(
                    f"shape-bias: shape and texture agree on all images of {shown.name}, so none says which of them "
                    f"decides; give images where they disagree, for example {instead}"
                )
        return ShapeBiasMeasurement(self.ties, stimuli, shown.aliases)

    def analysis(self) -> ShapeBiasAnalysis:
        """Return the shape bias over all images and per category."""
        from ipvit.experiments.shape_bias.analysis import ShapeBiasAnalysis

        return ShapeBiasAnalysis.of(self)
