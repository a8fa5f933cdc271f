"""Measuring linear heads on the tokens of blocks."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ipvit.core.files import user_path
from ipvit.data.dataset import Dataset
from ipvit.data.published import SETS
from ipvit.data.published import protocol as published_splits
from ipvit.errors import InputError
from ipvit.experiments.base import Batch, BindContext, Measurement, PrepareContext, Records
from ipvit.experiments.probe.checks import check_data
from ipvit.experiments.probe.experiment import OWN, DataSource, Probe, ProbeCondition
from ipvit.experiments.probe.fit import FeatureSet, FitPlan, FittedHead, Fitter, HeadKind
from ipvit.experiments.scoring import score_logits
from ipvit.features.linear_heads import HeadRecipe
from ipvit.features.store import FEATURES, check_store
from ipvit.models.answers import AnswerSpace
from ipvit.models.label_mapping import outputs_for, space_of
from ipvit.models.model import Model
from ipvit.models.readout import FeatureSpec, blocks_of, own_token
from ipvit.perturb.tensors import from_numpy

RATES = {"sgd": (0.01, 0.1, 1.0), "adamw": (1e-4, 1e-3, 1e-2)}
DECAYS = {"sgd": (0.0, 1e-4), "adamw": (0.0, 0.05)}


@dataclasses.dataclass(frozen=True)
class ProbeHeads:
    """Heads by the key of their condition, and the network's outputs for the classes of the training data."""

    heads: dict[str, FittedHead]
    own_outputs: Tensor | None


