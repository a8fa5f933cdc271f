"""Attacks: FGSM, PGD and the universal adversarial patch (section 3.4, figures 12 and 13)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self, cast

from pydantic import Field, field_serializer, field_validator, model_validator

from ipvit.analysis.columns import Column
from ipvit.core.fields import Runs
from ipvit.core.plugins import check_name
from ipvit.experiments.attack.conditions import LEAST_PLAIN, Epsilon, read_epsilons, unit_of
from ipvit.experiments.attack.names import (
    BANDS,
    CELLS,
    EVALUATIONS,
    FGSM,
    NEED_GRADIENTS,
    OURS,
    PATCH,
    PGD,
    VOTE,
    WORST,
)
from ipvit.experiments.base import BindContext, Experiment, Measurement, Requirements
from ipvit.experiments.grids import Grid
from ipvit.perturb.budget import LEVELS, Norm
from ipvit.perturb.choices import Placement, Shape

if TYPE_CHECKING:
    from ipvit.data.dataset import Dataset
    from ipvit.experiments.attack.analysis import AttackAnalysis
    from ipvit.models.model import Model

PAPER_GRID = "14x14"
"""Patches of the paper's transformers."""

Area = Annotated[float, Field(gt=0, le=0.5)]
Factor = Annotated[float, Field(gt=0)]


