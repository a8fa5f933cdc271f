"""Attacks: FGSM, PGD and the universal adversarial patch (section 3.4, figures 12 and 13)."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self, cast

from pydantic import BeforeValidator, Field, field_serializer, field_validator, model_validator

from ipvit.core.fields import Runs
from ipvit.core.plugins import check_name
from ipvit.experiments.base import BindContext, Condition, Experiment, Measurement, Requirements
from ipvit.experiments.grids import Grid
from ipvit.perturb.budget import LEVELS, Norm
from ipvit.perturb.choices import Placement, Shape

if TYPE_CHECKING:
    from ipvit.data.dataset import Dataset
    from ipvit.experiments.attack.analysis import AttackAnalysis
    from ipvit.models.model import Model

CLEAN, FGSM, PGD, PATCH, NOISE = "clean", "fgsm", "pgd", "patch", "noise"
"""What is done to the images; ``noise`` is the control of the patch: as large, at the same places, untrained."""

RANDOM = "random"
"""Random noise that uses up the budget: the control of attacks of the user's own."""

OURS = (FGSM, PGD, PATCH)
"""Attacks that are there."""

PAPER_GRID = "14x14"
"""Patches of the paper's transformers."""

OWN = "own"
"""The network that a patch was trained on is the one that is attacked."""

_LEAST_PLAIN = {"linf": 1, "l2": 32, "l1": 1000}
"""Plain numbers below it are as likely shares of the pixel range, as papers write them, as grey levels: 0.5 and 3 in
l2, 12 and 255 in l1 (Croce and Hein 2021)."""


def _grey_levels(value: object) -> object:
    """Read an epsilon: ``8`` grey levels, also written ``8/255``.

    Raises:
        ValueError: it is another fraction.
    """
    if isinstance(value, str) and "/" in value:
        levels, _, whole = (part.strip() for part in value.partition("/"))
        if whole not in (str(LEVELS), f"{LEVELS}.0"):
            raise ValueError(f"must be a number of grey levels, 8 or 8/{LEVELS}, not {value!r}")
        return levels
    return value


def _refuse_ambiguous(values: object, norm: object) -> None:
    """Refuse plain epsilons that may as well be shares of the pixel range.

    Raises:
        ValueError: names the first of them and both readings.
    """
    least = _LEAST_PLAIN.get(str(norm), 0)
    for value in cast("Sequence[object]", values) if isinstance(values, tuple | list) else (values,):
        try:
            number = float(value)  # pyright: ignore[reportArgumentType] - a fraction, or what pydantic refuses
        except (TypeError, ValueError):
            continue
        if 0 < number < least:
            other = "that share of" if number < 1 else f"{number:.6g} times"
            raise ValueError(
                f"epsilons must be given in grey levels, and {value} may mean {number:.6g} of them or {other} the "
                f"pixel range: write {number:.6g}/{LEVELS} or {number * LEVELS:.6g}/{LEVELS}"
            )


Epsilon = Annotated[float, BeforeValidator(_grey_levels), Field(gt=0, allow_inf_nan=False)]
Area = Annotated[float, Field(gt=0, le=0.5)]
Factor = Annotated[float, Field(gt=0)]


@dataclasses.dataclass(frozen=True)
class AttackCondition(Condition):
    """One attack; what does not concern it is 0 or empty.

    ``source`` says which network a patch was trained on (``own``, or 16 digits of its digest), ``training`` what else
    it depends on.
    """

    attack: str
    epsilon: float = 0.0
    steps: int = 0
    step_size: float = 0.0
    restarts: int = 0
    random_start: bool = False
    area: float = 0.0
    shape: str = ""
    placement: str = ""
    grid: str = ""
    scale: str = ""
    target: str = ""
    source: str = ""
    training: str = ""
    run: int = 0


@dataclasses.dataclass(frozen=True)
class BudgetCondition(AttackCondition):
    """An attack of the user's own, or its control, within a budget: epsilon in a norm."""

    norm: Norm = "linf"


PIXEL_SETTINGS = ("steps", "step_size", "restarts", "random_start")
PATCH_SETTINGS = ("shape", "placement", "grid", "scale", "target")
"""Columns of the records that are no axis of a chart: of attacks on every pixel, and of patches."""


class Attack(Experiment):
    """Change images, or a part of them, so that a network that was right is wrong."""

    name: ClassVar[str] = "attack"
    version: ClassVar[int] = 1
    title: ClassVar[str] = "Adversarial attacks"
    reproduces: ClassVar[str] = "Figures 12 and 13"
    question: ClassVar[str] = "How little must an attacker who knows the network change to fool it?"

    attacks: tuple[Literal["fgsm", "pgd", "patch"] | str, ...] = ("fgsm", "pgd")
    """fgsm and pgd change every pixel a little; patch replaces a part of the image, and must be trained: takes long.
    Or a FILE.py:FUNCTION of your own."""
    epsilons: tuple[Epsilon, ...] = (2.0, 4.0, 8.0)
    """The most that fgsm, pgd and attacks of your own change a pixel, in grey levels: 8, or 8/255. Below 1 only
    with the unit: 0.5/255 (in l2 below 32, in l1 below 1000)."""
    norm: Norm = "linf"
    """What epsilon limits in attacks of your own: linf (the change of each pixel), l2 or l1 (of the whole image)."""
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
    def _one_reading(cls, given: object) -> object:
        if isinstance(given, dict):
            values = cast("dict[str, object]", given)
            _refuse_ambiguous(values.get("epsilons", ()), values.get("norm", "linf"))
        return cast(object, given)

    @field_serializer("epsilons", when_used="json")
    def _as_read(self, epsilons: tuple[float, ...]) -> list[float | str]:
        """Write what a study file would be refused for with its unit."""
        least = _LEAST_PLAIN[self.norm]
        return [value if value >= least else f"{value!r}/{LEVELS}" for value in epsilons]

    @field_validator("attacks", "epsilons", "patch_areas", "patch_placements", "patch_files")
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
        return value

    @model_validator(mode="after")
    def _linf_only(self) -> Self:
        if self.norm == "linf" and max(self.epsilons) > LEVELS:
            raise ValueError(f"epsilons must be 255 or less in linf, not {max(self.epsilons):g}")
        wrong = [name for name in (FGSM, PGD) if name in self.attacks and self.norm != "linf"]
        if wrong:
            raise ValueError(f"{wrong[0]} is limited in linf, not in {self.norm}; leave it out of attacks, or norm")
        return self

    @property
    def own_attacks(self) -> list[str]:
        """The attacks that are functions of the user's own."""
        return [name for name in self.attacks if name not in OURS]

    @property
    def requirements(self) -> Requirements:
        """Logits, and gradients with respect to the images."""
        return Requirements(frozenset({"logits", "gradients"}))

    def bind(self, models: Sequence[Model], data: Dataset, context: BindContext) -> Measurement:
        """Check that patches fit the networks, and that images are left to measure them on."""
        from ipvit.experiments.attack.measurement import AttackMeasurement

        return AttackMeasurement(self, models, data, context)

    def analysis(self) -> AttackAnalysis:
        """Return curves over the budget and over the size of the patch."""
        from ipvit.experiments.attack.analysis import AttackAnalysis

        return AttackAnalysis.of(self, patches=PATCH in self.attacks)
