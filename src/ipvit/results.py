"""``Run``: what a run folder holds, as tables, figures and a report."""

from __future__ import annotations

import contextlib
import functools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from ipvit.engine.manifest import read_manifest
from ipvit.engine.run import EXAMPLES, STUDY
from ipvit.engine.store import Store
from ipvit.engine.study import read_study
from ipvit.errors import InputError
from ipvit.experiments.aggregate import PAPER, paired_differences
from ipvit.experiments.base import Experiment
from ipvit.experiments.registry import experiment_class, experiment_names
from ipvit.report.paper import reference

if TYPE_CHECKING:
    from ipvit.experiments.charts import Figure
    from ipvit.report import Section


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
        self, out: str | Path, experiments: Sequence[Experiment] | None = None, manifest: dict[str, Any] | None = None
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
        frame = self._store.records(experiment)
        if frame.is_empty():
            return frame
        wanted = {
            "data": self.manifest["data"]["fingerprint"],
            "seed": self.manifest["seed"],
            "precision": self.manifest["precision"],
            "version": type(self.experiments[experiment]).version,
        }
        frame = frame.filter(*(pl.col(name) == value for name, value in wanted.items()))
        return self._with_names(frame)

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
        for name, experiment in self.experiments.items():
            if self._tables[name]:
                merged |= experiment.figures(self._tables[name])
        return merged

    def report(self) -> Path:
        """Write tables, figures and ``report.html`` into the run folder; return the path of the report."""
        from ipvit.report import file_name, save_figure, write_report, write_table

        for name, table in self.tables.items():
            write_table(table, self.out / "tables" / file_name(name))
        for name, figure in self.figures.items():
            save_figure(figure, self.out / "figures" / file_name(name))
        titles = [experiment.title for experiment in self.experiments.values()]
        title = titles[0] if len(titles) == 1 else "What the networks rely on"
        sections = [self._section(name) for name in self.experiments if self._tables[name]]
        return write_report(self.out / "report.html", title=title, manifest=self.manifest, sections=sections)

    @functools.cached_property
    def _tables(self) -> dict[str, dict[str, pl.DataFrame]]:
        tables = {}
        for name, experiment in self.experiments.items():
            records = self.records(name)
            tables[name] = experiment.tables(records) if records.height else {}
            paper = reference(name, records["model"].unique(maintain_order=True)) if records.height else None
            if paper is not None:
                tables[name][f"{name}{PAPER}"] = paper
        return tables

    def _section(self, name: str) -> Section:
        from ipvit.report import Section

        experiment, tables = self.experiments[name], self._tables[name]
        return Section(
            name=name,
            title=experiment.title,
            reproduces=experiment.reproduces,
            question=experiment.question,
            summary=experiment.summary(tables),
            tables=tables,
            figures=experiment.figures(tables),
            examples=self._examples(name),
            comparisons=paired_differences(self.records(name), experiment.compare_by),
            notes=self._notes(name),
        )

    def _examples(self, name: str) -> list[Any]:
        from ipvit.report import Example

        folder = self.out / EXAMPLES / name
        listing = folder / "captions.json"
        if not listing.is_file():
            return []
        entries = json.loads(listing.read_text("utf-8"))
        return [Example(entry["caption"], (folder / entry["file"]).read_bytes()) for entry in entries]

    def _notes(self, name: str) -> list[str]:
        records = self._store.records(name)
        notes = []
        if self._store.damaged:
            notes.append(
                f"{len(self._store.damaged)} damaged part files were left out; run the study again to replace them."
            )
        counts = [
            count for table in self._tables[name].values() if "n_images" in table.columns for count in table["n_images"]
        ]
        if counts and min(counts) < max(counts):
            notes.append(f"Not all rows rest on the same images: n is {min(counts):,} to {max(counts):,}.")
        if "label" in records.columns and self.experiments[name].needs.labels:
            unlabelled = self.records(name).filter(pl.col("label") < 0)["image"].n_unique()
            if unlabelled:
                notes.append(f"{unlabelled:,} images have no label and are left out of the accuracies.")
        others = records.height - self.records(name).height
        if others:
            notes.append(f"The folder also holds {others:,} records of another seed, precision, version or data set.")
        if "prediction" in records.columns and (broken := (self.records(name)["prediction"] == -1).sum()):
            notes.append(f"{broken:,} predictions were not finite numbers; they count as wrong.")
        return notes

    def _with_names(self, frame: pl.DataFrame) -> pl.DataFrame:
        """Name models as the manifest does, and tell apart different weights under one name."""
        names = {model["digest"]: model["name"] for model in self.manifest["models"]}
        labels: dict[str, str] = {}
        for weights, model in frame.select("weights", "model").unique(maintain_order=True).iter_rows():
            label = names.get(weights, model)
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
