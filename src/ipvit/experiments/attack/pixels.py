"""Attacks within a budget, in one run: their conditions, and what is made of a batch."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ipvit.core.plugins import own_function
from ipvit.experiments.attack.checks import checked
from ipvit.experiments.attack.conditions import (
    AttackCondition,
    BudgetCondition,
    EvaluationCondition,
    budget_of,
    unit_of,
)
from ipvit.experiments.attack.ensembles import (
    attack_with,
    can_be_attacked,
    evaluation_conditions,
    notes_on_evaluations,
)
from ipvit.experiments.attack.experiment import Attack
from ipvit.experiments.attack.names import CHECK, CLEAN, FGSM, PGD, RANDOM
from ipvit.experiments.base import Batch, Records
from ipvit.experiments.returned import check_pixels, into_budget, returned_images
from ipvit.experiments.scoring import score_logits
from ipvit.models.model import Model
from ipvit.perturb.attack import Attacked, Clean, Network, clean_pass, fgsm, pgd, random_starts, run_attack
from ipvit.perturb.budget import Budget
from ipvit.perturb.distance import random_noise
from ipvit.perturb.seeding import keys

if TYPE_CHECKING:
    from ipvit.core.plugins import OwnFunction


Keep = Callable[[Model, Batch, AttackCondition, Attacked], None]


class PixelAttacks:
    """The attacks of an experiment that change every pixel.

    Args:
        experiment: its parameters.

    Raises:
        InputError: an attack of the user's own is not there.
    """

    def __init__(self, experiment: Attack) -> None:
        self.experiment = experiment
        found = (own_function("attack", name) for name in experiment.own_attacks)
        self.own: dict[str, OwnFunction] = {own.name: own for own in found}

    def conditions(self, model: Model) -> list[AttackCondition]:
        """Return the clean image and every attack within a budget x epsilon."""
        found = [AttackCondition(CLEAN)]
        if self.experiment.evaluations:
            found.append(AttackCondition(CHECK))
        for epsilon in sorted(self.experiment.epsilons):
            if FGSM in self.experiment.attacks and can_be_attacked(FGSM, model):
                found.append(AttackCondition(FGSM, epsilon))
            if PGD in self.experiment.attacks and can_be_attacked(PGD, model):
                found.append(self._pgd(epsilon))
            found += evaluation_conditions(self.experiment, model, epsilon)
            found += [self._own_condition(name, epsilon) for name in ((*self.own, RANDOM) if self.own else ())]
        return found

    def notes(self, model: Model) -> list[str]:
        """Return what is left out of a network and why, in sentences."""
        return [*notes_on_evaluations(self.experiment, model)]

    def measure(
        self, model: Model, batch: Batch, conditions: Sequence[AttackCondition], keep: Keep
    ) -> Iterator[Records]:
        """Attack a batch in every way; all attacks share the clean pass. What is found is also given to ``keep``."""
        for condition, found, more in self.attacked(model, batch, conditions):
            keep(model, batch, condition, found)
            columns = score_logits(found.logits, batch.labels) | {"flat": found.zero_gradient}
            yield Records(condition, columns | more)

    def attacked(
        self, model: Model, batch: Batch, conditions: Sequence[AttackCondition]
    ) -> Iterator[tuple[AttackCondition, Attacked, dict[str, Tensor | np.ndarray]]]:
        """Yield what each attack makes of a batch, and further columns of its records."""
        if not conditions:
            return
        gradient = any(c.attack == FGSM or (c.attack == PGD and not c.random_start) for c in conditions)
        clean = clean_pass(model, batch.images, batch.labels, gradient=gradient)
        starts = _starts(batch)
        for condition in conditions:
            if condition.attack == CHECK:
                yield condition, _unchanged(batch, clean), {**checked(model, batch, clean)}
            elif condition.attack in (CLEAN, FGSM, PGD):
                yield condition, _paper_attack(model, batch, condition, clean, starts), {}
            elif isinstance(condition, EvaluationCondition) and not self._is_own(condition):
                found, broken_by = attack_with(model, batch, condition, clean)
                yield condition, found, {"broken_by": broken_by}
            else:
                assert isinstance(condition, BudgetCondition)
                yield condition, self._own_attack(model, batch, condition, clean), {}

    def _pgd(self, epsilon: float) -> AttackCondition:
        asked = self.experiment
        return AttackCondition(PGD, epsilon, asked.steps, asked.step_size, asked.restarts, asked.random_start)

    def _own_condition(self, name: str, epsilon: float) -> BudgetCondition:
        norm = self.experiment.norm
        if norm == "linf":
            return BudgetCondition(name, epsilon, norm=norm)
        return EvaluationCondition(name, epsilon, norm=norm, unit=unit_of(norm))

    def _is_own(self, condition: AttackCondition) -> bool:
        return condition.attack in self.own or condition.attack == RANDOM

    def _own_attack(self, model: Model, batch: Batch, condition: BudgetCondition, clean: Clean) -> Attacked:
        """Attack with a function of the user's own, whose images are checked, or with random noise."""
        own = self.own.get(condition.attack)
        key = keys(batch.ids, batch.seed, "attack", RANDOM if own is None else own.label)
        id_of = dict(zip(key.tolist(), batch.ids, strict=True))

        def attack(network: Network, images: Tensor, labels: Tensor, budget: Budget, key: np.ndarray) -> Tensor:
            if own is None:
                return random_noise(images, budget, key)
            ids = [id_of[number] for number in key.tolist()]
            made = returned_images(own, own(network, images.clone(), labels.clone(), budget, key.copy()), images)
            check_pixels(own, made, ids)
            return into_budget(own, images, made, budget, ids)

        return run_attack(attack, model, batch.images, batch.labels, budget_of(condition), key, clean=clean)


def _unchanged(batch: Batch, clean: Clean) -> Attacked:
    blind = torch.zeros(len(batch), dtype=torch.bool, device=batch.images.device)
    return Attacked(batch.images, clean.logits, blind)


def _paper_attack(
    model: Model, batch: Batch, condition: AttackCondition, clean: Clean, starts: Callable[[int], Tensor]
) -> Attacked:
    if condition.attack == CLEAN:
        return _unchanged(batch, clean)
    if condition.attack == FGSM:
        return fgsm(model, batch.images, batch.labels, condition.epsilon, clean=clean)
    return pgd(
        model,
        batch.images,
        batch.labels,
        condition.epsilon,
        steps=condition.steps,
        step_size=condition.step_size,
        restarts=condition.restarts,
        starts=starts if condition.random_start else None,
        clean=clean,
    )


def _starts(batch: Batch) -> Callable[[int], Tensor]:
    @functools.lru_cache(maxsize=1)  # with a single restart all epsilons share it
    def start(restart: int) -> Tensor:
        key = keys(batch.ids, batch.seed, "attack", "start", restart)
        return random_starts(key, tuple(batch.images.shape[1:]), batch.images.device)

    return start
