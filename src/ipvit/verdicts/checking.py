"""Names in assertions, checked before anything is measured."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

from ipvit.analysis.base import Analysis
from ipvit.analysis.columns import RESERVED, RUN, SCORES, SHARED_MASK
from ipvit.analysis.perturbed import CHANCE, RETAINED
from ipvit.core.plugins import OWN_FILE
from ipvit.errors import InputError, did_you_mean, shown
from ipvit.experiments.base import Experiment
from ipvit.verdicts.grammar import PROFILE, Assertion, Bound, NoWorse
from ipvit.verdicts.sides import Side, side

CLEAN = "clean"
"""The question of a profile that all others are read beside."""

_OF_ACCURACY = frozenset({"top1", "top5", RETAINED, CHANCE, f"area_{RETAINED}", "area_top1"})
_NO_MEASURES = frozenset({"label_name", "prediction_name", "levels", "image", *SCORES, RUN, SHARED_MASK})
_ENDS = ("_low", "_high", "_std")


def check_planned(assertions: Sequence[Assertion], experiments: Iterable[Experiment]) -> dict[str, Side]:
    """Refuse names that no table of a study will have, and runs to compare with that cannot be read.

    Args:
        assertions: what is asserted.
        experiments: of the study.

    Returns:
        The runs that are compared with, opened, by the text that names them.

    Raises:
        InputError: says which name, and which there are.
    """
    analyses = {experiment.name: experiment.analysis() for experiment in experiments}
    references: dict[str, Side] = {}
    for assertion in assertions:
        try:
            _check(assertion, analyses)
            if assertion.reference and assertion.reference not in references:
                references[assertion.reference] = side(assertion.reference)
            if assertion.reference:
                check_reference(assertion, analyses, references[assertion.reference])
        except InputError as error:
            raise InputError(f"--assert {shown(assertion.text, 120)}: {error}") from None
    return references


def experiment_of(assertion: Assertion, names: Collection[str]) -> str:
    """Return the experiment whose table, or whose question of the profile, is meant; empty where it cannot be told."""
    quantity = assertion.quantity
    name = quantity.measure if quantity.table == PROFILE else quantity.table
    found = [known for known in names if name == known or name.startswith(f"{known}-")]
    return max(found, key=len, default="")


def _check(assertion: Assertion, analyses: Mapping[str, Analysis]) -> None:
    quantity, name = assertion.quantity, experiment_of(assertion, analyses)
    if quantity.table == PROFILE:
        if not name and quantity.measure != CLEAN:
            known = [*analyses, CLEAN]
            raise InputError(
                f"the profile of this study has no question {shown(quantity.measure)}; its questions begin with one of "
                f"{', '.join(known)}.{did_you_mean(quantity.measure, known)}"
            )
        _check_columns([column for column, _ in quantity.where], {"model"}, "the profile", "column")
        return
    if not name:
        raise InputError(
            f"this study makes no table {shown(quantity.table)}; there are: {', '.join(analyses)}."
            f"{did_you_mean(quantity.table, analyses)}"
        )
    analysis = analyses[name]
    if _is_foreign(analysis):
        return  # what its tables hold is known when they are made
    tables = {name, *(f"{name}-{end}" for end in analysis.further if end)}
    if analysis.clean:
        tables.add(f"{name}-area")
    if quantity.table not in tables:
        raise InputError(
            f"{name} makes no table {shown(quantity.table)}; there are: {', '.join(sorted(tables))}."
            f"{did_you_mean(quantity.table, tables)}"
        )
    columns = columns_of(analysis, quantity.table)
    _check_columns([quantity.measure], columns - _NO_MEASURES, quantity.table, "measure")
    if type(analysis) is not Analysis:  # the fields of its conditions are known when it runs
        _check_columns([column for column, _ in quantity.where], columns | {"model"}, quantity.table, "column")


def _is_foreign(analysis: Analysis) -> bool:
    return bool(analysis.own_code) and (not analysis.own_code.startswith("ipvit.") or OWN_FILE in analysis.own_code)


def columns_of(analysis: Analysis, table: str) -> set[str]:
    """Return the names that columns of an experiment's table may have, as far as they are known before it is made."""
    own = set(analysis.further.get(table.removeprefix(analysis.name).removeprefix("-"), ()))
    found = {*analysis.columns, *own}
    for names in (analysis.compare_by, analysis.record_columns, analysis.conditions, analysis.clean):
        found |= set(names or ())
    found |= {*analysis.profile_by, *analysis.mean_over, *(name for names in analysis.curve_over for name in names)}
    if analysis.metric != "correct":
        found -= _OF_ACCURACY - own
    if table == f"{analysis.name}-area":
        found |= {"levels"}
    return (found | {f"{name}{end}" for name in found for end in _ENDS}) - RESERVED


def _check_columns(names: Sequence[str], known: Collection[str], where: str, what: str) -> None:
    for name in names:
        if name not in known:
            shorter = sorted(one for one in known if not one.endswith(_ENDS))
            raise InputError(
                f"{where} has no {what} {shown(name)}; there are: {', '.join(shorter)}.{did_you_mean(name, shorter)}"
            )


def check_reference(assertion: Assertion, analyses: Mapping[str, Analysis], reference: Side) -> None:
    """Refuse to compare what is not compared image by image, or not there in the other run.

    Raises:
        InputError: says which measures are compared.
    """
    quantity = assertion.quantity
    name = experiment_of(assertion, analyses)
    if name and name not in reference.run.analyses:
        raise InputError(
            f"{reference.text} has no {name}; there are: {', '.join(reference.run.analyses) or 'no experiments'}"
        )
    if quantity.table == PROFILE or not name:
        return
    analysis = analyses[name]
    if paired_prefix(analysis, quantity.table, quantity.measure) is None:
        measures = ", ".join(f"{name}.{measure}" for measure in paired_measures(analysis))
        raise InputError(
            f"{quantity.table}.{quantity.measure} is not compared image by image; compared are {measures} and the "
            "questions of the profile"
        )
    if isinstance(assertion.claim, NoWorse):
        refuse_neither(better_of(analysis), str(quantity))


def refuse_neither(better: str, what: str) -> None:
    """Raise InputError where more of something is neither better nor worse."""
    if not better:
        raise InputError(f"more of {what} is neither better nor worse; write 'within NUMBER of RUN'")


def better_of(analysis: Analysis) -> str:
    """Return whether more of what models are compared by is better: ``higher``, ``lower``, or empty for neither."""
    return analysis.better or ("higher" if analysis.metric == "correct" else "")


def paired_measures(analysis: Analysis) -> list[str]:
    """Return the columns of the main table whose differences between models are tested image by image."""
    own = [
        name
        for name, column in analysis.columns.items()
        if (column.of or name) == analysis.metric and name != "correct"
    ]
    return [*(own[:1] or [analysis.metric]), *([RETAINED] if analysis.clean and analysis.metric == "correct" else [])]


def paired_prefix(analysis: Analysis, table: str, measure: str) -> str | None:
    """Return what the columns of a measure's paired difference begin with; None where it is not compared."""
    if table != analysis.name or measure not in paired_measures(analysis):
        return None
    return f"{RETAINED}_" if measure == RETAINED else ""


def is_relative(assertion: Assertion) -> bool:
    """Tell whether an assertion compares with another run."""
    return not isinstance(assertion.claim, Bound)
