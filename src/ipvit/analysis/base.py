"""What follows from the records of an experiment: tables, the comparison of models, figures and sentences."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

import polars as pl
from pydantic import BaseModel, ConfigDict

from ipvit.analysis.aggregate import paired_differences
from ipvit.analysis.columns import COMMON, PLAIN, Column
from ipvit.analysis.defaults import averages, condition_columns, default_figures, default_sentences, default_tables
from ipvit.analysis.reduction import Reduction, Values, count_missing, values_of, without_flagged

if TYPE_CHECKING:
    from ipvit.analysis.charts import Figure


class Analysis(BaseModel):
    """What follows from the records of an experiment.

    The fields are data: they are kept in the run folder, so that tables, charts and notes can be made there without the
    experiment's code. An analysis that needs more than they say is a subclass, which gives them other defaults and
    overrides :meth:`reduce`, :meth:`tables`, :meth:`figures` or :meth:`answer`.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", use_attribute_docstrings=True)

    name: str
    """The experiment's name, which is also that of the main table."""
    title: str
    """What the experiment is called."""
    reproduces: str = ""
    """Table or figure of the paper; empty for an experiment that is not the paper's."""
    question: str = ""
    """The question that the experiment answers."""
    version: int = 1
    """The experiment's version; records of another version are not looked at."""
    labels: bool = True
    """Images without label count for nothing."""
    columns: dict[str, Column] = COMMON
    """What the columns of tables and records mean."""
    among: str = ""
    """Among what networks choose, in a sentence, where a study's ``answers`` do not say it."""
    metric: str = "correct"
    """Column of the records that two models are compared by."""
    compare_by: tuple[str, ...] | None = None
    """Columns that a comparison keeps apart; by default all fields of the condition but ``run``."""
    conditions: tuple[str, ...] = ()
    """The fields of the experiment's conditions, in their order; a run states them when it begins."""
    own_code: str = ""
    """The class that makes the tables, where it is not this one: without it, other tables are made of the records."""
    clean: dict[str, Any] = {}
    """Values of the condition's columns in the row of the unperturbed image; empty where there is no such row."""
    record_columns: tuple[str, ...] | None = None
    """Columns of the records that :meth:`reduce` looks at beside ``model``, ``image``, ``label`` and ``prediction``;
    None for all."""

    @classmethod
    def of(cls, experiment: Any, columns: Mapping[str, Column] | None = None, **fields: Any) -> Self:
        """Return the analysis of an experiment.

        Args:
            experiment: whose name, version, title, question and requirements are taken over.
            columns: what its columns mean, beside those that the class knows.
            fields: any other fields.
        """
        return cls(
            name=experiment.name,
            title=experiment.title,
            reproduces=experiment.reproduces,
            question=experiment.question,
            version=experiment.version,
            labels=experiment.requirements.labels,
            columns={**cls.model_fields["columns"].default, **(columns or {})},
            own_code="" if cls is Analysis else f"{cls.__module__}.{cls.__qualname__}",
            **fields,
        )

    @property
    def heading(self) -> str:
        """The title, and what of the paper the experiment reproduces."""
        return f"{self.title} ({self.reproduces})" if self.reproduces else self.title

    @property
    def metric_column(self) -> Column:
        """What is known of the quantity that two models are compared by."""
        return next((c for name, c in self.columns.items() if (c.of or name) == self.metric), PLAIN)

    def chance(self, answers: int) -> float | None:
        """Return what guessing gives, in the unit of the metric; None where the metric has no such value.

        Args:
            answers: how many answers there are to choose from.
        """
        return 100 / answers if self.metric == "correct" else None

    def reduce(self, records: pl.DataFrame) -> Reduction:
        """Reduce the records of one model, one row per image and condition.

        By default all columns that say how they are averaged are averaged over runs, then over images, per condition,
        without the results that a flag marks as missing.
        """
        sound = without_flagged(records, self.columns)
        keys = condition_columns(self, records)
        return self.reduced(records, {self.name: averages(self, sound, ["model", *keys])}, compared=sound, keys=keys)

    def reduced(
        self,
        records: pl.DataFrame,
        parts: Mapping[str, pl.DataFrame],
        *,
        compared: pl.DataFrame | None = None,
        keys: Sequence[str] = (),
    ) -> Reduction:
        """Return a reduction with what every experiment's has: values to compare by, and counts for the notes.

        Args:
            records: of one model.
            parts: what the tables are made of.
            compared: the rows that the model is compared by, with the column ``metric``; all by default.
            keys: what a comparison keeps apart where ``compare_by`` does not say it.
        """
        by = keys if self.compare_by is None else self.compare_by
        proportions = self.metric_column.average == "proportion"
        values = values_of(records if compared is None else compared, by, self.metric, proportions=proportions)
        if values is not None and not proportions:
            low, high = self.metric_column.limits
            values = dataclasses.replace(values, span=high - low)
        unlabelled: frozenset[str] = frozenset()
        if self.labels and "label" in records.columns:
            unlabelled = frozenset(records.filter(pl.col("label") < 0)["image"].cast(pl.String).unique())
        missing = count_missing(records, self.columns)
        return Reduction(records["model"][0], str(records["weights"][0]), parts, values, missing, unlabelled)

    def tables(self, reductions: Sequence[Reduction]) -> dict[str, pl.DataFrame]:
        """Return the tables, the main one first, from the reductions of all models, in their order.

        By default one table with the conditions' columns that differ, levels last, and everything that is averaged.
        """
        return default_tables(self, reductions)

    @property
    def levels(self) -> list[str]:
        """The columns that are steps of one quantity."""
        return [name for name, column in self.columns.items() if column.level]

    def differences(self, reductions: Sequence[Reduction]) -> pl.DataFrame | None:
        """Return the paired differences between the models; see :func:`ipvit.analysis.aggregate.paired_differences`."""
        return paired_differences(compared(reductions))

    def figures(self, tables: dict[str, pl.DataFrame]) -> dict[str, Figure]:
        """Return the figures; by default the main table's first measure over its level, or as points."""
        return default_figures(self, tables)

    def figures_across(self, tables: dict[str, pl.DataFrame]) -> dict[str, Figure]:
        """Return figures over several data sets, from the tables of as many runs with a further column ``data_set``."""
        return {}

    def answer(self, tables: dict[str, pl.DataFrame]) -> dict[str, str]:
        """Return one text for each model that answers the experiment's question, from the tables."""
        return by_model(self.sentences(tables))

    def sentences(self, tables: dict[str, pl.DataFrame]) -> Iterator[tuple[str, str]]:
        """Yield a model and a sentence about it, from the tables.

        By default: the largest change of the main table's first measure from the clean row, and where it is.
        """
        yield from default_sentences(self, tables)

    def summary(self, tables: dict[str, pl.DataFrame]) -> list[str]:
        """Return what the numbers show; by default the sentences about each model."""
        return [sentence for _, sentence in self.sentences(tables)]


def compared(reductions: Sequence[Reduction]) -> dict[str, Values]:
    """Return what each model is compared by."""
    return {reduction.model: reduction.values for reduction in reductions if reduction.values is not None}


def by_model(sentences: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Return one text for each model from pairs of a model and a sentence."""
    found: dict[str, list[str]] = {}
    for model, sentence in sentences:
        found.setdefault(model, []).append(sentence)
    return {model: " ".join(said) for model, said in found.items()}
