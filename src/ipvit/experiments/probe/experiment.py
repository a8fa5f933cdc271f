"""Off-the-shelf tokens: linear heads on the tokens of any blocks (section 3.5, figure 15, table 5)."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self, TypeAlias

import numpy as np
import polars as pl
import torch
from pydantic import (
    BeforeValidator,
    Field,
    PlainSerializer,
    PrivateAttr,
    WrapValidator,
    field_validator,
    model_validator,
)
from torch import Tensor

from ipvit.data import load_dataset
from ipvit.data.dataset import Dataset
from ipvit.data.labels import map_classes
from ipvit.data.transfer import SETS
from ipvit.data.transfer import protocol as published_splits
from ipvit.errors import InputError
from ipvit.experiments.base import Batch, Bench, Condition, Experiment, Records, Requirements, judge
from ipvit.experiments.fields import Several
from ipvit.experiments.probe import analysis as probe_tables
from ipvit.experiments.probe.fit import FitPlan, FittedHead, Fitter, HeadKind, ReadSet
from ipvit.features.linear_heads import Recipe
from ipvit.features.store import FEATURES, StoredType
from ipvit.files import user_path
from ipvit.models.model import Model
from ipvit.models.reads import Read, blocks_of, own_token
from ipvit.preprocessing import View

if TYPE_CHECKING:
    from ipvit.analysis.charts import Figure

OWN = "own"

PENALTIES = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)
RATES = {"sgd": (0.01, 0.1, 1.0), "adamw": (1e-4, 1e-3, 1e-2)}
DECAYS = {"sgd": (0.0, 1e-4), "adamw": (0.0, 0.05)}

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


def _data(value: Any, handler: Any) -> Any:
    return value if isinstance(value, Dataset) else handler(str(value) if isinstance(value, Path) else value)


def _data_name(value: Any) -> str:
    return value.name if isinstance(value, Dataset) else value


if TYPE_CHECKING:
    DataSource: TypeAlias = str | Path | Dataset
else:
    DataSource = Annotated[str, WrapValidator(_data), PlainSerializer(_data_name)]
    """A data name; from Python also a data set itself."""


@dataclasses.dataclass(frozen=True)
class ProbeCondition(Condition):
    """One head on the tokens of some blocks.

    Attributes:
        head: ``own``, ``lbfgs``, ``sgd`` or ``adamw``.
        tokens: see :class:`~ipvit.experiments.probe.fit.ReadSet`.
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


@dataclasses.dataclass(frozen=True)
class Prepared:
    """Heads by the key of their condition, and the network's outputs for the classes of the training data."""

    heads: dict[str, FittedHead]
    own_outputs: Tensor | None


