"""``Run``: what a run folder holds, as tables, figures and a report."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import polars as pl

from ipvit.analysis.aggregate import PAPER, with_n_answers
from ipvit.analysis.base import Analysis
from ipvit.analysis.last_run import LastRun
from ipvit.analysis.profile import Ranked, ranked
from ipvit.analysis.reduction import Reduction
from ipvit.analysis.sentences import chosen_among, uneven
from ipvit.core.manifest import Manifest
from ipvit.core.plugins import OWN_FILE
from ipvit.engine.examples import StoredExample, read_examples
from ipvit.engine.last_run import keep_last_run, read_last_run
from ipvit.engine.manifest import read_manifest
from ipvit.engine.run import STUDY
from ipvit.engine.store import Store, read_analysis
from ipvit.engine.study import read_study
from ipvit.errors import InputError, error_line
from ipvit.experiments.base import Experiment
from ipvit.experiments.registry import experiment_class, experiment_names
from ipvit.report.figures import inline_svg
from ipvit.report.paper import reference

if TYPE_CHECKING:
    from ipvit.analysis.charts import Figure
    from ipvit.report.profile import Profile
    from ipvit.report.published_comparison import PublishedComparison


T = TypeVar("T")

_ANSWERED = ("answers", "labels", "set", "set_digest")
"""Columns that say of a record which images it is of and what they were answered with."""

_FEWEST_FOR_TOP_5 = 6
"""Answers from which on being among the five best says something."""


@dataclasses.dataclass(frozen=True)
class Analysed:
    """What follows from the records of an experiment."""

    tables: dict[str, pl.DataFrame]
    differences: pl.DataFrame | None
    notes: list[str]
    profile: list[Ranked] = dataclasses.field(default_factory=list["Ranked"])


def _registered(study: Path) -> list[Experiment]:
    """Return the experiments of a run folder's study that are known here: reading it runs nobody's own file."""
    if not study.is_file():
        return []
    found = read_study(study, check=False)
    known = experiment_names()
    entries = [entry for entry in found.experiments if entry.name in known]
    return [made.experiment for made in found.model_copy(update={"experiments": entries}).make_experiments()]


def _place(name: str) -> tuple[int, str]:
    """The paper's order, then the alphabet."""
    known = experiment_names()
    return (known.index(name) if name in known else len(known), name)


