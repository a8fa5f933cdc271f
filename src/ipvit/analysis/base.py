"""What follows from the records of an experiment: tables, the comparison of models, figures and sentences."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

import polars as pl
from pydantic import BaseModel, ConfigDict

from ipvit.analysis.aggregate import accuracy_table, mean_table, paired_differences, varying
from ipvit.analysis.columns import COMMON, PLAIN, Column
from ipvit.analysis.record_columns import RESERVED, RUN, SCORES, SHARED_MASK
from ipvit.analysis.reduction import Reduction, Values, count_missing, joined, values_of

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
    metric: str = "correct"
    """Column of the records that two models are compared by."""
    compare_by: tuple[str, ...] | None = None
    """Columns that a comparison keeps apart; by default all fields of the condition but ``run``."""
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

        By default all columns that say how they are averaged are averaged over runs, then over images, per condition.
        """
        keys = condition_columns(records, self.columns)
        main = self._averages(records, ["model", *keys])
        return self.reduced(records, {self.name: main}, keys=keys)

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
        values = values_of(
            records if compared is None else compared, keys if self.compare_by is None else self.compare_by, self.metric
        )
        unlabelled: frozenset[str] = frozenset()
        if self.labels and "label" in records.columns:
            unlabelled = frozenset(records.filter(pl.col("label") < 0)["image"].cast(pl.String).unique())
        missing = count_missing(records, self.columns)
        return Reduction(records["model"][0], str(records["weights"][0]), parts, values, missing, unlabelled)

    def tables(self, reductions: Sequence[Reduction]) -> dict[str, pl.DataFrame]:
        """Return the tables, the main one first, from the reductions of all models, in their order.

        By default one table with the conditions' columns that differ, levels last, and everything that is averaged.
        """
        main = joined(reductions, self.name)
        if main.is_empty():
            return {}
        keys = main.columns[1 : main.columns.index("n_images")]
        several = [name for name in keys if main[name].n_unique() > 1 or name in self.levels]
        main = main.drop(name for name in keys if name not in several)
        order = sorted(several, key=lambda name: name in self.levels)
        rest = main.columns[main.columns.index("n_images") :]
        return {self.name: main.select("model", *order, *rest).sort(order, maintain_order=True)}

    @property
    def levels(self) -> list[str]:
        """The columns that are steps of one quantity."""
        return [name for name, column in self.columns.items() if column.level]

    def differences(self, reductions: Sequence[Reduction]) -> pl.DataFrame | None:
        """Return the paired differences between the models; see :func:`ipvit.analysis.aggregate.paired_differences`."""
        return paired_differences(compared(reductions))

    def figures(self, tables: dict[str, pl.DataFrame]) -> dict[str, Figure]:
        """Return the figures; by default the main table's first measure over its level, or as points."""
        from ipvit.analysis.default_figures import default_figures

        return default_figures(self, tables)

    def figures_across(self, tables: dict[str, pl.DataFrame]) -> dict[str, Figure]:
        """Return figures over several data sets, from the tables of as many runs with a further column ``data_set``."""
        return {}

    def answer(self, tables: dict[str, pl.DataFrame]) -> dict[str, str]:
        """Return one text for each model that answers the experiment's question, from the tables."""
        return by_model(self.sentences(tables))

    def sentences(self, tables: dict[str, pl.DataFrame]) -> Iterator[tuple[str, str]]:
        """Yield a model and a sentence about it, from the tables.

        By default: how far the main table's first measure falls from the clean row, and where.
        """
        main = tables.get(self.name, pl.DataFrame())
        value = first_measure(main)
        if value is None:
            return
        head = self.columns.get(value, PLAIN).head(value)
        for (model,), rows in main.group_by(["model"], maintain_order=True):
            lowest = rows.sort(value).row(0, named=True)
            clean = rows.filter(pl.col(name) == there for name, there in self.clean.items() if name in rows.columns)
            if not self.clean or clean.is_empty() or clean.height == rows.height:
                yield str(model), f"{model}: {head} is at least {lowest[value]:.1f}."
            elif (start := clean[value][0]) <= lowest[value]:
                yield str(model), f"{model}: {head} stays at {start:.1f} or above."
            else:
                where = ", ".join(f"{self.columns[n].head(n)} {lowest[n]:g}" for n in self.levels if n in rows.columns)
                place = f" at {where}" if where else ""
                yield str(model), f"{model}: {head} falls from {start:.1f} to {lowest[value]:.1f}{place}."

    def summary(self, tables: dict[str, pl.DataFrame]) -> list[str]:
        """Return what the numbers show; by default the sentences about each model."""
        return [sentence for _, sentence in self.sentences(tables)]

    def _averages(self, records: pl.DataFrame, by: list[str]) -> pl.DataFrame:
        wanted = {name: c for name, c in self.columns.items() if c.average and (c.of or name) in records.columns}
        proportions = {c.of or name: name for name, c in wanted.items() if c.average == "proportion"}
        means = [name for name, c in wanted.items() if c.average == "mean"]
        found = None
        if proportions:
            found = accuracy_table(records, by, proportions)
        if means:
            renamed = records.rename({c.of: name for name, c in wanted.items() if c.of and name in means})
            table = mean_table(renamed, by, means)
            found = (
                table
                if found is None
                else found.join(
                    table.drop("n_images", "n_runs"), on=by, how="left", nulls_equal=True, maintain_order="left"
                )
            )
        if found is None:
            counts = records.group_by(by, maintain_order=True).agg(n_images=pl.col("image").n_unique())
            return counts.with_columns(pl.col("n_images").cast(pl.Int64))
        return found


def compared(reductions: Sequence[Reduction]) -> dict[str, Values]:
    """Return what each model is compared by."""
    return {reduction.model: reduction.values for reduction in reductions if reduction.values is not None}


def by_model(sentences: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Return one text for each model from pairs of a model and a sentence."""
    found: dict[str, list[str]] = {}
    for model, sentence in sentences:
        found.setdefault(model, []).append(sentence)
    return {model: " ".join(said) for model, said in found.items()}


def condition_columns(records: pl.DataFrame, columns: Mapping[str, Column]) -> list[str]:
    """Return the columns of the records that are the condition's: the same for all images of a condition.

    ``run`` is none of them: runs are averaged.
    """
    measured = {column.of or name for name, column in columns.items() if column.average}
    others = RESERVED | SCORES | measured | {RUN, SHARED_MASK}
    names = [name for name in records.columns if name not in others]
    return [name for name in names if name not in varying(records, names, within=("condition",))]


def first_measure(table: pl.DataFrame) -> str | None:
    """Return the first column of a table that has an interval."""
    return next((name for name in table.columns if f"{name}_low" in table.columns), None)
