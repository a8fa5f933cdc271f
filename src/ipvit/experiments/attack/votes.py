"""PatchDrop as a defence in one run: what it costs, and what is left of it when an attack does and does not know it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from ipvit.experiments.attack.cells import grid_of
from ipvit.experiments.attack.conditions import VoteCondition, budget_of, unit_of
from ipvit.experiments.attack.ensembles import can_be_attacked
from ipvit.experiments.attack.experiment import Attack
from ipvit.experiments.attack.names import AGAINST_NETWORK, AGAINST_VOTE, AS_IT_IS, BY_NETWORK, BY_VOTE, VOTE
from ipvit.experiments.base import Batch, Records
from ipvit.experiments.grids import check_grid, rows_and_columns
from ipvit.experiments.scoring import score_logits
from ipvit.models.model import Model
from ipvit.perturb.attack import Attacked, Clean, PatchDropVote, apgd, attack_vote, clean_pass
from ipvit.perturb.seeding import keys


class VoteAttacks:
    """A vote over random drops of patches, and attacks on it.

    Args:
        experiment: its parameters.
        models: of the study.

    Raises:
        InputError: a network's grid has more cells than its images have pixels.
    """

    def __init__(self, experiment: Attack, models: Sequence[Model]) -> None:
        self.experiment = experiment
        for model in models if VOTE in experiment.attacks else ():
            check_grid(grid_of(experiment.cell_grid, model), model)

    def conditions(self, model: Model) -> list[VoteCondition]:
        """Return the vote on the images as they are, and for each budget what the network and its vote are shown."""
        if VOTE not in self.experiment.attacks or not can_be_attacked(VOTE, model):
            return []
        found = [self._condition(model, 0.0, AS_IT_IS, BY_VOTE)]
        for epsilon in sorted(self.experiment.epsilons):
            found.append(self._condition(model, epsilon, AGAINST_NETWORK, BY_NETWORK))
            found.append(self._condition(model, epsilon, AGAINST_NETWORK, BY_VOTE))
            found.append(self._condition(model, epsilon, AGAINST_VOTE, BY_VOTE))
        return found

    def _condition(self, model: Model, epsilon: float, shown: str, answered_by: str) -> VoteCondition:
        asked = self.experiment
        return VoteCondition(
            VOTE,
            epsilon,
            steps=asked.apgd_steps if epsilon else 0,
            grid=grid_of(asked.cell_grid, model),
            norm=asked.norm,
            unit=unit_of(asked.norm),
            draws=asked.draws if shown == AGAINST_VOTE else 0,
            shown=shown,
            answered_by=answered_by,
            share=asked.vote_share,
            votes=asked.votes,
        )

    def measure(self, model: Model, batch: Batch, conditions: Sequence[VoteCondition]) -> Iterator[Records]:
        """Attack a batch with and without knowledge of the vote; what is made against the network is made once."""
        made: dict[float, Attacked] = {}
        clean = clean_pass(model, batch.images, batch.labels, gradient=False) if conditions else None
        for condition in conditions:
            assert clean is not None
            blind = torch.zeros(len(batch), dtype=torch.bool, device=batch.images.device)
            if condition.shown == AGAINST_VOTE:
                found = self._against_vote(model, batch, condition)
                logits, blind = found.logits, found.zero_gradient
            elif condition.shown == AS_IT_IS:
                logits = _vote(model, batch, condition, batch.images)
            else:
                if condition.epsilon not in made:
                    made[condition.epsilon] = _against_network(model, batch, condition, clean)
                found = made[condition.epsilon]
                by_vote = condition.answered_by == BY_VOTE
                logits = _vote(model, batch, condition, found.images) if by_vote else found.logits
                blind = found.zero_gradient
            yield Records(condition, score_logits(logits, batch.labels) | {"flat": blind})

    def _against_vote(self, model: Model, batch: Batch, condition: VoteCondition) -> Attacked:
        return attack_vote(
            model,
            batch.images,
            batch.labels,
            budget_of(condition),
            keys(batch.ids, batch.seed, "attack", VOTE, "known"),
            grid=rows_and_columns(condition.grid),
            share=condition.share,
            votes=condition.votes,
            steps=condition.steps,
            draws=condition.draws,
        )


def _against_network(model: Model, batch: Batch, condition: VoteCondition, clean: Clean) -> Attacked:
    """Attack the network itself, in all steps: the vote is not to profit from images that are wrong by a hair."""
    key = keys(batch.ids, batch.seed, "attack", "start", 0)
    budget, steps = budget_of(condition), condition.steps
    return apgd(model, batch.images, batch.labels, budget, key, steps=steps, all_steps=True, clean=clean)


def _vote(model: Model, batch: Batch, condition: VoteCondition, images: torch.Tensor) -> torch.Tensor:
    key: np.ndarray = keys(batch.ids, batch.seed, "attack", VOTE, "answer")
    grid = rows_and_columns(condition.grid)
    with torch.no_grad():
        return PatchDropVote(model, grid, key, share=condition.share, votes=condition.votes)(images)
