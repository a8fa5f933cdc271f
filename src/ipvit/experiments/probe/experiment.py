"""Off-the-shelf tokens: linear heads on the tokens of any blocks (section 3.5, figure 15, table 5)."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from ipvit.core.preprocessing import View
from ipvit.experiments.base import BindContext, Condition, Experiment, Measurement, Requirements
from ipvit.experiments.fields import DataSource, Several, data_name
from ipvit.features import StoredType

if TYPE_CHECKING:
    from ipvit.data.dataset import Dataset
    from ipvit.experiments.probe.analysis import ProbeAnalysis
    from ipvit.models.model import Model

OWN = "own"
"""Kind of the head that the network came with."""

PENALTIES = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)

FITTED_FIELDS = (
    "heads",
    "penalties",
    "learning_rates",
    "weight_decays",
    "epochs",
    "batch",
    "validation",
    "val",
    "refit",
)
"""What the authors' recipe leaves no choice of."""

TRAIN_FIELDS = ("val", "train_limit", *(name for name in FITTED_FIELDS if name not in ("heads", "val")))
"""What says how heads are fitted."""


@dataclasses.dataclass(frozen=True)
class ProbeCondition(Condition):
    """One head on the tokens of some blocks.

    Attributes:
        head: ``own``, ``lbfgs``, ``sgd`` or ``adamw``.
        tokens: see :class:`~ipvit.experiments.probe.fit.FeatureSet`.
        blocks: ``5`` or ``8-11``, from 0.
        block: the last of them.
        n_blocks: how many.
        norm: after the network's last normalisation.
        fit: digest of what determines the head beside network, seed and precision; empty for the network's own.
    """

    head: str
    tokens: str
    blocks: str
    block: int
    n_blocks: int
    norm: bool
    fit: str


class Probe(Experiment):
    """Read the tokens of single blocks and of several together through linear heads."""

    name: ClassVar[str] = "probe"
    version: ClassVar[int] = 1
    title: ClassVar[str] = "Linear probes of the tokens"
    reproduces: ClassVar[str] = "Figure 15 and Table 5"
    question: ClassVar[str] = "What do the tokens of each block know, and do several blocks together know more?"

    train: DataSource = ""
    """Data the heads are fitted on; without it, only the network's own head is put on every block (figure 15)."""
    val: DataSource = ""
    """Data that choose the hyper-parameters; by default the published split of the set, else a share of train."""
    train_root: str | None = None
    """Where timm's data sets for train and val lie; by default where the study's do."""
    train_split: str = "train"
    """Split of train, where its name does not say."""
    train_limit: Annotated[int, Field(ge=2)] | None = None
    """Use so many training images, the same ones every time."""
    validation: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """Share of every class of train that chooses the hyper-parameters, where there are no validation data."""
    blocks: tuple[int, ...] = ()
    """Blocks or stages that are read alone, from 0; by default every one."""
    last: tuple[Annotated[str, BeforeValidator(str), Field(pattern=r"^([1-9]\d*|all)$")], ...] = ("4", "all")
    """So many of the last blocks are read together; all for every block. The last block alone is always read."""
    tokens: Several[Literal["class", "shape", "patch", "class+patch", "class+shape"]] = ("class", "class+patch")
    """class token, shape token (of the networks that have one; or distillation token), mean of the patch tokens, or two
    of them; networks without class token have pooled features only."""
    heads: Several[Literal["own", "lbfgs", "sgd", "adamw"]] = ("own", "lbfgs")
    """own: the network's own head on every block's token; others are fitted: logistic regression by L-BFGS, steps."""
    penalties: Several[Annotated[float, Field(gt=0)]] = PENALTIES
    """lbfgs: weights of the squared norm to choose from."""
    learning_rates: tuple[Annotated[float, Field(gt=0)], ...] = ()
    """sgd, adamw: to choose from; by default 0.01 to 1, and 0.0001 to 0.01."""
    weight_decays: tuple[Annotated[float, Field(ge=0)], ...] = ()
    """sgd, adamw: to choose from; by default 0 and 0.0001, 0 and 0.05."""
    epochs: Annotated[int, Field(ge=1)] = 30
    """sgd, adamw: passes over the training images."""
    batch: Annotated[int, Field(ge=1)] = 256
    """sgd, adamw: images a step."""
    refit: bool = True
    """Fit once more on training and validation images together with what was chosen."""
    norm: bool = True
    """Read tokens after the network's final normalisation, as the authors' code does for every block."""
    features: StoredType = "fp32"
    """Type of the stored features: fp32 or fp16."""
    store: str | None = None
    """Folder of the feature store, which several runs may share; by default in the run folder."""
    protocol: Literal["ours", "authors"] = "ours"
    """authors: AdamW, one learning rate, 10 epochs, nothing chosen, whole pictures squashed to the input's size."""

    @field_validator("last")
    @classmethod
    def _once(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(dict.fromkeys(value))

    @model_validator(mode="after")
    def _one_recipe(self) -> Probe:
        if self.protocol == "authors" and (fixed := self._changed(FITTED_FIELDS)):
            raise ValueError(f"protocol authors leaves no choice of {', '.join(fixed)}")
        return self

    @model_validator(mode="after")
    def _something_to_fit_on(self) -> Probe:
        if not self.train and (idle := self._changed(TRAIN_FIELDS)):
            raise ValueError(f"without train no head is fitted, and {', '.join(idle)} would have no effect")
        return self

    def _changed(self, names: Sequence[str]) -> list[str]:
        """Return which of the fields have another value than by default."""
        return [name for name in names if getattr(self, name) != type(self).model_fields[name].default]

    @property
    def requirements(self) -> Requirements:
        """Tokens, and labels in the classes of the training data."""
        return Requirements(frozenset({"tokens"}))

    def view(self, model: Model) -> View:
        """Return the model's own view; the authors squash the whole picture to the input's size."""
        own = model.preprocessing.view
        return View(own.size, 1.0, "bilinear", "squash") if self.protocol == "authors" else own

    def bind(self, models: Sequence[Model], data: Dataset, context: BindContext) -> Measurement:
        """Open the training and validation data, and check that every model has something to measure on them."""
        from ipvit.experiments.probe.measurement import ProbeMeasurement

        return ProbeMeasurement(self, models, data, context)

    def analysis(self) -> ProbeAnalysis:
        """Return accuracies by block and head, and what several blocks gain together."""
        from ipvit.experiments.probe.analysis import ProbeAnalysis

        return ProbeAnalysis.of(self, train=data_name(self.train))