class Run:
    """The results in a run folder.

    Tables and figures cover every model and condition in the folder that was measured on the same data, with the same
    seed and precision as its last study. No code is run that this call does not name: an experiment of somebody's own
    file is shown as of its last run, and its notes say so.

    Args:
        out: the run folder.
        experiments: the experiments with their parameters; by default those of the folder's study that are ours or an
            installed package's.
        manifest: by default the folder's.

    Attributes:
        faults: by experiment and what could not be made of its records: a sentence that says why.

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
            experiments = _registered(self.out / STUDY)
        self.faults: dict[tuple[str, str], str] = {}
        given = {experiment.name: experiment for experiment in reversed(experiments)}
        self.experiments: dict[str, Experiment] = {}
        self.analyses: dict[str, Analysis] = {}
        self._last_runs: dict[str, LastRun] = {}
        for name in sorted(self._store.experiments(), key=_place):
            if name in given:
                self.experiments[name] = given[name]
            elif OWN_FILE not in name:  # a folder may have any name, and that of a file would be imported
                with contextlib.suppress(InputError):  # an experiment that is not here
                    self.experiments[name] = experiment_class(name)()
            analysis = kept = read_analysis(self.out, name)
            if name in self.experiments:
                analysis = self.experiments[name].analysis()
                conditions = () if kept is None else kept.conditions
                analysis = analysis.model_copy(update={"conditions": conditions})
            elif kept is not None and kept.own_code and (last_run := read_last_run(self.out, name)) is not None:
                self._last_runs[name] = last_run
            if analysis is not None:
                self.analyses[name] = analysis

    def records(self, experiment: str | None = None) -> pl.DataFrame:
        """Return one row per image, condition and model; of one experiment, or of all."""
        if experiment is None:
            frames = [self.records(name) for name in self.analyses]
            return pl.concat(frames, how="diagonal_relaxed") if frames else pl.DataFrame()
        if experiment not in self.analyses:
            raise InputError(f"{str(self.out)!r} has no records of {experiment!r}; it has {', '.join(self.analyses)}")
        frame = self._store.select(experiment, self._wanted(experiment))[0]
        if frame.is_empty():
            return frame
        frame = self._as_answered(frame, experiment)
        labels = self._labels(frame.select("weights", "model").unique(maintain_order=True).rows())
        order = {weights: number for number, weights in enumerate(labels)}
        return (
            frame.with_columns(
                pl.col("weights").replace_strict(labels, return_dtype=pl.String).alias("model"),
                pl.col("weights").replace_strict(order, return_dtype=pl.Int32).alias("_order"),
            )
            .sort("_order", maintain_order=True)
            .drop("_order")
        )

    def _as_answered(self, records: pl.DataFrame, name: str) -> pl.DataFrame:
        """Return the records that were answered among what they are in this run, and of the sets as they are in it."""
        subject = self.manifest.subject(name)
        wrong = pl.lit(value=False)
        for weights in records["weights"].cast(pl.String).unique():
            asked = [pl.col("answers") != subject.answers_of(weights)]
            if weights in subject.labels:
                asked.append(pl.col("labels") != subject.labels[weights])
            if "set_digest" in records.columns:
                asked += [
                    (pl.col("set") == one) & pl.col("set_digest").ne_missing(pl.lit(digest))
                    for one, digest in subject.sets.get(weights, {}).items()
                ]
            wrong |= (pl.col("weights") == weights) & pl.any_horizontal(asked)
        return records.filter(~wrong)

    def _wanted(self, name: str) -> dict[str, Any]:
        """Return the values that columns of the records of this run have."""
        subject = self.manifest.subject(name)
        return {
            "data": subject.fingerprint,
            "seed": self.manifest.seed,
            "precision": subject.precision,
            "version": self.analyses[name].version,
        }

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
        for name in self.analyses:
            merged |= self.figures_of(name)
        return merged

    @functools.cached_property
    def differences(self) -> dict[str, pl.DataFrame]:
        """Paired differences between the models, by experiment; see :meth:`ipvit.Analysis.differences`."""
        found = {name: self._analysed[name].differences for name in self.analyses}
        return {name: frame for name, frame in found.items() if frame is not None}

    def pictures(self, name: str) -> dict[str, list[StoredExample]]:
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
        return self._compared if everything else self._compared.filter(pl.col("ours").is_not_null())

    @functools.cached_property
    def _compared(self) -> pl.DataFrame:
        from ipvit.report.comparison import compare

        return compare(self._tables, self.manifest, self.experiments, everything=True)

    def compare_published(self, name: str) -> PublishedComparison:
        """Return our numbers beside those that others published.

        Args:
            name: ``robustbench`` (corruption errors on ImageNet-C) or ``timm`` (accuracies on ImageNet).

        Raises:
            InputError: there is no such table.
        """
        from ipvit.experiments.registry import published_table
        from ipvit.report.published_comparison import compare_published

        return compare_published(published_table(name), self._tables, self.manifest, self._image_ids)

    def _image_ids(self, experiment: str, model: str) -> list[str]:
        """Return the ids of the images that a model was measured on."""
        wanted = self._wanted(experiment)
        there, _ = self._store.models(experiment, wanted)
        found: set[str] = set()
        for weights, label in self._labels(there).items():
            if label == model:
                records, _ = self._store.select(experiment, wanted | {"weights": weights}, _ANSWERED, of=weights)
                records = self._as_answered(records, experiment)
                found |= set(records["image"].cast(pl.String).unique())
        return sorted(found)

    def report(self) -> Path:
        """Write tables, figures and ``report.html`` into the run folder; return the path of the report."""
        from ipvit.report.build import build_report

        return build_report(self)

    @property
    def _tables(self) -> dict[str, dict[str, pl.DataFrame]]:
        return {name: analysis.tables for name, analysis in self._analysed.items()}

    def notes(self, name: str) -> list[str]:
        """Return what a reader must know of an experiment's numbers."""
        return self._analysed[name].notes + [text for (whose, _), text in self.faults.items() if whose == name]

    def _made(self, name: str, what: str, make: Callable[[], T], instead: T) -> T:
        """Return what an experiment's analysis makes; where that fails it is a fault, and the other experiments go on.

        Raises:
            OSError: the records cannot be read.
        """
        try:
            return make()
        except OSError:
            raise
        except Exception as error:
            if os.environ.get("IPVIT_TRACEBACK"):
                raise
            text = f"The {what} of {name} could not be made: {error_line(error, 300, named=True)}"
            self.faults[name, what] = f"{text} (IPVIT_TRACEBACK=1 shows where)."
            return instead

    def tables_of(self, name: str) -> dict[str, pl.DataFrame]:
        """Return the tables of one experiment, the main one first, the paper's last."""
        return self._analysed[name].tables

    def figures_of(self, name: str) -> dict[str, Figure]:
        """Return the figures of one experiment."""
        if name in self._last_runs:
            return self._last_charts[name][0]
        tables = self.tables_of(name)
        return self._made(name, "figures", lambda: self.analyses[name].figures(tables), {}) if tables else {}

    def summary_of(self, name: str) -> list[str]:
        """Return sentences that say what the numbers of one experiment show."""
        if name in self._last_runs:
            return self._last_runs[name].summary
        tables = self.tables_of(name)
        return self._made(name, "summary", lambda: self.analyses[name].summary(tables), []) if tables else []

    def lead_of(self, name: str) -> str:
        """Return the sentence that answers an experiment's question for each model; empty where there is none."""
        if name in self._last_runs:
            return self._last_runs[name].lead
        tables = self.tables_of(name)
        return self._made(name, "answer", lambda: self.analyses[name].lead(tables), "") if tables else ""

    def answers_of(self, name: str) -> dict[str, str]:
        """Return for each model what the experiment says of it."""
        if name in self._last_runs:
            return self._last_runs[name].answers
        tables = self.tables_of(name)
        return self._made(name, "answers", lambda: self.analyses[name].answer(tables), {}) if tables else {}

    def differences_of(self, name: str) -> pl.DataFrame | None:
        """Return the paired differences between the models in one experiment, or None with a single model."""
        return self._analysed[name].differences

    @functools.cached_property
    def _analysed(self) -> dict[str, Analysed]:
        nothing = Analysed({}, None, [])
        return {
            name: self._made(name, "tables", functools.partial(self._analyse, name), nothing) for name in self.analyses
        }

    def _analyse(self, name: str) -> Analysed:
        """Read the records of an experiment, one model after the other, and keep what follows from them."""
        analysis = self.analyses[name]
        if (last_run := self._last_runs.get(name)) is not None:
            tables = {key: table.frame() for key, table in last_run.tables.items()}
            differences = None if last_run.differences is None else last_run.differences.frame()
            code = analysis.own_code.removeprefix("ipvit_user_")  # as a file's module is called
            mark = (
                f"Shown as of its last run, which ended {last_run.finished}: this call does not name {code}, "
                "which made these tables, and code that a run folder names is not run."
            )
            return Analysed(tables, differences, [mark, *last_run.notes, *self._last_charts[name][1]])
        reductions, others = self._reductions(name)
        if not reductions:
            return Analysed({}, None, self._notes(analysis, {}, reductions, others))
        tables = analysis.with_retained(analysis.tables(reductions), reductions)
        paper = reference(name, {name: tables}, self.manifest, self.experiments.get(name))
        if paper is not None and tables:
            tables = tables | {f"{name}{PAPER}": paper}
        if analysis.labels and self._fewer_classes(name):
            answers = {reduction.model: reduction.n_answers for reduction in reductions if reduction.n_answers}
            tables = {key: with_n_answers(table, answers) for key, table in tables.items()}
        differences = analysis.differences(reductions)
        notes = self._notes(analysis, tables, reductions, others)
        if differences is None and sum(reduction.values is not None for reduction in reductions) > 1:
            notes.append("The models are not compared: no condition was measured alike on both, with the same images.")
        try:
            profile = [ranked(question) for question in analysis.questions(reductions, tables)]
        except Exception as error:
            if os.environ.get("IPVIT_TRACEBACK"):
                raise
            self.faults[name, "profile"] = f"The profile of {name} could not be made: {error_line(error, 300)}."
            profile = []
        return Analysed(tables, differences, notes, profile)

    @property
    def profile(self) -> Profile:
        """One row a model, one column a question; see :class:`ipvit.report.profile.Profile`."""
        return self._profile

    @functools.cached_property
    def _profile(self) -> Profile:
        from ipvit.report.profile import profile_of

        ranked_questions = {name: self._analysed[name].profile for name in self.analyses}
        untold = [name for name in self.analyses if name in self._last_runs]
        return profile_of(ranked_questions, self._tables, self.manifest, self.experiments, untold)

    def _fewer_classes(self, name: str) -> bool:
        """Tell whether a model had more outputs than the data have classes, so that it could choose among either."""
        subject = self.manifest.subject(name)
        return any(outputs > subject.n_classes > 0 for _, outputs in subject.among.values())

    @functools.cached_property
    def _last_charts(self) -> dict[str, tuple[dict[str, Any], list[str]]]:
        """The charts of each experiment that is shown as of its last run, and what is said of those left out."""
        found: dict[str, tuple[dict[str, Any], list[str]]] = {}
        for name, last_run in self._last_runs.items():
            charts, left_out = last_run.charts()
            for key, chart in list(charts.items()):
                try:
                    inline_svg(chart, "")
                except Exception:  # noqa: BLE001 - a specification of anybody's
                    del charts[key]
                    left_out.append(f"The figure {key} of its last run is not drawn: it cannot be.")
            found[name] = charts, left_out
        return found

    def keep_last_runs(self) -> None:
        """Keep what experiments of other packages and files make of their records, for who reads without their code."""
        for name, experiment in self.experiments.items():
            if type(experiment).__module__.partition(".")[0] == "ipvit":
                continue
            with contextlib.suppress(Exception):  # whoever asks for the tables is told what is wrong with them
                kept = LastRun.of(
                    name,
                    self.manifest.finished,
                    self.tables_of(name),
                    self.differences_of(name),
                    self.figures_of(name),
                    notes=self.notes(name),
                    summary=self.summary_of(name),
                    answers=self.answers_of(name),
                    lead=self.lead_of(name),
                )
                keep_last_run(self.out, kept)

    def _reductions(self, name: str) -> tuple[list[Reduction], int]:
        """Return the reduction of every model, in the manifest's order, and how many other records the folder holds."""
        analysis, wanted, subject = self.analyses[name], self._wanted(name), self.manifest.subject(name)
        columns = analysis.record_columns
        columns = None if columns is None else (*columns, "label", "prediction", *_ANSWERED)
        there, others = self._store.models(name, wanted)
        sizes = {model.digest: model.preprocessing.size for model in self.manifest.models}
        reductions: list[Reduction] = []
        for weights, label in self._labels(there).items():
            found, _ = self._store.select(name, wanted | {"weights": weights}, columns, of=weights)
            records = self._as_answered(found, name)
            others += found.height - records.height
            if records.is_empty():
                continue
            n_answers, _ = subject.among.get(weights, (0, 0))
            if 0 < n_answers < _FEWEST_FOR_TOP_5 and "correct5" in records.columns:
                records = records.with_columns(pl.lit(None, pl.Boolean).alias("correct5"))
            reduction = analysis.reduce(records.with_columns(pl.lit(label).alias("model")))
            reductions.append(dataclasses.replace(reduction, n_answers=n_answers, size=sizes.get(weights)))
        return reductions, others

    def _notes(
        self, analysis: Analysis, tables: dict[str, pl.DataFrame], reductions: Sequence[Reduction], others: int
    ) -> list[str]:
        notes = []
        if self._store.damaged:
            notes.append(
                f"{len(self._store.damaged)} damaged part files were left out; run the study again to replace them."
            )
        if analysis.name not in self.experiments:
            notes.append("What its columns mean is as of its last run: code that a run folder names is not run.")
        if type(analysis) is Analysis and analysis.own_code:
            notes.append(f"These tables are made without {analysis.own_code}, which makes others of the same records.")
        for failure in self.manifest.failures:
            if failure.experiment == analysis.name:
                what = f" ({failure.condition})" if failure.condition else ""
                notes.append(f"Failed on {failure.model}{what}, so it is in no table: {failure.error}.")
        notes += uneven(tables, analysis.name)
        if analysis.labels:
            subject = self.manifest.subject(analysis.name)
            notes += chosen_among(subject.answers, subject.n_classes, subject.among.values())
        if analysis.among:
            notes.append(analysis.among)
        if unlabelled := frozenset().union(*(reduction.unlabelled for reduction in reductions)):
            notes.append(f"{len(unlabelled):,} images have no label and are left out of the accuracies.")
        if others:
            differing = "another seed, precision, version, answer space or data set"
            notes.append(f"The folder also holds {others:,} records of {differing}.")
        for name, column in analysis.columns.items():
            if count := sum(reduction.missing.get(name, 0) for reduction in reductions):
                notes.append(f"{count:,} {column.missing}")
        return notes

    def _labels(self, there: Sequence[tuple[str, str]]) -> dict[str, str]:
        """Name networks, given by digest and name, as the manifest does and in its order.

        Different weights under one name are told apart.
        """
        names = {model.digest: model.name for model in self.manifest.models}
        labels: dict[str, str] = {}
        for weights, model in there:
            label = str(names.get(weights, model))
            taken = {text for digest, text in labels.items() if digest != weights}
            labels[weights] = f"{label} #{weights[:4]}" if label in taken else label
        order = {digest: number for number, digest in enumerate(names)}
        place = {weights: (order.get(weights, len(order)), label) for weights, label in labels.items()}
        return {weights: labels[weights] for weights in sorted(labels, key=place.__getitem__)}