class ProbeMeasurement(Measurement):
    """Linear probes in one run, with the data that heads are fitted on and chosen by.

    Attributes:
        experiment: the parameters.
        train: the training data, or None: only the networks' own heads are measured.
        val: the validation data, or None: a share of the training data chooses, or nothing is chosen.

    Raises:
        InputError: the data cannot be used, a model has no such block, or no head at all.
    """

    def __init__(self, experiment: Probe, models: Sequence[Model], data: Dataset, context: BindContext) -> None:
        self.experiment = experiment
        self.train = self._open(experiment.train, context)
        self.val = self._open_val(context)
        self._space = self._answers(data, context)
        for model in models:
            self._check(model)
        if self.train is not None:
            plans = [plan for model in models for plan in self._plans(model)]
            share = max((plan.share for plan in plans), default=None)
            check_data(self.train, self.val, data, experiment.train_limit, share)
        if experiment.store:
            check_store(experiment.store)

    def _open(self, source: DataSource, context: BindContext, split: str | None = None) -> Dataset | None:
        if not isinstance(source, str | Path):
            return source
        if not source:
            return None
        root = {"root": self.experiment.train_root} if self.experiment.train_root else {}
        return context.open_data(source, split=split or self.experiment.train_split, **root)

    def _open_val(self, context: BindContext) -> Dataset | None:
        source = self.experiment.val
        if self.experiment.protocol == "authors":
            return None
        if source:
            published = isinstance(source, str) and source.partition(":")[0] in SETS
            # of other data, the split "validation" is the part on which results are reported
            return self._open(source, context, "val" if published else "validation")
        name = "" if self.train is None else self.train.name
        splits = published_splits(name)
        return None if splits is None or splits[0] != name else self._open(splits[1], context)

    def _check(self, model: Model) -> None:
        count = model.adapter.n_blocks
        wrong = [block for block in self.experiment.blocks if not -count <= block < count]
        if wrong:
            raise InputError(f"probe: {model.name} has blocks 0 to {count - 1} (or -1 for the last), not {wrong[0]}")
        if self.train is not None and self.train.classes is None:
            raise InputError(f"probe: the training data {self.train.name} has no classes")
        fitted = any(kind != OWN for kind in self.experiment.heads)
        if self.train is not None and fitted and not self._fitted_sets(model):
            raise InputError(f"probe: {model.name} has no {' and no '.join(self.experiment.tokens)} token")
        if not self.conditions(model):
            raise InputError(
                f"probe: {model.name} has no head of its own that reads its tokens as classes of the data; "
                "give train, the data to fit heads on"
            )

    def _answers(self, data: Dataset, context: BindContext) -> AnswerSpace | None:
        """Return the data's classes as answers of the heads, where these tell more apart and are not to choose them."""
        if self.train is None or self.train.classes is None:
            return None
        return space_of(data, self.train.classes, f"a head fitted on {self.train.name}", context.answers)

    def answer_space(self, model: Model) -> AnswerSpace | None:
        """Return what the answers of the heads are made of; of the network's own, where only that is put on blocks."""
        return self._space or model.answer_space

    def classes(self, model: Model) -> Sequence[str] | None:
        """Return the classes that the heads choose among: those of the training data, unless fewer are answers."""
        if self.train is None:
            return model.classes
        return self.train.classes if self._space is None else self._space.names

    def conditions(self, model: Model) -> Sequence[ProbeCondition]:
        """Return head x tokens x blocks."""
        found = [self._condition(specs, OWN, "") for specs in self._own_sets(model)]
        for plan in self._plans(model):
            found += [self._condition(specs, plan.kind, plan.key) for specs in self._fitted_sets(model)]
        return found

    def _condition(self, specs: FeatureSet, head: str, fit: str) -> ProbeCondition:
        norm = self.experiment.norm
        return ProbeCondition(head, specs.tokens, specs.span, specs.blocks[-1], len(specs.blocks), norm, fit)

    def prepare(self, model: Model, context: PrepareContext) -> ProbeHeads:
        """Extract the features of the training data and fit the heads that are not in the run folder yet."""
        outputs = self._own_outputs(model)
        wanted = [(specs, plan) for plan in self._plans(model) for specs in self._fitted_sets(model)]
        heads = []
        if self.train is not None and wanted:
            store = user_path(self.experiment.store) if self.experiment.store else context.folder / FEATURES
            heads = Fitter(model, context, self.train, self.val, store).heads(wanted)
        keys = [self._condition(specs, plan.kind, plan.key).key for specs, plan in wanted]
        on_device = [FittedHead(head.probe.to(context.device), head.file) for head in heads]
        where = None if outputs is None else from_numpy(outputs).to(context.device)
        return ProbeHeads(dict(zip(keys, on_device, strict=True)), where)

    def measure(self, model: Model, batch: Batch) -> Iterator[Records]:
        """Put the tokens of one forward pass through every head."""
        prepared: ProbeHeads = batch.prepared
        kind = _own_kind(model)
        heads = {c.key: prepared.heads[c.key] for c in batch.conditions if c.head != OWN}
        own = {condition.block for condition in batch.conditions if condition.head == OWN}
        specs = [read for head in heads.values() for read in head.probe.specs]
        tokens = model.tokens(batch.images, sorted({*blocks_of(specs), *own}), norm=self.experiment.norm)
        for condition in batch.conditions:
            if condition.head == OWN:
                logits = model.classify(tokens[condition.block].vector(kind), kind)
                columns = score_logits(logits, _translated(batch.labels, prepared.own_outputs, logits.shape[1]))
                yield Records(condition, columns | _remarks(len(batch), None))
            else:
                head = heads[condition.key]
                logits = head.probe(tokens) if self._space is None else self._space.scores(head.probe(tokens))
                yield Records(condition, score_logits(logits, batch.labels) | _remarks(len(batch), head))

    def _plans(self, model: Model) -> list[FitPlan]:
        if self.train is None:
            return []
        experiment = self.experiment
        common: dict[str, Any] = {
            "limit": experiment.train_limit,
            "view": experiment.view(model),
            "norm": experiment.norm,
            "stored": experiment.features,
            "train": self.train.fingerprint,
            "val": "" if self.val is None else self.val.fingerprint,
            "protocol": experiment.protocol,
        }
        if experiment.protocol == "authors":
            recipe = HeadRecipe("adamw", epochs=10, batch=256, schedule="constant", initial_deviation=0.02)
            return [FitPlan("adamw", ((5e-4, 0.05),), recipe, standardise=False, share=0.0, refit=False, **common)]
        share = experiment.validation if self.val is None else 0.0
        common |= {"standardise": True, "share": share, "refit": experiment.refit}
        kinds: list[HeadKind] = [kind for kind in experiment.heads if kind != OWN]
        return [FitPlan(kind, self._settings(kind), self._recipe(kind), **common) for kind in kinds]

    def _settings(self, kind: HeadKind) -> tuple[tuple[float, ...], ...]:
        if kind == "lbfgs":
            return tuple((penalty,) for penalty in sorted(self.experiment.penalties))
        rates = self.experiment.learning_rates or RATES[kind]
        decays = self.experiment.weight_decays or DECAYS[kind]
        return tuple((rate, decay) for rate in sorted(rates) for decay in sorted(decays))

    def _recipe(self, kind: HeadKind) -> HeadRecipe | None:
        return None if kind == "lbfgs" else HeadRecipe(kind, epochs=self.experiment.epochs, batch=self.experiment.batch)

    def _alone(self, model: Model) -> list[int]:
        count = model.adapter.n_blocks
        return sorted({block % count for block in self.experiment.blocks or range(count)} | {count - 1})

    def _fitted_sets(self, model: Model) -> list[FeatureSet]:
        count = model.adapter.n_blocks
        groups = [[block] for block in self._alone(model)]
        for text in self.experiment.last:
            n = count if text == "all" else min(int(text), count)
            groups.append(list(range(count - n, count)))
        both = "class+last_patch" if self.experiment.protocol == "authors" else "class+patch"
        kinds = [both if tokens == "class+patch" else tokens for tokens in self.experiment.tokens]
        sets = [FeatureSet.of(model, group, tokens) for tokens in kinds for group in groups]
        return list(dict.fromkeys(one for one in sets if one is not None))

    def _own_sets(self, model: Model) -> list[FeatureSet]:
        """Return every block of a transformer, whose tokens the head fits; the last block of other networks."""
        kind = _own_kind(model)
        if OWN not in self.experiment.heads or not model.can("logits") or not kind:
            return []
        if self.train is not None and self._own_outputs(model) is None:
            return []
        last = model.adapter.n_blocks - 1
        return [
            FeatureSet((block,), kind, (FeatureSpec(block, kind),))
            for block in (self._alone(model) if model.is_plain_transformer else [last])
        ]

    def _own_outputs(self, model: Model) -> np.ndarray | None:
        """Return the network's output for every class of the training data, or None where they are others."""
        train = self.train
        if train is None or train.classes is None or model.classes is None:
            return None
        if self._space is not None:  # labels are numbers of answers, which the network has too or not at all
            return None if model.answer_space is None else np.arange(len(self._space))
        try:
            return outputs_for(train, model)
        except InputError:  # classes that the network was not made for: the fitted heads are what is asked for
            return None


