"""``RunCollection``: several run folders seen together, such as one for each data set that heads were fitted on."""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from ipvit.analysis.aggregate import PAPER
from ipvit.analysis.base import Analysis
from ipvit.analysis.data_names import data_set
from ipvit.analysis.looks import Looks, using
from ipvit.core.manifest import RunSummary, Status, UsedData
from ipvit.data.dataset import fingerprint
from ipvit.engine.manifest import MANIFEST
from ipvit.errors import ByName
from ipvit.report.notebook import in_notebook, one_line
from ipvit.report.settings import Setting
from ipvit.report.tables.files import in_reading_order
from ipvit.results import Run

if TYPE_CHECKING:
    from ipvit.analysis.charts import Figure

DATA_SET = "data_set"
"""The column that says which of the runs a row is from."""


def runs_in(folder: Path, *, everything: bool = False) -> list[Run]:
    """Return the run in a folder, or the runs in its folders.

    Args:
        folder: a run folder, or a folder of run folders.
        everything: show whatever they hold, see :class:`ipvit.Run`.

    Raises:
        InputError: there is none.
    """
    if (folder / MANIFEST).is_file() or not folder.is_dir():
        return [Run(folder, everything=everything)]
    below = sorted((path.parent for path in folder.glob(f"*/{MANIFEST}")), key=_by_number)
    return [Run(path, everything=everything) for path in below] or [Run(folder)]


def _by_number(path: Path) -> list[tuple[bool, int, str]]:
    """Sort ``grid-4x4`` before ``grid-14x14``."""
    parts = re.findall(r"\d{1,9}|\D+", path.name)
    return [(part.isdecimal(), int(part) if part.isdecimal() else 0, part) for part in parts]


