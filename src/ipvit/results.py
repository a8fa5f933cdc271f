"""``Run``: what a run folder holds, as tables, figures and a report."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from ipvit.analysis.aggregate import PAPER, paired_differences
from ipvit.core.manifest import Manifest
from ipvit.engine.examples import Picture, read_examples
from ipvit.engine.manifest import read_manifest
from ipvit.engine.run import STUDY
from ipvit.engine.store import Store
from ipvit.engine.study import read_study
from ipvit.errors import InputError
from ipvit.experiments.base import Experiment
from ipvit.experiments.registry import experiment_class, experiment_names
from ipvit.report.paper import reference

if TYPE_CHECKING:
    from ipvit.analysis.charts import Figure


@dataclasses.dataclass(frozen=True)
class Analysis:
    """What follows from the records of an experiment."""

    tables: dict[str, pl.DataFrame]
    differences: pl.DataFrame | None
    notes: list[str]


def _place(name: str) -> tuple[int, str]:
    """The paper's order, then the alphabet."""
    known = experiment_names()
    return (known.index(name) if name in known else len(known), name)


class Run:
    """The results in a run folder.

    Tables and figures cover every model and condition in the folder that was measured on the same data, with the same
    seed and precision as its last study.

    Args:
        out: the run folder.
        experiments: the experiments with their parameters; by default those of the folder's study.
        manifest: by default the folder's.

    Raises:
        InputError: the folder holds no run.
    """

    def __init__(
        self, out: str | Path, experiments: Sequence[Experiment] | None = None, manifest: Manifest | None = None
    ) -> None:
        self.out = Path(out)
        found = manifest or read_manifest(self.out)
        if found is None:
            raise InputError(f"{str(out)!r} is not a run folder: it has no manifest.json, or a damaged one")
        self.manifest = found
        self._store = Store(self.out)
        if experiments is None:
            study = self.out / STUDY
            experiments = read_study(study).make_experiments() if study.is_file() else []
        given = {experiment.name: experiment for experiment in reversed(experiments)}
        self.experiments: dict[str, Experiment] = {}
        for name in sorted(self._store.experiments(), key=_place):
            with contextlib.suppress(InputError):  # an experiment of somebody's own file, which this call does not name
                self.experiments[name] = given[name] if name in given else experiment_class(name)()

    def records(self, experiment: str | None = None) -> pl.DataFrame:
        """Return one row per image, condition and model; of one experiment, or of all."""
        if experiment is None:
            frames = [self.records(name) for name in self.experiments]
            return pl.concat(frames, how="diagonal_relaxed") if frames else pl.DataFrame()
        if experiment not in self.experiments:
            raise InputError(
                f"{str(self.out)!r} has no records of {experiment!r}; it has {', '.join(self.experiments)}"
            )
        return self._read(experiment)[0]

    def _read(self, name: str, columns: Collection[str] | None = None) -> tuple[pl.DataFrame, int]:
        """Return the records that belong to this run, and how many others the folder holds."""
        subject = self.manifest.subject(name)
        wanted = {
            "data": subject.fingerprint,
            "seed": self.manifest.seed,
            "precision": subject.precision,
            "version": type(self.experiments[name]).version,
        }
        frame, others = self._store.select(name, wanted, columns)
        return (frame if frame.is_empty() else self._with_names(frame)), others

    @functools.cached_property
    def tables(self) -> dict[str, pl.DataFrame]:
        """The tables of all experiments by name, the main one of each under the experiment's name."""
        merged: dict[str, pl.DataFrame] = {}
        for tables in self._tables.values():
            merged |= tables
        return merged

    @functools.cached_property
    def figures(self) -> dict[str, Figure]:
        """The figures of all experiments by name."""
        merged: dict[str, Figure] = {}
        for name in self.experiments:
            merged |= self.figures_of(name)
        return merged

    @functools.cached_property
    def differences(self) -> dict[str, pl.DataFrame]:
        """Paired differences between the models, by experiment; see :func:`paired_differences`."""
        found = {name: self._analysed[name].differences for name in self.experiments}
        return {name: frame for name, frame in found.items() if frame is not None}

    def pictures(self, name: str) -> dict[str, list[Picture]]:
        """Return the pictures of an experiment's conditions by model, in the models' order."""
        found = read_examples(self.out, name)
        order = [model.name for model in self.manifest.models]
        return {
            model: found[model] for model in sorted(found, key=lambda m: (order.index(m) if m in order else 999, m))
        }

    def compare(self, everything: bool = False) -> pl.DataFrame:
        """Return our numbers beside the paper's; see :func:`ipvit.report.comparison.compare`.

        Args:
            everything: also list what this run did not measure.
        """
        from ipvit.report.comparison import compare

        return compare(self._tables, self.manifest, self.experiments, everything=everything)

    def report(self) -> Path:
        """Write tables, figures and ``report.html`` into the run folder; return the path of the report."""
        from ipvit.report.build import build_report

        return build_report(self)

    @property
    def _tables(self) -> dict[str, dict[str, pl.DataFrame]]:
        return {name: analysis.tables for name, analysis in self._analysed.items()}

    def notes(self, name: str) -> list[str]:
        """Return what a reader must know of an experiment's numbers."""
        return self._analysed[name].notes

    def tables_of(self, name: str) -> dict[str, pl.DataFrame]:
        """Return the tables of one experiment, the main one first, the paper's last."""
        return self._analysed[name].tables

    def figures_of(self, name: str) -> dict[str, Figure]:
        """Return the figures of one experiment."""
        tables = self.tables_of(name)
        return self.experiments[name].figures(tables) if tables else {}

    def summary_of(self, name: str) -> list[str]:
        """Return sentences that say what the numbers of one experiment show."""
        tables = self.tables_of(name)
        return self.experiments[name].summary(tables) if tables else []

    def differences_of(self, name: str) -> pl.DataFrame | None:
        """Return the paired differences between the models in one experiment, or None with a single model."""
        return self._analysed[name].differences

    @functools.cached_property
    def _analysed(self) -> dict[str, Analysis]:
        return {name: self._analyse(name) for name in self.experiments}

    def _analyse(self, name: str) -> Analysis:
        """Read the records of an experiment once and keep what follows from them."""
        experiment = self.experiments[name]
        reads = vars(type(experiment)).get("reads")
        records, others = self._read(name, None if reads is None else (*reads, "label", "prediction"))
        if records.is_empty():
            return Analysis({}, None, self._notes(name, {}, records, others))
        tables = experiment.tables(records)
        paper = reference(name, self._networks(records["model"].unique(maintain_order=True)))
        if paper is not None and tables:
            tables = tables | {f"{name}{PAPER}": paper}
        differences = paired_differences(experiment.comparable(records), experiment.compare_by, experiment.compare)
        return Analysis(tables, differences, self._notes(name, tables, records, others))

    def _networks(self, models: Iterable[str]) -> list[str]:
        """Leave out models with random weights: under the paper's name they are not the paper's network."""
        untrained = {model.name for model in self.manifest.models if model.untrained}
        return [model for model in models if model not in untrained]

    def _notes(self, name: str, tables: dict[str, pl.DataFrame], records: pl.DataFrame, others: int) -> list[str]:
        notes = []
        if self._store.damaged:
            notes.append(
                f"{len(self._store.damaged)} damaged part files were left out; run the study again to replace them."
            )
        counts = [
            count
            for key, table in tables.items()
            if "n_images" in table.columns and not key.endswith(PAPER)
            for count in table["n_images"].drop_nulls()
        ]
        if counts and min(counts) < max(counts):
            notes.append(f"Not all rows rest on the same images: n is {min(counts):,} to {max(counts):,}.")
        if "label" in records.columns and self.experiments[name].needs.labels:
            unlabelled = records.filter(pl.col("label") < 0)["image"].n_unique()
            if unlabelled:
                notes.append(f"{unlabelled:,} images have no label and are left out of the accuracies.")
        if others:
            notes.append(f"The folder also holds {others:,} records of another seed, precision, version or data set.")
        if "prediction" in records.columns and (broken := (records["prediction"] == -1).sum()):
            notes.append(f"{broken:,} predictions were not finite numbers; they count as wrong.")
        notes += _without_value(self.experiments[name], records)
        return notes

    def _with_names(self, frame: pl.DataFrame) -> pl.DataFrame:
        """Name models as the manifest does, and tell apart different weights under one name."""
        names = {model.digest: model.name for model in self.manifest.models}
        labels: dict[str, str] = {}
        for weights, model in frame.select("weights", "model").unique(maintain_order=True).iter_rows():
            label = str(names.get(weights, model))
            taken = {text for digest, text in labels.items() if digest != weights}
            labels[weights] = f"{label} #{weights[:4]}" if label in taken else label
        order = {digest: i for i, digest in enumerate(names)}
        return (
            frame.with_columns(
                pl.col("weights").replace_strict(labels, default=None, return_dtype=pl.String).alias("model"),
                pl.col("weights").replace_strict(order, default=len(order), return_dtype=pl.Int32).alias("_order"),
            )
            .sort("_order", "model", maintain_order=True)
            .drop("_order")
        )


def _without_value(experiment: Experiment, records: pl.DataFrame) -> list[str]:
    """Say how many values, decisions and attention maps of a network were not finite numbers."""
    notes = []
    for name in experiment.measures:
        if name in records.columns and (count := (~records[name].is_finite()).sum()):
            notes.append(f"{count:,} values of {name} were not finite numbers; they are left out of the means.")
    if "finite" in records.columns and (count := (~records["finite"]).sum()):
        notes.append(f"{count:,} results rest on attention that was not finite; they are left out of the means.")
    if records.schema.get("decision") in (pl.String, pl.Categorical) and (count := (records["decision"] == "").sum()):
        notes.append(f"{count:,} decisions were not finite numbers; they count for neither shape nor texture.")
    return notes
