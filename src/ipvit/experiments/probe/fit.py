"""Fitting the heads of the probe experiment: which vectors, which images, which hyper-parameters."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ipvit.core.artifacts import artifact_path, first_whole, made_again
from ipvit.core.digests import digest_of_json
from ipvit.core.files import path_component, user_path
from ipvit.core.preprocessing import View
from ipvit.data.dataset import Dataset
from ipvit.data.subset import subset_indices
from ipvit.errors import InputError
from ipvit.experiments.base import PrepareContext
from ipvit.experiments.probe.checks import check_fitted, held_out, val_classes
from ipvit.features import StoredType
from ipvit.features.linear_heads import (
    MEMORY,
    MOST_STEPS,
    STOPPING,
    HeadRecipe,
    Heads,
    Inputs,
    fit_by_steps,
    fit_logistic,
)
from ipvit.features.store import Features, FeatureStore
from ipvit.models.io.probe_head import PROBE, ProbeHead, read_probe, save_probe
from ipvit.models.model import Model
from ipvit.models.names import split_weights
from ipvit.models.readout import FeatureSpec, own_token
from ipvit.perturb.tensors import from_numpy

HeadKind = Literal["lbfgs", "sgd", "adamw"]

PROBES = "probes"
BEST = "best.safetensors"


@dataclasses.dataclass(frozen=True)
class FeatureSet:
    """The vectors that one head reads.

    Attributes:
        blocks: their numbers, from 0.
        tokens: ``class``, ``pooled``, ``patch``, ``class+patch``, or ``class+last_patch``: the mean patch token of the
            last of the blocks only. ``shape`` or ``distillation`` is the second token of a network that has one.
        specs: the vectors, in the order of the head's columns.
    """

    blocks: tuple[int, ...]
    tokens: str
    specs: tuple[FeatureSpec, ...]

    @classmethod
    def of(cls, model: Model, blocks: Sequence[int], tokens: str) -> FeatureSet | None:
        """Name the vectors; None where the network has no such tokens.

        A network without class token has one kind only, its pooled features. ``shape`` is the second token of a
        distilled network, whatever it was taught.
        """
        if own_token(model) == "pooled":
            return cls(tuple(blocks), "pooled", tuple(FeatureSpec(block, "pooled") for block in blocks))
        second = model.distillation_token if model.distillation_token in model.adapter.prefix_tokens else None
        if "shape" in tokens and second is None:
            return None
        tokens = tokens.replace("shape", second or "")
        specs: list[FeatureSpec] = []
        for kind in tokens.split("+"):
            read = blocks[-1:] if kind == "last_patch" else blocks
            specs += [FeatureSpec(block, "mean_patch" if kind.endswith("patch") else kind) for block in read]
        return cls(tuple(blocks), tokens, tuple(specs))

    @property
    def label(self) -> str:
        """The blocks in short: ``5``, or ``8-11`` for several; then the tokens."""
        return f"{self.span}-{self.tokens}"

    @property
    def span(self) -> str:
        """The blocks in short."""
        return span(self.blocks)


def span(blocks: Sequence[int]) -> str:
    """Return the blocks in short.

    >>> span([5]), span([8, 9, 10, 11])
    ('5', '8-11')
    """
    return str(blocks[0]) if len(blocks) == 1 else f"{blocks[0]}-{blocks[-1]}"


@dataclasses.dataclass(frozen=True)
class FitPlan:
    """All that determines a head beside the network, the vectors it reads, seed and precision.

    Attributes:
        kind: how it is fitted.
        settings: hyper-parameters to choose from, one tuple per head: ``(penalty,)``, or learning rate and
            weight decay.
        recipe: of the gradient steps; ``seed`` is the study's.
        standardise: columns are standardised before the fit.
        share: of the training images that choose, where no validation data are given; 0: nothing is chosen.
        refit: fit once more on all images with what was chosen.
        limit: so many training images.
        view: how pictures become the input.
        norm: vectors after the network's last normalisation.
        stored: type of the features on disk.
        train: fingerprint of the training data.
        val: fingerprint of the validation data, or empty.
        protocol: ``ours`` or ``authors``.
        most_steps: of L-BFGS.
    """

    kind: HeadKind
    settings: tuple[tuple[float, ...], ...]
    recipe: HeadRecipe | None
    standardise: bool
    share: float
    refit: bool
    limit: int | None
    view: View
    norm: bool
    stored: StoredType
    train: str
    val: str
    protocol: str
    most_steps: int = MOST_STEPS

    @property
    def key(self) -> str:
        """Digest (16 hex digits)."""
        rule = {"stopping": STOPPING} if self.recipe is None else {}
        return digest_of_json(dataclasses.asdict(self) | rule, 16)

    @property
    def names(self) -> tuple[str, ...]:
        """What the numbers of a setting are."""
        return ("penalty",) if self.recipe is None else ("learning_rate", "weight_decay")

    def at_edge(self, number: int) -> dict[str, str]:
        """Return which numbers of a setting are the ``lowest`` or ``highest`` of those to choose from.

        A better one may lie beyond. There is nothing below zero, and two values have no middle to prefer.
        """
        found: dict[str, str] = {}
        for place, name in enumerate(self.names):
            values = sorted({setting[place] for setting in self.settings})
            value = self.settings[number][place]
            if len(values) > 2 and value in (values[0], values[-1]) and value:
                found[name] = "lowest" if value == values[0] else "highest"
        return found


@dataclasses.dataclass(frozen=True)
class FittedHead:
    """A head, and what the tables state about it.

    Attributes:
        probe: the head.
        file: where it is, from the run folder.
    """

    probe: ProbeHead
    file: str


class Fitter:
    """Fits the heads of one network and keeps them.

    Args:
        model: the network.
        context: of the run.
        train: the training data.
        val: the validation data, or None: a share of ``train``.
        store: folder of the feature store.
    """

    def __init__(self, model: Model, context: PrepareContext, train: Dataset, val: Dataset | None, store: Path) -> None:
        self.model, self.context = model, context
        self.train, self.val = train, val
        self.store = store
        self.folder = context.folder / PROBES / path_component(model.name, mark=model.digest[:8])
        if train.classes is None:
            raise InputError(f"probe: the training data {train.name} has no classes")
        self.classes = train.classes

    def heads(self, wanted: Sequence[tuple[FeatureSet, FitPlan]]) -> list[FittedHead]:
        """Return the heads, fitting those that are not in the run folder yet; name the best of them.

        One that is damaged is fitted again, which the bench notes.
        """
        by_plan: dict[FitPlan, list[FeatureSet]] = {}
        damages: list[str] = []
        for specs, plan in wanted:
            head, damage = self._stored(specs, plan)
            if head is None:
                by_plan.setdefault(plan, []).append(specs)
            if damage:
                damages.append(damage)
        if by_plan:
            images = self._images([specs for sets in by_plan.values() for specs in sets], next(iter(by_plan)))
            for plan, sets in by_plan.items():
                for specs, probe in self._fit(images, sets, plan):
                    save_probe(self._path(specs, plan), probe)
        self.context.notes.extend(made_again(damage, "it was fitted") for damage in damages)
        paths = [self._path(specs, plan) for specs, plan in wanted]
        found = [FittedHead(read_probe(path), str(path.relative_to(self.context.folder))) for path in paths]
        self._name_best(found)
        return found

    def _stored(self, specs: FeatureSet, plan: FitPlan) -> tuple[ProbeHead | None, str]:
        """Return a head of the run folder; None where there is none, or a damaged one, with what is wrong with it."""
        key = self._key(specs, plan)

        def read(path: Path) -> ProbeHead:
            head = read_probe(path)
            if head.key not in ("", key) or (head.digest, head.specs) != (self.model.tower_digest, specs.specs):
                raise PROBE.another(path)
            return head

        return first_whole([self._path(specs, plan)], read)

    def _key(self, specs: FeatureSet, plan: FitPlan) -> str:
        determined_by = [
            self.model.tower_digest,
            _stated(specs.specs),
            plan.key,
            self.context.seed,
            self.context.precision,
        ]
        return digest_of_json(determined_by, 8)

    def _path(self, specs: FeatureSet, plan: FitPlan) -> Path:
        return artifact_path(self.folder, f"{specs.label}-{plan.kind}", self._key(specs, plan), ".safetensors")

    def _name_best(self, heads: Sequence[FittedHead]) -> None:
        chosen = [head for head in heads if "validation" in head.probe.fit]
        if chosen:
            save_probe(self.folder / BEST, min(chosen, key=_merit).probe)

    def _images(self, sets: Sequence[FeatureSet], plan: FitPlan) -> _Images:
        specs = tuple(dict.fromkeys(read for one in sets for read in one.specs))
        store = FeatureStore(self.store, dtype=plan.stored)
        parts: list[Features] = []
        labels: list[NDArray[np.int64]] = []
        for number, data in enumerate([self.train] if self.val is None else [self.train, self.val]):
            found = store.extract(
                self.model,
                data,
                specs,
                view=plan.view,
                norm=plan.norm,
                precision=self.context.precision,
                positions=subset_indices(data, plan.limit) if number == 0 else None,
                batch_size=self.context.batch_size,
                workers=self.context.workers,
            )
            parts.append(found)
            self.context.notes.extend(found.notes)
            if found.unreadable:
                image, reason = next(iter(found.unreadable.items()))
                self.context.notes.append(
                    f"{len(found.unreadable)} images of {data.name} were left out of the fit of {self.model.name}'s "
                    f"heads, for example {image!r}: {reason}"
                )
            labels.append(found.labels if number == 0 else self._in_train_classes(found.labels, data))
        chooses = np.concatenate([np.full(len(part), number == 1) for number, part in enumerate(parts)])
        if self.val is None and plan.share:
            chooses = held_out(parts[0].ids, labels[0], plan.share)
        return _Images(parts, np.concatenate(labels), chooses)

    def _in_train_classes(self, labels: NDArray[np.int64], data: Dataset) -> NDArray[np.int64]:
        where = val_classes(self.train, data)
        return np.where(labels < 0, -1, where[labels.clip(min=0)])

    def _fit(
        self, images: _Images, sets: Sequence[FeatureSet], plan: FitPlan
    ) -> Iterator[tuple[FeatureSet, ProbeHead]]:
        """Fit, choose and refit; heads by gradient steps share their passes over the images."""
        together = [[one] for one in sets] if plan.recipe is None else [list(sets)]
        for group in together:
            some = _Search(images, group, plan, len(self.classes), self.context)
            chosen = [0] * len(group)
            scores: list[float | None] = [None] * len(group)
            if plan.share or self.val is not None:
                chosen, scores = some.choose()
            finals = some.final(chosen, whole=plan.refit or not images.chooses.any())
            for one, number, score, (heads, inputs) in zip(group, chosen, scores, finals, strict=True):
                weight, bias = heads.plain(0, inputs)
                about: dict[str, Any] = {
                    "kind": plan.kind,
                    "protocol": plan.protocol,
                    "settings": dict(zip(plan.names, plan.settings[number], strict=True)),
                    "train": self.train.name,
                    "train_images": len(inputs),
                    "refit": plan.refit and bool(images.chooses.any()),
                    "converged": bool(heads.converged[0]),
                    "steps": int(heads.steps[0]),
                    "unreadable": sum(len(part.unreadable) for part in images.parts),
                }
                if plan.recipe is None:
                    about["gradient"] = float(heads.steepest[0])
                if score is not None:
                    about |= {"validation": score, "validation_images": int(images.choosing.sum())}
                    about["at_edge"] = plan.at_edge(number)
                name, pretrained = self._origin()
                yield (
                    one,
                    ProbeHead(
                        weight,
                        bias,
                        one.specs,
                        plan.norm,
                        self.classes,
                        plan.view,
                        name,
                        pretrained,
                        self.model.tower_digest,
                        about,
                        self._key(one, plan),
                    ),
                )

    def _origin(self) -> tuple[str, bool]:
        """Return the name that loads the backbone, with paths that hold from any folder."""
        name, pretrained = self.model.origin or ("", False)
        text, weights = split_weights(name)
        mark = "@" if weights else ""
        if mark and user_path(weights).is_file():
            weights = str(user_path(weights).resolve())
        file, colon, factory = text.rpartition(":")
        if file.endswith(".py"):
            text = f"{user_path(file).resolve()}{colon}{factory}"
        return f"{text}{mark}{weights}", pretrained


@dataclasses.dataclass(frozen=True)
class _Images:
    """Features with labels in the classes of the training data.

    Attributes:
        parts: of the training data, and of the validation data where they are separate.
        labels: ``(N,)`` through all parts; -1 where there is none.
        chooses: ``(N,)`` bool: held out from the fit, to choose.
    """

    parts: list[Features]
    labels: NDArray[np.int64]
    chooses: NDArray[np.bool_]

    @property
    def fitting(self) -> NDArray[np.bool_]:
        return ~self.chooses & (self.labels >= 0)

    @property
    def choosing(self) -> NDArray[np.bool_]:
        return self.chooses & (self.labels >= 0)


class _Search:
    """The heads of one plan on one or several sets of vectors."""

    def __init__(
        self, images: _Images, sets: Sequence[FeatureSet], plan: FitPlan, classes: int, context: PrepareContext
    ) -> None:
        self.images, self.sets, self.plan, self.classes, self.context = images, sets, plan, classes, context
        check_fitted(images.labels[images.fitting], np.ones(1, dtype=bool))

    def choose(self) -> tuple[list[int], list[float | None]]:
        """Return for every set the number of the setting that is best on the validation images, and its accuracy."""
        check_fitted(self.images.labels[self.images.fitting], self.images.choosing)
        several = self._inputs(self.images.fitting)
        labels = self._labels(self.images.choosing)
        chosen: list[int] = []
        scores: list[float | None] = []
        fitted = self._fit(several, self._labels(self.images.fitting), [self.plan.settings] * len(self.sets))
        for inputs, heads in zip(several, fitted, strict=True):
            others = self._one(inputs.specs, self.images.choosing, like=inputs)
            of_heads: Any = heads.evaluate(others, labels)  # tensors, whose tolist() has no type
            accuracy: list[float]
            entropy: list[float]
            accuracy, entropy = (values.tolist() for values in of_heads)
            best = max(range(len(accuracy)), key=lambda i: (accuracy[i], -entropy[i]))
            chosen.append(best)
            scores.append(accuracy[best])
        return chosen, scores

    def final(self, chosen: Sequence[int], *, whole: bool) -> list[tuple[Heads, Inputs]]:
        """Fit the chosen settings, on all images with a label or without those that chose."""
        rows = self.images.labels >= 0 if whole else self.images.fitting
        several = self._inputs(rows)
        fitted = self._fit(several, self._labels(rows), [[self.plan.settings[number]] for number in chosen])
        return list(zip(fitted, several, strict=True))

    def _fit(
        self, several: Sequence[Inputs], labels: Tensor, settings: Sequence[Sequence[tuple[float, ...]]]
    ) -> list[Heads]:
        if self.plan.recipe is None:
            return [
                fit_logistic(
                    inputs, labels, self.classes, [penalty for (penalty,) in own], most_steps=self.plan.most_steps
                )
                for inputs, own in zip(several, settings, strict=True)
            ]
        recipe = dataclasses.replace(self.plan.recipe, seed=self.context.seed)
        pairs = [[(rate, decay) for rate, decay in own] for own in settings]
        return fit_by_steps(several, labels, self.classes, pairs, recipe)

    def _inputs(self, rows: NDArray[np.bool_]) -> list[Inputs]:
        return [self._one(one.specs, rows) for one in self.sets]

    def _one(self, specs: Sequence[FeatureSpec], rows: NDArray[np.bool_], like: Inputs | None = None) -> Inputs:
        return Inputs(
            self.images.parts,
            specs,
            np.flatnonzero(rows),
            like=like,
            standardise=self.plan.standardise,
            device=self.context.device,
            memory=MEMORY // len(self.sets),
        )

    def _labels(self, rows: NDArray[np.bool_]) -> Tensor:
        return from_numpy(self.images.labels[rows])


def _merit(head: FittedHead) -> tuple[float, int, str]:
    """Return what heads are ranked by, the best first; the summary of the tables ranks them alike."""
    return -head.probe.fit["validation"], len(head.probe.specs), head.file


def _stated(specs: Sequence[FeatureSpec]) -> str:
    """Return the text that stands for the features in a head's key; were it another, heads on disk would be lost."""
    inside = ", ".join(f"Read(block={spec.block}, token={spec.token!r})" for spec in specs)
    return f"({inside},)" if len(specs) == 1 else f"({inside})"
