"""What follows from the records of an experiment: tables, the comparison of models, figures and sentences."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import polars as pl
from pydantic import BaseModel, ConfigDict

from ipvit.analysis.aggregate import paired_differences, told_by_others
from ipvit.analysis.answers import MOST_NAMED
from ipvit.analysis.columns import COMMON, PLAIN, Column
from ipvit.analysis.confidences.rows import calibration_rows, is_recorded, with_calibration
from ipvit.analysis.defaults import (
    averages,
    condition_columns,
    default_figures,
    default_sentences,
    default_tables,
    first_measure,
)
from ipvit.analysis.perturbed import Combination, Scale, area_table, curves, with_retained
from ipvit.analysis.profile import Question, default_questions
from ipvit.analysis.reduction import Reduction, Values, count_missing, labelled, values_of, without_flagged

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
    calibrated_by: tuple[str, ...] | None = None
    """Columns that calibration is told apart by; by default those that a comparison keeps apart."""
    conditions: tuple[str, ...] = ()
    """The fields of the experiment's conditions, in their order; a run states them when it begins."""
    own_code: str = ""
    """The class that makes the tables, where it is not this one: without it, other tables are made of the records."""
    clean: dict[str, Any] = {}
    """Values of the condition's columns in the row of the unperturbed image; empty where there is no such row."""
    curve_over: tuple[tuple[str, ...], ...] = ()
    """Levels that there is an area under the curve over, each with the columns that follow from it; by default every
    level that is a number."""
    curve_scale: Scale = "linear"
    """``log``: areas are those over the logarithm of the level."""
    mean_over: tuple[str, ...] = ()
    """Columns of the condition that a mean over all perturbations is taken over, where there is no curve."""
    short: str = ""
    """Head of the experiment's column in a profile; its name by default."""
    profile_by: tuple[str, ...] = ()
    """Columns of the condition whose values are questions of their own in a profile, such as the mode."""
    record_columns: tuple[str, ...] | None = None
    """Columns of the records that :meth:`reduce` looks at beside ``model``, ``image``, ``label`` and ``prediction``;
    None for all."""

    further: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    """The tables beside the main one, by the end of their names, with those of their columns that no field names;
    under the empty text such columns of the main one."""
    better: ClassVar[Literal["higher", "lower", ""]] = ""
    """Whether more of the metric is better; where it says nothing, more right answers are, and no other metric."""

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
        return Reduction(
            records["model"][0],
            str(records["weights"][0]),
            parts,
            values,
            missing,
            unlabelled,
            calibration=self.calibration(records if self.calibrated_by or compared is None else compared, by),
        )

    def calibration(self, records: pl.DataFrame, by: Sequence[str]) -> pl.DataFrame | None:
        """Return how well the confidences of one model say how often it is right, one row for each condition.

        Args:
            records: of the model.
            by: what a comparison keeps apart.

        Returns:
            None where the records that are read hold no confidences.
        """
        if self.metric != "correct" or not is_recorded(records):
            return None
        known = labelled(records)
        return None if known.is_empty() else calibration_rows(known, self.calibrated_by or by)

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
        return paired_differences(
            compared(reductions), clean=self.clean, chances=self.chances(reductions), kinds=self.kinds(reductions)
        )

    def kind(self, reduction: Reduction) -> str:
        """Return what must be equal of two models for their numbers to be compared, in words; empty for nothing."""
        return ""

    def kinds(self, reductions: Sequence[Reduction]) -> dict[str, str]:
        """Return the kind of every model; see :meth:`kind`."""
        return {reduction.model: self.kind(reduction) for reduction in reductions}

    def chances(self, reductions: Sequence[Reduction]) -> dict[str, float]:
        """Return what guessing gives for each model that was measured with and without a perturbation, as a share."""
        found: dict[str, float] = {}
        for reduction in reductions:
            chance = self.chance(reduction.n_answers) if reduction.n_answers > 1 else None
            if self.clean and chance is not None and reduction.values is not None and reduction.values.proportions:
                found[reduction.model] = chance / 100
        return found

    def conditions_in(self, name: str, table: pl.DataFrame) -> pl.DataFrame | None:
        """Return the rows of a table with the columns that tell conditions apart, as the records have them.

        Args:
            name: of the table.
            table: as :meth:`tables` made it.

        Returns:
            None where its rows are not conditions whose accuracy can be set against the clean one.
        """
        return table if name == self.name else None

    def with_retained(
        self, tables: Mapping[str, pl.DataFrame], reductions: Sequence[Reduction]
    ) -> dict[str, pl.DataFrame]:
        """Return the tables with retained accuracy, and a further one with the areas under the curves.

        See :func:`ipvit.analysis.perturbed.with_retained`.
        """
        chances, models = self.chances(reductions), compared(reductions)
        found = dict(tables)
        if not chances:
            return found
        for name, table in tables.items():
            conditions = self.conditions_in(name, table)
            if conditions is not None and {"model", "top1"} <= set(conditions.columns):
                found[name] = with_retained(table, conditions, models, self.clean, chances)
        areas = self.areas(reductions)
        return found if areas.is_empty() else found | {f"{self.name}-area": areas}

    def with_calibration(
        self, tables: Mapping[str, pl.DataFrame], reductions: Sequence[Reduction]
    ) -> dict[str, pl.DataFrame]:
        """Return the tables with calibration in the rows that are conditions.

        See :func:`ipvit.analysis.confidences.rows.with_calibration`.
        """
        parts = {one.model: one.calibration for one in reductions if one.calibration is not None}
        found = dict(tables)
        for name, table in tables.items():
            conditions = self.calibrated_conditions(name, table)
            if parts and conditions is not None and "model" in conditions.columns:
                found[name] = with_calibration(table, conditions, parts)
        return found

    def calibrated_records(self, records: pl.DataFrame) -> pl.DataFrame:
        """Return the records of one model as :meth:`reduce` looks at them: with what says which belong together."""
        return records

    def shows_clean(self, place: Mapping[str, Any]) -> bool:
        """Tell whether the images of a condition are as they are.

        Args:
            place: the columns that calibration is told apart by, with their values.
        """
        return bool(self.clean) and all(place.get(name) == value for name, value in self.clean.items())

    def calibrated_conditions(self, name: str, table: pl.DataFrame) -> pl.DataFrame | None:
        """Return the rows of a table as :meth:`conditions_in` does, for calibration."""
        return self.conditions_in(name, table)

    @property
    def curve_columns(self) -> tuple[tuple[str, ...], ...]:
        """The levels that there are curves over, each with the columns that follow from it."""
        return self.curve_over or tuple((level,) for level in self.levels)

    def curves(self, values: Values) -> list[Combination]:
        """Return the curves of a model over the experiment's levels."""
        over = self.curve_columns
        return [curve for names in over for curve in curves(values, self.clean, names, self.curve_scale)]

    def areas(self, reductions: Sequence[Reduction]) -> pl.DataFrame:
        """Return the area under the curves of every model, of accuracy and of what is retained."""
        models, chances = compared(reductions), self.chances(reductions)
        rows = [
            row
            for model, chance in chances.items()
            for row in area_table(model, models[model], self.curves(models[model]), chance, shown=LEVELS)
        ]
        if not rows:
            return pl.DataFrame()
        table = pl.DataFrame(rows, infer_schema_length=None)
        start = table.columns.index(LEVELS)
        table = table.drop(told_by_others(table, table.columns[1:start]))
        return table.sort(table.columns[1 : table.columns.index(LEVELS)], nulls_last=True, maintain_order=True)

    def value_title(self, column: str, value: Any) -> str:
        """Return what a value of a condition's column is called in the heads of a profile."""
        return str(value).replace("_", "-")

    def questions(self, reductions: Sequence[Reduction], tables: Mapping[str, pl.DataFrame]) -> list[Question]:
        """Return the columns of a profile that the experiment answers; none where one number says too little.

        By default what is retained of the accuracy, where images were perturbed; else the first measure of the main
        table, where each model has one row there.

        Args:
            reductions: of all models.
            tables: as :meth:`tables` made them.
        """
        main = tables.get(self.name, pl.DataFrame(schema={"model": pl.String}))
        rows = {row["model"]: row for row in main.to_dicts()} if main["model"].n_unique() == main.height else {}
        return default_questions(self, reductions, rows, first_measure(main))

    def figures(self, tables: dict[str, pl.DataFrame]) -> dict[str, Figure]:
        """Return the figures; by default the main table's first measure over its level, or as points."""
        return default_figures(self, tables)

    def figures_across(self, tables: dict[str, pl.DataFrame]) -> dict[str, Figure]:
        """Return figures over several data sets, from the tables of as many runs with a further column ``data_set``."""
        return {}

    def answer(self, tables: dict[str, pl.DataFrame]) -> dict[str, str]:
        """Return one text for each model that answers the experiment's question, from the tables."""
        return by_model(self.sentences(tables))

    def lead(self, tables: dict[str, pl.DataFrame]) -> str:
        """Return the one sentence that answers the experiment's question for each model; empty where there is none.

        By default the sentences about the models, of many models the first few.
        """
        said = list(self.answer(tables).values())
        more = f" The sentences on {len(said) - MOST_NAMED} more models are below." if len(said) > MOST_NAMED else ""
        return " ".join(said[:MOST_NAMED]) + more

    def sentences(self, tables: dict[str, pl.DataFrame]) -> Iterator[tuple[str, str]]:
        """Yield a model and a sentence about it, from the tables.

        By default: the largest change of the main table's first measure from the clean row, and where it is.
        """
        yield from default_sentences(self, tables)

    def summary(self, tables: dict[str, pl.DataFrame]) -> list[str]:
        """Return what the numbers show; by default the sentences about each model."""
        return [sentence for _, sentence in self.sentences(tables)]


LEVELS = "levels"
"""Column of the levels that an area is taken over: only areas over equal levels compare."""


def compared(reductions: Sequence[Reduction]) -> dict[str, Values]:
    """Return what each model is compared by."""
    return {reduction.model: reduction.values for reduction in reductions if reduction.values is not None}


def by_model(sentences: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Return one text for each model from pairs of a model and a sentence."""
    found: dict[str, list[str]] = {}
    for model, sentence in sentences:
        found.setdefault(model, []).append(sentence)
    return {model: " ".join(said) for model, said in found.items()}