class Probe(Experiment):
    """Read the tokens of single blocks and of several together through linear heads."""

    name: ClassVar[str] = "probe"
    version: ClassVar[int] = 1
    title: ClassVar[str] = "Linear probes of the tokens"
    reproduces: ClassVar[str] = "Figure 15 and Table 5"
    question: ClassVar[str] = "What do the tokens of each block know, and do several blocks together know more?"
    compare_by: ClassVar[tuple[str, ...]] = ("head", "tokens", "blocks")

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

    _opening: dict[str, Any] = PrivateAttr(default_factory=dict)

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
    def needs(self) -> Requirements:
        """Tokens, and labels in the classes of the training data."""
        return Requirements(frozenset({"tokens"}))

    def opening_data(self, *, root: str | None, decoder: str, classes: str | None) -> Self:
        """Return the experiment that opens its training and validation data as the study opens its own."""
        copy = self.model_copy()
        copy._opening = {"root": root, "decoder": decoder, "classes": classes}
        return copy

    def view(self, model: Model) -> View:
        """Return the model's own view; the authors squash the whole picture to the input's size."""
        own = model.preprocessing.view
        return View(own.size, 1.0, "bilinear", "squash") if self.protocol == "authors" else own

    def classes(self, model: Model) -> Sequence[str] | None:
        """Return the classes of the training data, which the heads tell apart."""
        return model.classes if self._train is None else self._train.classes

    def check(self, model: Model) -> None:
        """Raise InputError when there is no such block, or no head at all."""
        count = model.adapter.n_blocks
        wrong = [block for block in self.blocks if not -count <= block < count]
        if wrong:
            raise InputError(f"probe: {model.name} has blocks 0 to {count - 1} (or -1 for the last), not {wrong[0]}")
        if self._train is not None and self._train.classes is None:
            raise InputError(f"probe: the training data {self._train.name} has no classes")
        if self._train is not None and any(kind != OWN for kind in self.heads) and not self._fitted_sets(model):
            raise InputError(f"probe: {model.name} has no {' and no '.join(self.tokens)} token")
        if not self.conditions(model):
            raise InputError(
                f"probe: {model.name} has no head of its own that reads its tokens as classes of the data; "
                "give train, the data to fit heads on"
            )

    def conditions(self, model: Model) -> Sequence[ProbeCondition]:
        """Return head x tokens x blocks."""
        found = [_condition(reads, OWN, self.norm, "") for reads in self._own_sets(model)]
        for plan in self._plans(model):
            found += [_condition(reads, plan.kind, self.norm, plan.key) for reads in self._fitted_sets(model)]
        return found

    def prepare(self, model: Model, bench: Bench) -> Prepared:
        """Extract the features of the training data and fit the heads that are not in the run folder yet."""
        outputs = self._own_outputs(model)
        wanted = [(reads, plan) for plan in self._plans(model) for reads in self._fitted_sets(model)]
        heads = []
        if self._train is not None and wanted:
            store = user_path(self.store) if self.store else bench.folder / FEATURES
            heads = Fitter(model, bench, self._train, self._val, store).heads(wanted)
        keys = [_condition(reads, plan.kind, self.norm, plan.key).key for reads, plan in wanted]
        on_device = [FittedHead(head.probe.to(bench.device), head.file) for head in heads]
        where = None if outputs is None else torch.from_numpy(outputs).to(bench.device)
        return Prepared(dict(zip(keys, on_device, strict=True)), where)

    def measure(self, model: Model, batch: Batch) -> Iterator[Records]:
        """Put the tokens of one forward pass through every head."""
        prepared: Prepared = batch.prepared
        kind = _own_kind(model)
        heads = {c.key: prepared.heads[c.key] for c in batch.conditions if c.head != OWN}
        own = {condition.block for condition in batch.conditions if condition.head == OWN}
        reads = [read for head in heads.values() for read in head.probe.reads]
        tokens = model.tokens(batch.images, sorted({*blocks_of(reads), *own}), norm=self.norm)
        for condition in batch.conditions:
            if condition.head == OWN:
                logits = model.classify(tokens[condition.block].vector(kind), kind)
                columns = judge(logits, _translated(batch.labels, prepared.own_outputs))
                yield Records(condition, columns | _remarks(len(batch), None))
            else:
                head = heads[condition.key]
                yield Records(condition, judge(head.probe(tokens), batch.labels) | _remarks(len(batch), head))

    def tables(self, records: pl.DataFrame) -> dict[str, pl.DataFrame]:
        """Return accuracy per model and head, and what several blocks gain over the last one, image by image."""
        return probe_tables.tables(records)

    def figures(self, tables: dict[str, pl.DataFrame]) -> dict[str, Figure]:
        """Return a curve over the blocks (figure 15) and bars for several blocks together (table 5)."""
        return probe_tables.figures(tables, data=_data_name(self.train))

    def figures_across(self, tables: dict[str, pl.DataFrame]) -> dict[str, Figure]:
        """Return bars over the data sets (table 5, figure 16)."""
        return probe_tables.transfer(tables)

    def summary(self, tables: dict[str, pl.DataFrame]) -> list[str]:
        """Say which block knows most, what the last ones gain together, and where the best head is."""
        return probe_tables.summary(tables)

    @functools.cached_property
    def _train(self) -> Dataset | None:
        return self._open(self.train)

    @functools.cached_property
    def _val(self) -> Dataset | None:
        if self.protocol == "authors":
            return None
        if self.val:
            published = isinstance(self.val, str) and self.val.partition(":")[0] in SETS
            return self._open(self.val, "val" if published else "validation")  # the latter means their reported part
        name = "" if self._train is None else self._train.name
        splits = published_splits(name)
        return None if splits is None or splits[0] != name else self._open(splits[1])

    def _open(self, source: Any, split: str | None = None) -> Dataset | None:
        if not isinstance(source, str):
            return source
        opening: dict[str, Any] = {**self._opening}
        if self.train_root:
            opening["root"] = self.train_root
        return load_dataset(source, split=split or self.train_split, **opening) if source else None

    def _plans(self, model: Model) -> list[FitPlan]:
        if self._train is None:
            return []
        common: dict[str, Any] = {
            "limit": self.train_limit,
            "view": self.view(model),
            "norm": self.norm,
            "stored": self.features,
            "train": self._train.fingerprint,
            "val": "" if self._val is None else self._val.fingerprint,
            "protocol": self.protocol,
        }
        if self.protocol == "authors":
            recipe = Recipe("adamw", epochs=10, batch=256, schedule="constant", initial_deviation=0.02)
            return [FitPlan("adamw", ((5e-4, 0.05),), recipe, standardise=False, share=0.0, refit=False, **common)]
        share = self.validation if self._val is None else 0.0
        common |= {"standardise": True, "share": share, "refit": self.refit}
        kinds: list[HeadKind] = [kind for kind in self.heads if kind != OWN]
        return [FitPlan(kind, self._settings(kind), self._recipe(kind), **common) for kind in kinds]

    def _settings(self, kind: HeadKind) -> tuple[tuple[float, ...], ...]:
        if kind == "lbfgs":
            return tuple((penalty,) for penalty in sorted(self.penalties))
        rates, decays = self.learning_rates or RATES[kind], self.weight_decays or DECAYS[kind]
        return tuple((rate, decay) for rate in sorted(rates) for decay in sorted(decays))

    def _recipe(self, kind: HeadKind) -> Recipe | None:
        return None if kind == "lbfgs" else Recipe(kind, epochs=self.epochs, batch=self.batch)

    def _alone(self, model: Model) -> list[int]:
        count = model.adapter.n_blocks
        return sorted({block % count for block in self.blocks or range(count)} | {count - 1})

    def _fitted_sets(self, model: Model) -> list[ReadSet]:
        count = model.adapter.n_blocks
        groups = [[block] for block in self._alone(model)]
        for text in self.last:
            n = count if text == "all" else min(int(text), count)
            groups.append(list(range(count - n, count)))
        both = "class+last_patch" if self.protocol == "authors" else "class+patch"
        kinds = [both if tokens == "class+patch" else tokens for tokens in self.tokens]
        sets = [ReadSet.of(model, group, tokens) for tokens in kinds for group in groups]
        return list(dict.fromkeys(one for one in sets if one is not None))

    def _own_sets(self, model: Model) -> list[ReadSet]:
        """Return every block of a transformer, whose tokens the head fits; the last block of other networks."""
        kind = _own_kind(model)
        if OWN not in self.heads or "logits" not in model.capabilities or not kind:
            return []
        if self._train is not None and self._own_outputs(model) is None:
            return []
        last = model.adapter.n_blocks - 1
        uniform = bool(model.adapter.prefix) or "attention" in model.capabilities
        return [ReadSet((block,), kind, (Read(block, kind),)) for block in (self._alone(model) if uniform else [last])]

    def _own_outputs(self, model: Model) -> np.ndarray | None:
        """Return the network's output for every class of the training data, or None where they are others."""
        if self._train is None or self._train.classes is None or model.classes is None:
            return None
        try:
            return map_classes(
                self._train.classes, self._train.aliases, model.classes,
                data_name=self._train.name, model_name=model.name,
            )  # fmt: skip
        except InputError:  # classes that the network was not made for: the fitted heads are what is asked for
            return None


def _condition(reads: ReadSet, head: str, norm: bool, fit: str) -> ProbeCondition:
    return ProbeCondition(head, reads.tokens, reads.span, reads.blocks[-1], len(reads.blocks), norm, fit)


def _own_kind(model: Model) -> str:
    """Return the kind of token that the network's own head reads, or nothing."""
    kinds = model.adapter.head_kinds
    return next((kind for kind in (own_token(model), "pooled") if kind in kinds), "")


def _translated(labels: Tensor, outputs: Tensor | None) -> Tensor:
    return labels if outputs is None else torch.where(labels < 0, -1, outputs[labels.clamp(min=0)])


def _remarks(n: int, head: FittedHead | None) -> dict[str, np.ndarray]:
    """Return what is said of a head, the same in every row."""
    fit = {} if head is None else head.probe.fit
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