class RunCollection:
    """The results in several run folders: their tables below each other, and figures over their data sets.

    Args:
        out: a folder of run folders; the report is written into it.
        runs: what it holds; read from the folder by default.

    Raises:
        InputError: it holds no run.
    """

    def __init__(self, out: str | Path, runs: Sequence[Run] | None = None) -> None:
        self.out = Path(out)
        self.runs = list(runs or runs_in(self.out))
        self.analyses: dict[str, Analysis] = {}
        for run in self.runs:
            self.analyses = {**run.analyses, **self.analyses}
        self.labels = _labels(self.runs)
        self.manifest = _summary(self.runs, self.labels)

    def __repr__(self) -> str:
        return one_line(self)

    def _repr_html_(self) -> str:
        return in_notebook(self)

    @property
    def faults(self) -> dict[tuple[str, ...], str]:
        """By run, experiment and what could not be made of its records: a sentence that says where and why."""
        return {
            (run.out.name, *key): f"{label}: {text}"
            for run, label in zip(self.runs, self.labels, strict=True)
            for key, text in run.faults.items()
        }

    @functools.cached_property
    def tables(self) -> dict[str, pl.DataFrame]:
        """The tables of all runs, those of one name below each other."""
        merged: dict[str, pl.DataFrame] = {}
        for name in self.analyses:
            merged |= {key: in_reading_order(table) for key, table in self.tables_of(name).items()}
        return ByName(merged, "table", f"the folder {str(self.out)!r}")

    @functools.cached_property
    def figures(self) -> dict[str, Figure]:
        """The figures over the data sets."""
        merged: dict[str, Figure] = {}
        for name in self.analyses:
            merged |= self.figures_of(name)
        return merged

    @property
    def differences(self) -> dict[str, pl.DataFrame]:
        """Nothing: models are compared image by image, in the report of each run."""
        return {}

    def tables_of(self, name: str) -> dict[str, pl.DataFrame]:
        """Return the tables of one experiment, the main one first, the paper's last."""
        parts: dict[str, list[pl.DataFrame]] = {}
        for run, label in zip(self.runs, self.labels, strict=True):
            for key, table in run.tables_of(name).items() if name in run.analyses else ():
                named = table if key.endswith(PAPER) else table.with_columns(pl.lit(label).alias(DATA_SET))
                parts.setdefault(key, []).append(named)
        found = {key: pl.concat(tables, how="diagonal_relaxed") for key, tables in parts.items()}
        ordered = sorted(found, key=lambda key: (key.endswith(PAPER), key != name))
        return {key: _leading(found[key].unique(maintain_order=True)) for key in ordered}

    def figures_of(self, name: str) -> dict[str, Figure]:
        """Return the figures of one experiment over the data sets."""
        tables = self.tables_of(name)
        with using(self.looks):
            return self.analyses[name].figures_across(tables) if tables else {}

    def settings_of(self, name: str) -> list[Setting]:
        """Return the settings of an experiment in all runs; where they differ, the runs of each value are named."""
        found: dict[str, dict[Setting, list[str]]] = {}
        runs = [(label, run) for label, run in zip(self.labels, self.runs, strict=True) if name in run.analyses]
        for label, run in runs:
            for setting in run.settings_of(name):
                found.setdefault(setting.name, {}).setdefault(setting, []).append(label)
        settings = [
            setting if len(labels) == len(runs) else dataclasses.replace(setting, where=", ".join(labels))
            for values in found.values()
            for setting, labels in values.items()
        ]
        return sorted(settings, key=lambda setting: not setting.departs)

    @property
    def studies(self) -> dict[str, str]:
        """The study of every run as YAML, by its place below the folder of the runs."""
        return {f"{run.out.name}/{name}": text for run in self.runs for name, text in run.studies.items()}

    @property
    def looks(self) -> Looks:
        """The colours and marks of the models: the same in all figures and tables."""
        return self._looks

    @functools.cached_property
    def _looks(self) -> Looks:
        return Looks(model.name for model in self.manifest.models)

    def summary_of(self, name: str) -> list[str]:
        """Return what the runs say of an experiment, each after the name of its data."""
        return list(dict.fromkeys(self._said("summary_of", name)))

    def notes_of(self, name: str) -> list[str]:
        """Return what a reader must know of an experiment's numbers."""
        return list(dict.fromkeys(self._said("notes_of", name)))

    @property
    def notes(self) -> dict[str, list[str]]:
        """What a reader must know of the numbers, by experiment."""
        return {name: self.notes_of(name) for name in self.analyses}

    @property
    def told(self) -> list[str]:
        """What a reader must know of all tables, each sentence after the name of its data."""
        return [
            f"{label}: {sentence}" for run, label in zip(self.runs, self.labels, strict=True) for sentence in run.told
        ]

    def lead_of(self, name: str) -> str:
        """Return the sentence that answers an experiment's question, run by run."""
        return " ".join(
            f"{label}: {sentence}"
            for run, label in zip(self.runs, self.labels, strict=True)
            if name in run.analyses and (sentence := run.lead_of(name))
        )

    def answers_of(self, name: str) -> dict[str, str]:
        """Return nothing: what is said of a model is in the report of each run."""
        return {}

    def differences_of(self, name: str) -> None:
        """Return None; see :attr:`differences`."""

    def pictures(self, name: str) -> dict[str, list[Any]]:
        """Return nothing: the pictures are in the report of each run."""
        return {}

    def compare(self, everything: bool = False) -> pl.DataFrame:
        """Return our numbers beside the paper's; see :meth:`ipvit.Run.compare`."""
        from ipvit.report import comparison

        table = comparison.joined([run.compare(everything=True) for run in self.runs])
        return table if everything else table.filter(pl.col("ours").is_not_null())

    def report(self) -> Path:
        """Write tables, figures and ``report.html`` into the folder of the runs; return the path of the report."""
        from ipvit.report.build import build_report

        return build_report(self)

    @property
    def profile(self) -> None:
        """None: models are ranked run by run, see :attr:`ipvit.Run.profile`."""

    def _said(self, what: str, name: str) -> Iterator[str]:
        for run, label in zip(self.runs, self.labels, strict=True):
            for sentence in getattr(run, what)(name) if name in run.analyses else ():
                yield sentence if sentence.startswith(label) else f"{label}: {sentence}"


