"""``Run``: what a run folder holds, as tables, figures and a report."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import polars as pl

from ipvit.analysis.base import Analysis
from ipvit.analysis.last_run import LastRun
from ipvit.analysis.looks import Looks, using
from ipvit.analysis.profile import ranked
from ipvit.analysis.reduction import Reduction, labelled
from ipvit.core.manifest import Manifest
from ipvit.core.outdated import PAGE
from ipvit.core.plugins import OWN_FILE
from ipvit.engine.examples import StoredExample, read_examples
from ipvit.engine.folders.bundle import opened
from ipvit.engine.folders.class_names import read_class_names, with_names
from ipvit.engine.folders.last_run import keep_last_run, read_last_run
from ipvit.engine.folders.reducing import reductions_of
from ipvit.engine.folders.study_records import StudyRecords
from ipvit.engine.manifest import named_networks, read_manifest
from ipvit.engine.store import read_analysis
from ipvit.engine.study import STUDY, read_study
from ipvit.errors import ByName, InputError, error_line
from ipvit.experiments.base import Experiment
from ipvit.experiments.registry import experiment_class, experiment_names
from ipvit.report.last_run import drawn
from ipvit.report.notebook import as_pandas, in_notebook, one_line
from ipvit.report.settings import Setting, settings_of
from ipvit.report.tables.analysed import Analysed, analysed, as_last_analysed
from ipvit.report.tables.files import in_reading_order
from ipvit.report.told import earlier_studies, unfinished

if TYPE_CHECKING:
    from ipvit.analysis.charts import Figure
    from ipvit.report.profile import Profile
    from ipvit.report.published_comparison import PublishedComparison


T = TypeVar("T")


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

    Tables and figures are of what the folder's last study asked for: its images, models and conditions. What else
    the folder holds on the same data, with the same seed and precision, is told (:attr:`besides`), and shown when
    everything is asked for. No code is run that this call does not name: an experiment of somebody's own file is shown
    as of its last run, and its notes say so.

    Args:
        out: the run folder, or a bundle, which is unpacked into the user's cache folder.
        experiments: the experiments with their parameters; by default those of the folder's study that are ours or an
            installed package's.
        manifest: by default the folder's.
        everything: show whatever the folder holds on the same data, with the same seed and precision.

    Attributes:
        manifest: what the run says of itself: models, data, seed, versions, failures. Of a run that is not finished,
            ``images_used`` are those that were measured by now.
        faults: by experiment and what could not be made of its records: a sentence that says why.

    Raises:
        InputError: the folder holds no run.
    """

    def __init__(
        self,
        out: str | Path,
        experiments: Sequence[Experiment] | None = None,
        manifest: Manifest | None = None,
        *,
        everything: bool = False,
    ) -> None:
        self.out = opened(Path(out))
        found = manifest or read_manifest(self.out)
        if found is None:
            raise InputError(f"{str(out)!r} is not a run folder: it has no manifest.json, or a damaged one")
        self._names = {model.name: model.marked().name for model in found.models}
        if experiments is None:
            experiments = _registered(self.out / STUDY)
        self.faults: dict[tuple[str, str], str] = {}
        given = {experiment.name: experiment for experiment in reversed(experiments)}
        self._stated = frozenset(given)
        self.experiments: dict[str, Experiment] = {}
        self.analyses: dict[str, Analysis] = {}
        self._last_runs: dict[str, LastRun] = {}
        self.everything = everything
        self._records = StudyRecords(self.out, found, everything=everything)
        for name in sorted(self._records.names, key=_place):
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
        self.manifest = self._manifest_of_study(found.marked())

    def _manifest_of_study(self, whole: Manifest) -> Manifest:
        """Return a manifest that names what is shown, and no more images than were measured."""
        changes: dict[str, Any] = {}
        asked = None if self.everything else self._records.models_asked_for
        if asked is not None:
            changes["models"] = tuple(model for model in whole.models if model.digest in asked)
            changes["experiments"] = tuple(name for name in whole.experiments if name in self._records.names)
        if not whole.finished_well:
            changes["images_used"] = min(whole.images_used, self.coverage[0])
        return whole.model_copy(update=changes)

    @functools.cached_property
    def coverage(self) -> tuple[int, int, int]:
        """On how few and on how many images the models were measured by now, and how many the study uses."""
        return self._records.coverage([(name, analysis.version) for name, analysis in self.analyses.items()])

    @property
    def told(self) -> list[str]:
        """What a reader must know of all tables: how far an unfinished run is, and what the folder also holds."""
        how_far = [] if self.manifest.finished_well else unfinished(self.manifest, self.coverage)
        return [*how_far, *self.besides]

    @property
    def besides(self) -> list[str]:
        """What the folder holds beside what is shown, and which earlier studies it keeps, in sentences."""
        if "_analysed" not in self.__dict__:  # to make the tables shows it on the way, and takes far longer
            for name, analysis in self.analyses.items():
                models = [] if name in self._last_runs else self._records.models(name, analysis.version)
                for weights, _ in models:
                    self._records.of_model(name, analysis.version, weights, ())
        return [*self._records.besides.sentences(), *earlier_studies(self.out)]

    def __repr__(self) -> str:
        return one_line(self)

    def _repr_html_(self) -> str:
        return in_notebook(self)

    def to_pandas(self, table: str) -> Any:
        """Return a table as a pandas ``DataFrame``.

        Args:
            table: its name, as in :attr:`tables`.

        Raises:
            InputError: there is no such table, or pandas is not installed.
        """
        return as_pandas(self.tables[table])

    def records(self, experiment: str | None = None) -> pl.DataFrame:
        """Return one row per image, condition and model of the study; of one experiment, or of all.

        ``label`` and ``prediction`` are numbers of answers of the model in the row: its outputs, or, where it chose
        among the classes of the data, these in their order. ``label_name`` and ``prediction_name`` are what it calls
        them. The same class may have different numbers for two models, and one name.

        Raises:
            InputError: the study has no such experiment; says which there are.
        """
        if experiment is None:
            frames = [self.records(name) for name in self.analyses]
            return pl.concat(frames, how="diagonal_relaxed") if frames else pl.DataFrame()
        version = ByName(self.analyses, "experiment", f"the study of {str(self.out)!r}")[experiment].version
        labels = named_networks(self.manifest, self._records.models(experiment, version))
        names, subject = read_class_names(self.out, experiment), self.manifest.subject(experiment)
        frames = [
            with_names(found.with_columns(pl.lit(label).alias("model")), names.of(weights, subject.answers_of(weights)))
            for weights, label in labels.items()
            if not (found := self._records.of_model(experiment, version, weights)).is_empty()
        ]
        return pl.concat(frames, how="diagonal_relaxed") if frames else pl.DataFrame()

    @functools.cached_property
    def tables(self) -> dict[str, pl.DataFrame]:
        """The tables of all experiments by name, the main one of each under the experiment's name.

        The columns are in reading order: what a row is of, the measures with their intervals, the counts.
        """
        found = {key: in_reading_order(table) for tables in self._tables.values() for key, table in tables.items()}
        return ByName(found, "table", self._place)

    @functools.cached_property
    def figures(self) -> dict[str, Figure]:
        """The figures of all experiments by name."""
        found = {key: figure for name in self.analyses for key, figure in self.figures_of(name).items()}
        return ByName(found, "figure", self._place)

    @functools.cached_property
    def differences(self) -> dict[str, pl.DataFrame]:
        """Paired differences between the models, by experiment; see :meth:`ipvit.Analysis.differences`."""
        found = {name: frame for name in self.analyses if (frame := self.differences_of(name)) is not None}
        return ByName(found, "comparison of models in", self._place)

    @property
    def notes(self) -> dict[str, list[str]]:
        """What a reader must know of the numbers, by experiment."""
        return ByName({name: self.notes_of(name) for name in self.analyses}, "experiment", self._place)

    @property
    def summary(self) -> dict[str, list[str]]:
        """Sentences that say what the numbers show, by experiment."""
        return ByName({name: self.summary_of(name) for name in self.analyses}, "experiment", self._place)

    @property
    def _place(self) -> str:
        return f"the run in {str(self.out)!r}"

    def pictures(self, name: str) -> dict[str, list[StoredExample]]:
        """Return the pictures of an experiment's conditions by model, in the models' order."""
        found = {self._names.get(model, model): shown for model, shown in read_examples(self.out, name).items()}
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
            name: ``robustbench`` (corruption errors on ImageNet-C, accuracies under AutoAttack on ImageNet) or ``timm``
                (accuracies on ImageNet).

        Raises:
            InputError: there is no such table.
        """
        from ipvit.experiments.registry import further_tables, published_table
        from ipvit.report.published_comparison import compare_published, found_in

        every = (published_table(name), *further_tables(name))
        published = [one for one in every if one.experiment in self._tables] or every[:1]
        return found_in([compare_published(one, self._tables, self.manifest, self._image_ids) for one in published])

    def _image_ids(self, experiment: str, model: str) -> list[str]:
        """Return the ids of the images that a model was measured on."""
        version = self.analyses[experiment].version
        found: set[str] = set()
        for weights, label in named_networks(self.manifest, self._records.models(experiment, version)).items():
            if label == model:
                records = self._records.of_model(experiment, version, weights, ["image"])
                found |= set(records["image"].cast(pl.String).unique())
        return sorted(found)

    def report(self) -> Path:
        """Write tables, figures and ``report.html`` into the run folder; return the path of the report."""
        from ipvit.report.build import build_report

        return build_report(self)

    def write_tables(self) -> None:
        """Write the tables into the run folder, and the page anew where there is one: a folder is of one study.

        What the disk or a file's format does not take is a fault, since the results are there; the tables then stay
        marked as outdated.
        """
        try:
            if (self.out / PAGE).is_file():
                self.report()
            else:
                from ipvit.report.build import write_tables

                write_tables(self)
        except Exception as error:
            if os.environ.get("IPVIT_TRACEBACK") and not isinstance(error, OSError):
                raise
            self.faults["tables", "files"] = f"The tables could not be written: {error_line(error, 300)}."

    @property
    def _tables(self) -> dict[str, dict[str, pl.DataFrame]]:
        return {name: analysis.tables for name, analysis in self._analysed.items()}

    def notes_of(self, name: str) -> list[str]:
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
        with using(self.looks):
            return self._made(name, "figures", lambda: self.analyses[name].figures(tables), {}) if tables else {}

    def settings_of(self, name: str) -> list[Setting]:
        """Return the settings of an experiment of the folder's study, those that depart from the defaults in front."""
        return settings_of(self.experiments.get(name) if name in self._stated else None)

    @property
    def studies(self) -> dict[str, str]:
        """The study as YAML, ready to be run again."""
        path = self.out / STUDY
        return {STUDY: path.read_text("utf-8", errors="replace")} if path.is_file() else {}

    @property
    def looks(self) -> Looks:
        """The colours and marks of the models: the same in all figures and tables."""
        return self._looks

    @functools.cached_property
    def _looks(self) -> Looks:
        return Looks(model.name for model in self.manifest.models)

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
            return as_last_analysed(analysis, last_run, self._last_charts[name][1])
        reductions = self.reductions(name)
        damaged = len(self._records.damaged)
        found = analysed(analysis, reductions, self.manifest, self.experiments.get(name), damaged=damaged)
        if not reductions:
            return found
        try:
            profile = [ranked(question) for question in analysis.questions(reductions, found.tables)]
        except Exception as error:
            if os.environ.get("IPVIT_TRACEBACK"):
                raise
            self.faults[name, "profile"] = f"The profile of {name} could not be made: {error_line(error, 300)}."
            profile = []
        return dataclasses.replace(found, profile=profile)

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

    @functools.cached_property
    def _last_charts(self) -> dict[str, tuple[dict[str, Any], list[str]]]:
        return {name: drawn(last_run) for name, last_run in self._last_runs.items()}

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
                    notes=self.notes_of(name),
                    summary=self.summary_of(name),
                    answers=self.answers_of(name),
                    lead=self.lead_of(name),
                )
                keep_last_run(self.out, kept)

    def models_of(self, name: str) -> dict[str, str]:
        """Return the names of the models that have records of an experiment, by digest; none as of a last run."""
        if name not in self.analyses or name in self._last_runs:
            return {}
        return named_networks(self.manifest, self._records.models(name, self.analyses[name].version))

    def records_as_stored(self, name: str) -> Iterator[pl.DataFrame]:
        """Yield the records of each model of an experiment with all of their columns, as the folder has them."""
        version = self.analyses[name].version
        for weights, _ in self._records.models(name, version):
            if not (found := self._records.of_model(name, version, weights)).is_empty():
                yield found

    def conditions_of(self, name: str, weights: str) -> pl.DataFrame:
        """Return the conditions of one model, given by its digest: one row each, a column for each of their fields."""
        analysis = self.analyses[name]
        records = self._records.of_model(name, analysis.version, weights, analysis.conditions)
        return records.select(column for column in analysis.conditions if column in records.columns).unique()

    def calibrated_records(self, name: str, weights: str, columns: Sequence[str]) -> pl.DataFrame:
        """Return the records of one model, given by its digest, as far as they are of images with a label.

        Args:
            name: of the experiment.
            weights: digest of the model.
            columns: to read beside those that the experiment's tables are made of.
        """
        analysis = self.analyses[name]
        read = None if analysis.record_columns is None else (*analysis.record_columns, "label", *columns)
        records = self._records.of_model(name, analysis.version, weights, read)
        return records if records.is_empty() else labelled(analysis.calibrated_records(records))

    def reductions(self, name: str, labels: Mapping[str, str] | None = None) -> list[Reduction]:
        """Return the reductions of models, which tables and comparisons are made of, in the manifest's order.

        Args:
            name: of the experiment.
            labels: by digest the names of the models that are wanted; all of them under their own names by default.
        """
        analysis = self.analyses[name]
        if labels is None:
            labels = named_networks(self.manifest, self._records.models(name, analysis.version))
        return reductions_of(self._records, self.manifest, analysis, labels)
