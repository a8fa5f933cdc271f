"""One setting of the experiment, and how far it lets images be moved, in which unit. Nothing here needs torch."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Annotated, cast

from pydantic import Field

from ipvit.experiments.base import Condition
from ipvit.perturb.budget import LEVELS, Budget, Norm

GREY_LEVELS, RANGE = "255ths", "0 to 1"
"""Units of epsilon: in linf grey levels, in l2 and l1 the pixel range."""

LEAST_PLAIN = 1
"""In linf a plain number below it is as likely a share of the pixel range, as papers write it, as grey levels."""


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


@dataclasses.dataclass(frozen=True)
class EvaluationCondition(BudgetCondition):
    """An attack of AutoAttack's kind, or any within l2 or l1; what does not concern it is 0.

    ``unit`` is that of epsilon; records without it are of attacks of the user's own, in 255ths whatever the norm.
    """

    unit: str = GREY_LEVELS
    queries: int = 0
    targets: int = 0
    draws: int = 0


@dataclasses.dataclass(frozen=True)
class BandCondition(EvaluationCondition):
    """An attack with perturbations of some frequencies."""

    cutoff: float = 0.0


@dataclasses.dataclass(frozen=True)
class CellCondition(AttackCondition):
    """Some cells of a grid are replaced; ``choice`` says how they are chosen and painted."""

    choice: str = ""
    cells: int = 0


@dataclasses.dataclass(frozen=True)
class VoteCondition(EvaluationCondition):
    """PatchDrop as a defence: ``shown`` says what an image is made against, ``answered_by`` what is asked about it.

    ``share`` of the patches is dropped in each of ``votes`` looks.
    """

    shown: str = ""
    answered_by: str = ""
    share: float = 0.0
    votes: int = 0


def unit_of(norm: Norm) -> str:
    """Return the unit in which epsilons are given in a norm."""
    return GREY_LEVELS if norm == "linf" else RANGE


def budget_of(condition: AttackCondition) -> Budget:
    """Return how far a condition lets images be moved."""
    norm = condition.norm if isinstance(condition, BudgetCondition) else "linf"
    in_range = isinstance(condition, EvaluationCondition) and condition.unit == RANGE
    return Budget(norm, condition.epsilon if in_range else condition.epsilon / LEVELS)


def size_in_words(epsilon: float, norm: str | None, unit: str | None) -> str:
    """Return a budget as it is written: ``8/255``, or ``0.5 in l2``."""
    size = f"{epsilon:g}" if unit == RANGE else f"{epsilon:g}/{LEVELS}"
    return size if norm in (None, "", "linf") else f"{size} in {norm}"


def read_epsilons(values: object, norm: object) -> object:
    """Read epsilons as they are given: in linf grey levels, ``8`` or ``8/255``; in l2 and l1 of images in [0, 1].

    Raises:
        ValueError: one is another fraction, or a plain number that may mean two things.
    """
    several = isinstance(values, tuple | list)
    found = [_read(value, str(norm)) for value in (cast("Sequence[object]", values) if several else (values,))]
    return tuple(found) if several else found[0]


def _read(value: object, norm: str) -> object:
    if isinstance(value, str) and "/" in value:
        levels, _, whole = (part.strip() for part in value.partition("/"))
        if whole not in (str(LEVELS), f"{LEVELS}.0"):
            raise ValueError(f"epsilons must be numbers of grey levels, 8 or 8/{LEVELS}, not {value!r}")
        number = _number(levels)
        return levels if norm == "linf" or number is None else number / LEVELS
    number = _number(value)
    if norm == "linf" and number is not None and 0 < number < LEAST_PLAIN:
        raise ValueError(
            f"epsilons must be given in grey levels, and {value} may mean {number:.6g} of them or that share of the "
            f"pixel range: write {number:.6g}/{LEVELS} or {number * LEVELS:.6g}/{LEVELS}"
        )
    return value


def _number(value: object) -> float | None:
    """Return a number; None for what pydantic refuses."""
    try:
        return float(value)  # pyright: ignore[reportArgumentType]
    except (TypeError, ValueError):
        return None


Epsilon = Annotated[float, Field(gt=0, allow_inf_nan=False)]