def _labels(runs: Sequence[Run]) -> list[str]:
    """Name runs by their data, and by their folder too where one model was measured on it more than once."""
    names = [data_set(run.manifest.data.name) for run in runs]
    labels = []
    for run, name in zip(runs, names, strict=True):
        alike = [other for other, its in zip(runs, names, strict=True) if its == name and other is not run]
        labels.append(f"{name} ({run.out.name})" if any(_overlap(run, other) for other in alike) else name)
    return labels


def _overlap(run: Run, other: Run) -> bool:
    """Whether two runs on data of one name may not stand below one name."""
    answers = [
        {name: r.manifest.subject(name).answers for name in run.analyses.keys() & other.analyses} for r in (run, other)
    ]
    used = [
        (r.manifest.data.fingerprint, r.manifest.images_used, r.manifest.seed, of_both)
        for r, of_both in zip((run, other), answers, strict=True)
    ]
    models = [{model.digest for model in r.manifest.models} for r in (run, other)]
    same_experiment = not set(run.analyses).isdisjoint(other.analyses)
    return used[0] != used[1] or (same_experiment and not models[0].isdisjoint(models[1]))


def _leading(table: pl.DataFrame) -> pl.DataFrame:
    """Return a table with its data set as the first column, and its rows by data set."""
    if DATA_SET not in table.columns:
        return table
    return table.select(DATA_SET, pl.exclude(DATA_SET))


def _summary(runs: Sequence[Run], labels: Sequence[str]) -> RunSummary:
    """Return what the page says of several runs; the machine and the versions are the first run's."""
    all_of = [run.manifest for run in runs]
    models = {model.digest: model for manifest in all_of for model in manifest.models}
    sets = {label: manifest.data for label, manifest in zip(labels, all_of, strict=True)}
    used: dict[str, int] = {}  # several runs on the same images use these images
    for manifest in all_of:
        of_data = manifest.data.fingerprint
        used[of_data] = max(used.get(of_data, 0), manifest.images_used)
    distinct = {data.fingerprint: data for data in sets.values()}.values()
    all_published = all(data.published_images for data in distinct)
    unfinished: list[Status] = [manifest.status for manifest in all_of if manifest.status != "done"]
    return RunSummary(
        status=unfinished[0] if unfinished else "done",
        finished=max(manifest.finished for manifest in all_of),
        seconds=min(sum(manifest.seconds for manifest in all_of), 1e12),
        experiments=tuple(dict.fromkeys(name for run in runs for name in run.analyses)),
        models=tuple(models.values()),
        data=UsedData(
            name=", ".join(sets),
            fingerprint=fingerprint(*(data.fingerprint for data in sets.values())),
            images=_total(data.images for data in distinct),
            published_images=_total(data.published_images for data in distinct) if all_published else 0,
        ),
        selected=_total(used.values()),
        images_used=_total(used.values()),
        limited=any(manifest.limited for manifest in all_of),
        skipped=tuple(skipped for manifest in all_of for skipped in manifest.skipped),
        failures=tuple(failure for manifest in all_of for failure in manifest.failures),
        notes=tuple(note for manifest in all_of for note in manifest.notes),
        left_out=tuple(sentence for manifest in all_of for sentence in manifest.left_out),
        seed=_all_values(manifest.seed for manifest in all_of),
        precision=_all_values(manifest.precision for manifest in all_of),
        device=_all_values(manifest.device for manifest in all_of),
        versions=all_of[0].versions,
        hardware=all_of[0].hardware,
    )


def _total(counts: Iterable[int]) -> int:
    """Return a sum that a manifest can hold: a damaged one may name any number."""
    return min(sum(counts), 2**63 - 1)


def _all_values(values: Iterator[object]) -> str:
    return ", ".join(dict.fromkeys(str(value) for value in values))
