"""Attacks of AutoAttack's kind: under which conditions they are measured, what is left out, and running them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ipvit.experiments.attack.conditions import BandCondition, EvaluationCondition, budget_of, unit_of
from ipvit.experiments.attack.experiment import Attack
from ipvit.experiments.attack.names import (
    APGD,
    APGD_CE_T,
    APGD_DLR,
    APGD_T,
    AUTOATTACK,
    BANDS,
    ENSEMBLE,
    FAB_T,
    LOW_PASS,
    NEED_GRADIENTS,
    RAND,
    SINGLE,
    SQUARE,
    attack_title,
)
from ipvit.experiments.base import Batch
from ipvit.models.model import Model
from ipvit.perturb.attack import Attacked, Clean, autoattack, band_limited, ensemble_steps, is_right
from ipvit.perturb.attacks.autoattack import (
    L1_RESTARTS,
    L1_TARGETS,
    QUERIES,
    STEPS,
    TARGETS,
    EnsembleStep,
    Version,
    run_step,
)
from ipvit.perturb.attacks.losses import LEAST_ANSWERS
from ipvit.perturb.seeding import keys

_LOSSES = {APGD: "ce", APGD_DLR: "dlr", APGD_T: "dlr", APGD_CE_T: "ce", FAB_T: "ce", SQUARE: "ce"}
_LEAST = {APGD_DLR: LEAST_ANSWERS["dlr"], APGD_T: LEAST_ANSWERS["dlr-t"]}


def answers_of(model: Model) -> int:
    """Return among how many answers a model chooses."""
    return model.n_outputs if model.answer_space is None else len(model.answer_space)


def evaluation_conditions(experiment: Attack, model: Model, epsilon: float) -> Iterator[EvaluationCondition]:
    """Yield the attacks that are asked for and that a network can be attacked with."""
    for name in experiment.evaluations:
        if _why_not(name, model):
            continue
        if name in BANDS:
            norm, steps = experiment.norm, experiment.apgd_steps
            unit = unit_of(norm)
            yield BandCondition(name, epsilon, steps=steps, norm=norm, unit=unit, cutoff=experiment.cutoff)
            continue
        steps = 0 if name == SQUARE else experiment.apgd_steps
        asks = name in (SQUARE, AUTOATTACK)
        yield EvaluationCondition(
            _called(experiment, name, answers_of(model)),
            epsilon,
            steps=steps,
            restarts=L1_RESTARTS if name == APGD and experiment.norm == "l1" else 0,
            norm=experiment.norm,
            unit=unit_of(experiment.norm),
            queries=experiment.queries if asks else 0,
            targets=_targets(experiment, name, answers_of(model)),
            draws=experiment.draws if name == RAND else 0,
        )


def notes_on_evaluations(experiment: Attack, model: Model) -> Iterator[str]:
    """Yield what of the attacks is left out of a network, or is not what its name would say, in sentences."""
    for reason, names in _left_out(experiment, model).items():
        yield f"attack: {model.name}: {', '.join(map(attack_title, names))} left out: {reason}"
    answers = answers_of(model)
    for name in {AUTOATTACK, RAND} & set(experiment.evaluations):
        if _why_not(name, model):
            continue
        lacking = [attack_title(step.name) for step in _steps(experiment, name, answers)[1]]
        if lacking:
            yield (
                f"attack: {model.name} has {answers} answers, too few for {', '.join(lacking)}: what is left is not "
                f"{attack_title(name)}"
            )
        if name == AUTOATTACK and not _is_standard(experiment):
            yield (
                f"attack: {model.name}: AutoAttack takes {STEPS} steps, {QUERIES} queries and {TARGETS} targets; with "
                f"{experiment.apgd_steps}, {experiment.queries} and {experiment.targets} it is another ensemble and "
                "stands in the tables as such"
            )


def _left_out(experiment: Attack, model: Model) -> dict[str, list[str]]:
    asked = [name for name in experiment.attacks if name in NEED_GRADIENTS]
    found: dict[str, list[str]] = {}
    for name in asked:
        if reason := _why_not(name, model):
            found.setdefault(reason, []).append(name)
    return found


def _why_not(name: str, model: Model) -> str:
    """Return why a network cannot be attacked in a way; empty where it can."""
    if name in NEED_GRADIENTS and not model.can("gradients"):
        return f"they follow gradients, and {model.why_not('gradients') or 'the network has none'}"
    least = _LEAST.get(name, 2)
    if answers_of(model) < least:
        return f"it needs at least {least} answers, and the network has {answers_of(model)}"
    return ""


def can_be_attacked(name: str, model: Model) -> bool:
    """Tell whether a network can be attacked in a way."""
    return not _why_not(name, model)


def _is_standard(experiment: Attack) -> bool:
    return (experiment.apgd_steps, experiment.queries, experiment.targets) == (STEPS, QUERIES, TARGETS)


def _called(experiment: Attack, name: str, answers: int) -> str:
    """Return the name in the records: AutoAttack is so called with its own settings and all of its attacks alone."""
    if name != AUTOATTACK:
        return name
    return AUTOATTACK if _is_standard(experiment) and not _steps(experiment, name, answers)[1] else ENSEMBLE


def _steps(experiment: Attack, name: str, answers: int) -> tuple[list[EnsembleStep], list[EnsembleStep]]:
    return ensemble_steps(experiment.norm, answers, version=_version(name), targets=experiment.targets)


def _version(name: str) -> Version:
    return "rand" if name == RAND else "standard"


def _targets(experiment: Attack, name: str, answers: int) -> int:
    if name not in (APGD_T, APGD_CE_T, FAB_T, AUTOATTACK):
        return 0
    most = min(experiment.targets, answers - 1)
    return min(most, L1_TARGETS) if experiment.norm == "l1" and name in (APGD_T, APGD_CE_T) else most


def attack_with(
    model: Model, batch: Batch, condition: EvaluationCondition, clean: Clean
) -> tuple[Attacked, np.ndarray]:
    """Attack a batch; return what was found, and which attack of an ensemble broke each image, ``(B,)`` text."""
    budget, name = budget_of(condition), condition.attack
    key = keys(batch.ids, batch.seed, "attack", "start", 0)
    broken_by = np.full(len(batch), "", dtype=object)
    if name not in SINGLE:
        wrong = (~is_right(clean.logits, batch.labels)).cpu().numpy()

        def note(step: str, found: Attacked) -> None:
            now = (~is_right(found.logits, batch.labels)).cpu().numpy()
            broken_by[now & ~wrong] = step
            wrong[:] = now

        found = autoattack(
            model,
            batch.images,
            batch.labels,
            budget,
            key,
            version=_version(name),
            steps=condition.steps,
            queries=condition.queries or 1,
            targets=condition.targets or 1,
            draws=condition.draws or 1,
            clean=clean,
            on_step=note,
        )
        return found, broken_by
    if isinstance(condition, BandCondition):
        band = "low" if name == LOW_PASS else "high"
        found = band_limited(
            model,
            batch.images,
            batch.labels,
            budget,
            band=band,
            cutoff=condition.cutoff,
            steps=condition.steps,
            clean=clean,
        )
        return found, broken_by
    step = EnsembleStep(
        name,
        "dlr" if _LOSSES[name] == "dlr" else "ce",
        targets=condition.targets,
        restarts=condition.restarts or 1,
    )
    found = run_step(
        step,
        model,
        batch.images,
        batch.labels,
        budget,
        key,
        steps=condition.steps,
        queries=condition.queries,
        clean=clean,
    )
    return found, broken_by