def _own_kind(model: Model) -> str:
    """Return the kind of token that the network's own head reads, or nothing."""
    kinds = model.head_kinds
    return next((kind for kind in (own_token(model), "pooled") if kind in kinds), "")


def _translated(labels: Tensor, outputs: Tensor | None, answers: int) -> Tensor:
    """Return labels in the numbering of the network's own answers; see :class:`Batch` for several labels an image."""
    if outputs is None:
        return labels
    if labels.ndim == 1:
        return torch.where(labels < 0, -1, outputs[labels.clamp(min=0)])
    found = torch.zeros(len(labels), answers, dtype=torch.bool, device=labels.device)
    found[:, outputs] = labels
    return found


def _remarks(n: int, head: FittedHead | None) -> dict[str, np.ndarray]:
    """Return what the tables state about a head, the same in every row."""
    fit: Mapping[str, Any] = {} if head is None else head.probe.fit
    settings = ", ".join(f"{name} {value:g}" for name, value in fit.get("settings", {}).items())
    edges = ", ".join(f"{name} {end}" for name, end in fit.get("at_edge", {}).items())
    nan = float("nan")
    return {
        "train_images": np.full(n, fit.get("train_images", 0), dtype=np.int32),
        "validation": np.full(n, 100 * fit.get("validation", nan), dtype=np.float32),
        "chosen": np.full(n, settings.replace("_", " ")),
        "at_edge": np.full(n, edges.replace("_", " ")),
        "steps": np.full(n, fit.get("steps", 0), dtype=np.int32),
        "gradient": np.full(n, fit.get("gradient", nan), dtype=np.float32),
        "converged": np.full(n, fit.get("converged", True)),
        "file": np.full(n, "" if head is None else head.file),
    }