class Attack(Experiment):
    """Change images, or a part of them, so that a network that was right is wrong."""

    name: ClassVar[str] = "attack"
    version: ClassVar[int] = 1
    title: ClassVar[str] = "Adversarial attacks"
    reproduces: ClassVar[str] = "Figures 12 and 13"
    question: ClassVar[str] = "How little must an attacker who knows the network change to fool it?"

    attacks: tuple[
        Literal[
            "fgsm",
            "pgd",
            "apgd",
            "apgd-dlr",
            "apgd-t",
            "apgd-ce-t",
            "fab-t",
            "square",
            "low-pass",
            "high-pass",
            "autoattack",
            "rand",
            "worst",
            "cells",
            "vote",
            "patch",
        ]
        | str,
        ...,
    ] = ("fgsm", "pgd")
    """fgsm, pgd, apgd (-dlr, targeted -t and -ce-t), fab-t and square change every pixel a little, low-pass and
    high-pass by some frequencies; autoattack is the
    standard ensemble, rand that for networks that draw random numbers, worst the worst of all that ran. cells
    replaces some cells of a grid, chosen in several ways; vote drops patches and lets several looks vote, a defence,
    which is then attacked. patch replaces a part of the image, and must be trained: takes long. Or a FILE.py:FUNCTION
    of your own."""
    epsilons: tuple[Epsilon, ...] = (2.0, 4.0, 8.0)
    """The most that an attack changes. In linf grey levels, 8 or 8/255; below 1 only with the unit: 0.5/255. In l2 and
    l1 of pixels from 0 to 1: 0.5."""
    norm: Norm = "linf"
    """What epsilon limits: linf (the change of each value), l2 or l1 (of the whole image); fgsm and pgd know linf
    alone."""
    apgd_steps: Annotated[int, Field(ge=1)] = 100
    """Gradient steps of apgd, fab-t and the ensembles; autoattack is so called with 100."""
    queries: Annotated[int, Field(ge=1)] = 5000
    """How often square asks a network about an image; autoattack is so called with 5000."""
    cutoff: Annotated[float, Field(gt=0, lt=1)] = 0.25
    """Highest frequency of low-pass, and lowest of high-pass, as a share of the highest there is."""
    targets: Annotated[int, Field(ge=1)] = 9
    """How many of the likeliest wrong answers targeted attacks aim at; autoattack is so called with 9."""
    draws: Annotated[int, Field(ge=1)] = 20
    """Passes that rand averages."""
    cells: tuple[Annotated[int, Field(ge=1)], ...] = (1, 4, 16)
    """How many cells are replaced."""
    cell_steps: Annotated[int, Field(ge=1)] = 20
    """Gradient steps that paint them, each a tenth of the pixel range long."""
    cell_grid: Grid | Literal[""] = ""
    """Rows and columns of the cells of cells and vote; empty: the network's own patches, 14x14 where it has none."""
    vote_share: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """Share of the patches that vote drops for each look."""
    votes: Annotated[int, Field(ge=1)] = 9
    """Looks that vote lets vote about an image."""
    show_to_others: bool = False
    """Also show every network the images that the attacks made on the study's other networks."""
    steps: Annotated[int, Field(ge=1)] = 5
    """Gradient steps of pgd."""
    step_size: Annotated[float, Field(gt=0, le=2)] = 0.5
    """Length of a step of pgd as a share of epsilon."""
    restarts: Annotated[int, Field(ge=1)] = 1
    """How often pgd starts anew on images that are still right."""
    random_start: bool = True
    """Start pgd at a random place within epsilon, not at the image."""
    patch_areas: tuple[Area, ...] = (0.05, 0.15, 0.25)
    """Shares of the image that the patch covers."""
    patch_shape: Shape = "circle"
    """circle (any rotation) or square (quarter turns)."""
    patch_placements: tuple[Placement, ...] = ("free",)
    """Where: free (anywhere), grid (squares on whole cells of the patch grid), off_grid (half a cell off it)."""
    patch_grid: Grid | Literal[""] = ""
    """Rows and columns of that grid; empty: the network's own patches, 14x14 where it has none."""
    patch_scale: tuple[Factor, Factor] = (1.0, 1.0)
    """Smallest and largest random factor on the patch's height and width."""
    patch_target: str = ""
    """The class (name or number) that the patch should show; empty: any wrong one."""
    patch_data: str = ""
    """Images to train the patch on; empty: a part of the data, which is then left out of the patch's results."""
    patch_images: Annotated[int, Field(ge=1)] = 2000
    """Images to train on, at most half of the data where they are a part of it."""
    patch_steps: Annotated[int, Field(ge=1)] = 1250
    """Gradient steps of a patch's training."""
    patch_batch: Annotated[int, Field(ge=1)] = 32
    """Images per step."""
    patch_rate: Annotated[float, Field(gt=0)] = 0.05
    """Step size (Adam, falling to zero)."""
    patch_files: tuple[str, ...] = ()
    """Use these saved patches (.png) instead of training."""
    transfer: bool = True
    """Also attack every network with the patches of the study's other networks."""
    runs: Runs = 5
    """Patches per network and size, each from another start."""

    @model_validator(mode="before")
    @classmethod
    def _in_units(cls, given: object) -> object:
        if not isinstance(given, dict):
            return given
        values = cast("dict[str, object]", given)
        norm = values.get("norm", "linf")
        if "epsilons" in values:
            return values | {"epsilons": read_epsilons(values["epsilons"], norm)}
        if norm in ("l2", "l1"):
            raise ValueError(f"epsilons must be given in {norm}, of pixels from 0 to 1, for example 0.5")
        return values

    @field_serializer("epsilons", when_used="json")
    def _as_read(self, epsilons: tuple[float, ...]) -> list[float | str]:
        """Write what a study file would be refused for with its unit."""
        least = LEAST_PLAIN if self.norm == "linf" else 0
        return [value if value >= least else f"{value!r}/{LEVELS}" for value in epsilons]

    @field_validator("attacks", "epsilons", "cells", "patch_areas", "patch_placements", "patch_files")
    @classmethod
    def _once(cls, value: tuple[object, ...], info: Any) -> tuple[object, ...]:
        if not value and info.field_name != "patch_files":
            raise ValueError("at least one is needed")
        return tuple(dict.fromkeys(value))

    @field_validator("attacks")
    @classmethod
    def _known(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            check_name("attack", name, OURS)
        if WORST in value and not set(value) - {WORST, PATCH, CELLS, VOTE}:
            raise ValueError(f"{WORST} is the worst of attacks within a budget: name some beside it")
        return value

    @model_validator(mode="after")
    def _linf_only(self) -> Self:
        if self.norm == "linf" and max(self.epsilons) > LEVELS:
            raise ValueError(f"epsilons must be 255 or less in linf, not {max(self.epsilons):g}")
        bands = [name for name in BANDS if name in self.attacks]
        if bands and self.norm == "l1":
            raise ValueError(
                f"{bands[0]} is limited in linf or l2, not in l1; leave it out of attacks, or choose a norm"
            )
        wrong = [name for name in (FGSM, PGD) if name in self.attacks and self.norm != "linf"]
        if wrong:
            raise ValueError(f"{wrong[0]} is limited in linf, not in {self.norm}; leave it out of attacks, or norm")
        return self

    @property
    def own_attacks(self) -> list[str]:
        """The attacks that are functions of the user's own."""
        return [name for name in self.attacks if name not in OURS]

    @property
    def evaluations(self) -> list[str]:
        """The attacks of AutoAttack's kind."""
        return [name for name in EVALUATIONS if name in self.attacks]

    @property
    def requirements(self) -> Requirements:
        """Logits, and gradients with respect to the images; these are optional where an attack goes without."""
        attention = frozenset({"attention"}) if CELLS in self.attacks else frozenset[str]()
        if all(name in NEED_GRADIENTS or name == WORST for name in self.attacks):
            return Requirements(frozenset({"logits", "gradients"}), optional=attention)
        gradients = frozenset({"gradients"})
        return Requirements(optional=gradients | attention, dispensable=gradients | attention)

    def bind(self, models: Sequence[Model], data: Dataset, context: BindContext) -> Measurement:
        """Check that patches fit the networks, and that images are left to measure them on."""
        from ipvit.experiments.attack.measurement import AttackMeasurement

        return AttackMeasurement(self, models, data, context)

    def analysis(self) -> AttackAnalysis:
        """Return curves over the budget and over the size of the patch."""
        from ipvit.experiments.attack.analysis import AttackAnalysis

        title = f"epsilon ({unit_of(self.norm)})" if self.norm == "linf" else f"epsilon ({self.norm}, pixels 0 to 1)"
        return AttackAnalysis.of(
            self,
            {"epsilon": Column(title=title, level=True)},
            patches=PATCH in self.attacks,
            worst=WORST in self.attacks,
        )
