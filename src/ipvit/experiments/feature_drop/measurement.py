"""Measuring with features lost inside the network."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from torch import Tensor

from ipvit.errors import InputError
from ipvit.experiments.base import Batch, Measurement, Records
from ipvit.experiments.feature_drop.experiment import AUTHORS, CLEAN, LAYERS, FeatureDrop, FeatureDropCondition
from ipvit.experiments.scoring import Answered, score_each
from ipvit.models.adapters.base import FeatureState
from ipvit.models.model import Model
from ipvit.perturb.on_device import bernoulli_keep, random_keep
from ipvit.perturb.patchdrop import n_dropped
from ipvit.perturb.seeding import keys


class FeatureDropMeasurement(Measurement):
    """Feature drop in one run.

    Raises:
        InputError: a model has no such block.
    """

    def __init__(self, experiment: FeatureDrop, models: Sequence[Model]) -> None:
        self.experiment = experiment
        for model in models:
            count = model.adapter.n_blocks
            wrong = [block for block in experiment.blocks if not 0 <= block < count]
            if wrong:
                raise InputError(f"feature-drop: {model.name} has blocks 0 to {count - 1}, not {wrong[0]}")

    def conditions(self, model: Model) -> Sequence[FeatureDropCondition]:
        """Return the clean network, then block x rate x run."""
        scope = AUTHORS if self.experiment.protocol == "authors" else "image"
        return [
            FeatureDropCondition(CLEAN, 0.0, 0, ""),
            *(
                FeatureDropCondition(block, rate, run, scope)
                for block in self._blocks(model)
                for rate in sorted(self.experiment.rates)
                for run in range(self.experiment.runs)
            ),
        ]

    def measure(self, model: Model, batch: Batch) -> Iterator[Records]:
        """Classify with features lost; one pass gives what enters every block, for all rates and runs."""
        return score_each(batch.labels, self._answers(model, batch))

    def _answers(self, model: Model, batch: Batch) -> Iterator[Answered]:
        blocks = sorted({condition.block for condition in batch.conditions} - {CLEAN})
        states = model.run_to_blocks(batch.images, blocks) if blocks else {}
        for condition in batch.conditions:
            if condition.block == CLEAN:  # the pass goes on from the last block that was read
                logits = model.run_from_block(states[blocks[-1]]) if blocks else model(batch.images)
            else:
                logits = self._with_loss(model, batch, states[condition.block], condition)
            shared = batch.mask_columns(shared=condition.mask_scope == AUTHORS)
            yield Answered(condition, logits, further=shared | {LAYERS: np.full(len(batch), layers_of(model))})

    def _with_loss(self, model: Model, batch: Batch, state: FeatureState, condition: FeatureDropCondition) -> Tensor:
        owners = batch.mask_seeds(shared=condition.mask_scope == AUTHORS)
        key = keys(owners, batch.seed, self.experiment.name, condition.block, condition.rate, condition.run)
        rows, columns = state.grid
        if condition.mask_scope == AUTHORS and not model.is_plain_transformer:
            keep = bernoulli_keep(key, (rows, columns), condition.rate, batch.images.device)
        else:
            # the authors take the share of all tokens, the class token among them, and drop that many patches
            extra = len(model.adapter.prefix_tokens) if condition.mask_scope == AUTHORS else 0
            lost = min(n_dropped(condition.rate, rows * columns + extra), rows * columns)
            keep = random_keep(key, (rows, columns), lost, batch.images.device)
        return model.run_from_block(model.drop(state, keep))

    def _blocks(self, model: Model) -> list[int]:
        if self.experiment.blocks:
            return sorted(set(self.experiment.blocks))
        return list(range(0, model.adapter.n_blocks, 2 if model.is_plain_transformer else 1))


def layers_of(model: Model) -> str:
    """Return what a model's blocks are, and how many there are: only blocks of networks built alike compare."""
    return f"{model.adapter.n_blocks} {'blocks' if model.is_plain_transformer else 'stages'}"
