"""The records of a run folder that its last study asked for, and what else the folder holds."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from ipvit.analysis.records.frames import matching
from ipvit.core.digests import digest_of
from ipvit.core.manifest import Manifest
from ipvit.core.text.words import counted
from ipvit.engine.folders.scope import EVERYTHING, scopes
from ipvit.engine.store import Store

_KEYS = ("image", "labels", "condition", "answers", "set", "set_digest")
"""Columns that say whether a record was asked for: of which image and set it is, and what that was answered with."""


@dataclasses.dataclass
class Besides:
    """What a folder holds beside what was asked for.

    Attributes:
        experiments: their names.
        models: their names.
        conditions: keys of conditions of the models that were asked for, by experiment.
        images: ids of images under the conditions that were asked for.
        others: the number of records of another seed, precision, version, answer space or data set, by experiment and
            the digest of the model whose records had to be read to be told; empty for the others.
    """

    experiments: list[str] = dataclasses.field(default_factory=list[str])
    models: dict[str, str] = dataclasses.field(default_factory=dict[str, str])
    conditions: dict[str, set[str]] = dataclasses.field(default_factory=dict[str, set[str]])
    images: set[str] = dataclasses.field(default_factory=set[str])
    others: dict[tuple[str, str], int] = dataclasses.field(default_factory=dict[tuple[str, str], int])

    def sentences(self) -> list[str]:
        """Return what is said of it: at most two sentences."""
        more, of = sum(map(len, self.conditions.values())), ", ".join(self.conditions)
        parts = [
            _named("experiment", self.experiments),
            _named("model", list(self.models.values())),
            f"{counted(more, 'further condition')} of {of}" if more else "",
            counted(len(self.images), "further image") if self.images else "",
        ]
        named = [part for part in parts if part]
        told = [f"The folder also holds {'; '.join(named)} (shown with --everything)."] if named else []
        if others := sum(self.others.values()):
            kind = "another seed, precision, version, answer space or data set"
            told.append(f"The folder also holds {counted(others, 'record')} of {kind}.")
        return told


def _named(what: str, names: Sequence[str]) -> str:
    return f"the {what}{'s' if len(names) > 1 else ''} {', '.join(names)}" if names else ""


class StudyRecords:
    """The records of a run folder as its study asked for them.

    Args:
        out: the run folder.
        manifest: of the folder.
        everything: take whatever is there on the same data, with the same seed and precision.

    Attributes:
        mixed: the experiments and digests of models among whose records others were found, which was noted.
    """

    def __init__(self, out: Path, manifest: Manifest, *, everything: bool = False) -> None:
        self._store = Store(out)
        self._manifest = manifest
        there = self._store.experiments()
        self._scopes = dict.fromkeys(there, EVERYTHING) if everything else scopes(out, manifest, there)
        self.names = [name for name in there if name in self._scopes]
        self._elsewhere = [name for name in there if name not in self._scopes]
        self._besides = Besides()
        self.mixed: set[tuple[str, str]] = set()

    @property
    def besides(self) -> Besides:
        """What else the folder holds, of all that was read of the study's experiments by now."""
        for name in self._elsewhere:
            wanted = self._wanted(name)
            there, others = self._store.models(name, wanted)
            if there:
                self._besides.experiments.append(name)
            if others:
                self._besides.others[name, ""] = others
        self._elsewhere = []
        return self._besides

    @property
    def damaged(self) -> list[Path]:
        """Part files that were read and are not what was written."""
        return self._store.damaged

    @property
    def models_asked_for(self) -> frozenset[str] | None:
        """Digests of the models of the study; None where nobody knows."""
        asked = [scope.models for scope in self._scopes.values()]
        return None if None in asked else frozenset[str]().union(*(models for models in asked if models is not None))

    def models(self, name: str, version: int) -> list[tuple[str, str]]:
        """Return digest and name of the networks of the study that have records of an experiment, by digest."""
        scope = self._scopes.get(name, EVERYTHING)
        there, others = self._store.models(name, self._wanted(name) | {"version": version})
        if others:
            self._besides.others[name, ""] = others
        self._besides.models |= {weights: model for weights, model in there if not scope.concerns(weights)}
        return [(weights, model) for weights, model in there if scope.concerns(weights)]

    def of_model(self, name: str, version: int, weights: str, columns: Collection[str] | None = None) -> pl.DataFrame:
        """Return the records of one model of the study.

        Args:
            name: of the experiment.
            version: of the experiment.
            weights: digest of the model.
            columns: the columns to return beside ``model``, ``weights`` and what says what was asked for; None for all.
        """
        columns = None if columns is None else {*columns, *_KEYS}
        found, _ = self._store.select(
            name, self._wanted(name) | {"version": version, "weights": weights}, columns, of=weights
        )
        if found.is_empty():
            return found
        whole = self._as_answered(found, name, weights)
        if dropped := found.height - whole.height:
            self._besides.others[name, weights] = dropped
            self.mixed.add((name, weights))
        scope = self._scopes.get(name, EVERYTHING)
        asked = scope.of(whole, weights)
        if asked.height < whole.height:
            self._note(name, whole, asked, scope.conditions is not None)
            self.mixed.add((name, weights))
        return asked

    def stated(self, name: str, version: int, weights: str, fewest_bytes: int) -> dict[str, object] | None:
        """Return all that decides what :meth:`of_model` returns, as JSON has it.

        Args:
            name: of the experiment.
            version: of the experiment.
            weights: digest of the model.
            fewest_bytes: see :meth:`ipvit.engine.store.Store.contents`.

        Returns:
            None where the model's parts are small, or damaged.
        """
        parts = self._store.contents(name, weights, fewest_bytes)
        if parts is None:
            return None
        scope = self._scopes.get(name, EVERYTHING)
        conditions = None if scope.conditions is None else sorted(scope.conditions.get(weights, ()))
        listed = None if scope.listed is None else digest_of(scope.listed.tobytes())
        asked = [scope.concerns(weights), conditions, scope.parts, scope.up_to, listed]
        return {"parts": parts, "wanted": self._wanted(name), "version": version, "weights": weights, "asked": asked}

    def _as_answered(self, records: pl.DataFrame, name: str, weights: str) -> pl.DataFrame:
        """Return a model's records that were answered as in this run, and of several sets those that are as in it."""
        subject = self._manifest.subject(name)
        asked = [pl.col("answers") == subject.answers_of(weights)]
        if weights in subject.labels:
            asked.append(pl.col("labels") == subject.labels[weights])
        if "set_digest" in records.columns:
            asked += [
                (pl.col("set") != one) | pl.col("set_digest").eq_missing(pl.lit(digest))
                for one, digest in subject.sets.get(weights, {}).items()
            ]
        return matching(records, asked)

    def _note(self, name: str, whole: pl.DataFrame, asked: pl.DataFrame, by_condition: bool) -> None:
        """Note what of a model's records was not asked for."""
        conditions = set(whole["condition"].cast(pl.String).unique()) - set(asked["condition"].cast(pl.String).unique())
        if by_condition and conditions:
            self._besides.conditions.setdefault(name, set()).update(conditions)
        same = whole.filter(~pl.col("condition").cast(pl.String).is_in(sorted(conditions)))
        images = set(same["image"].cast(pl.String).unique()) - set(asked["image"].cast(pl.String).unique())
        self._besides.images |= images

    def coverage(self, versions: Sequence[tuple[str, int]]) -> tuple[int, int, int]:
        """Return on how few and on how many images the models of the study were measured, and how many it uses.

        What experiments make of the images, such as episodes, does not count.

        Args:
            versions: the experiments that are shown, with their versions.
        """
        manifest = self._manifest
        counts: list[int] = []
        for name, version in versions:
            if manifest.subject(name).fingerprint != manifest.data.fingerprint:
                continue
            models = self._scopes.get(name, EVERYTHING).models or {weights for weights, _ in self.models(name, version)}
            frames = (self.of_model(name, version, weights, ["image"]) for weights in models)
            counts += [0 if frame.is_empty() else frame["image"].n_unique() for frame in frames]
        asked = [name for name in self._scopes if manifest.subject(name).fingerprint == manifest.data.fingerprint]
        if len({name for name, _ in versions}.intersection(asked)) < len(asked):
            counts.append(0)  # an experiment without any records
        return min(counts, default=0), max(counts, default=0), manifest.selected - len(manifest.skipped)

    def _wanted(self, name: str) -> dict[str, Any]:
        """Return the values that columns of the records of this run have."""
        subject = self._manifest.subject(name)
        return {
            "data": subject.fingerprint,
            "seed": self._manifest.seed,
            "precision": subject.precision,
        }
