"""What must be equal of two runs for their numbers to be compared, and what a reader is told where it is not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from ipvit.analysis.columns import RUN
from ipvit.analysis.reduction import Values
from ipvit.core.manifest import ExperimentData, Manifest
from ipvit.core.text.words import counted
from ipvit.report.settings import as_text
from ipvit.results import Run
from ipvit.verdicts.sides import Matched, Side

SET_DIGEST = "set_digest"
"""Column of a condition on one of several data sets; see :class:`ipvit.experiments.base.SetCondition`."""

REVISION = "revision"
"""Column of a condition that is measured otherwise since it was put right, such as a corruption."""


def other_subject(a: Run, b: Run, pair: Matched, name: str) -> str:
    """Return what is other of the data or the answers of an experiment; empty where both runs agree."""
    first, second = a.manifest.subject(name), b.manifest.subject(name)
    if not _fingerprints(first, a.manifest) & _fingerprints(second, b.manifest):
        return f"other data: {_named(first, a.manifest)} and {_named(second, b.manifest)}"
    labellings = (a.manifest.data.labelling, b.manifest.data.labelling)
    if None not in labellings and labellings[0] != labellings[1]:
        return "other labels: the classes of the data have other names"
    return _other_answers(first, second, pair) or _other_version(a, b, name)


def _fingerprints(subject: ExperimentData, manifest: Manifest) -> set[str]:
    also = manifest.fingerprints.get(subject.fingerprint)
    return {subject.fingerprint, *([also] if also else [])}


def _named(subject: ExperimentData, manifest: Manifest) -> str:
    return f"{subject.name or manifest.data.name} ({subject.fingerprint[:8]})"


def _other_answers(first: ExperimentData, second: ExperimentData, pair: Matched) -> str:
    among = (first.among.get(pair.weights_a, (0, 0))[0], second.among.get(pair.weights_b, (0, 0))[0])
    if 0 not in among and among[0] != among[1]:
        return (
            f"other answer space: {pair.model_a} chose among {among[0]:,} answers, {pair.model_b} among {among[1]:,}; "
            "measure both with --answers data"
        )
    spaces = (first.answers_of(pair.weights_a), second.answers_of(pair.weights_b))
    if 0 in among and spaces[0] != spaces[1]:
        return f"other answer space: --answers {spaces[0]} and --answers {spaces[1]}"
    return ""


def _other_version(a: Run, b: Run, name: str) -> str:
    versions = (a.analyses[name].version, b.analyses[name].version)
    return (
        "" if versions[0] == versions[1] else f"other protocol: version {versions[0]} and version {versions[1]} of it"
    )


def other_protocol(first: Values | None, second: Values | None) -> str:
    """Return why two models share no condition of an experiment: the columns that have no value in common."""
    if first is None or second is None:
        return "no values of single images to compare by"
    apart: list[str] = []
    for name in first.names:
        if name not in second.names:
            continue
        mine, theirs = (list(dict.fromkeys(key[of.names.index(name)] for key in of.keys)) for of in (first, second))
        if not set(mine) & set(theirs):
            apart.append(f"{name.replace('_', ' ')} {_some(mine)} and {_some(theirs)}")
    if apart:
        return f"other protocol: {'; '.join(apart)}"
    if not set(first.images) & set(second.images):
        return "no image was measured in both runs"
    return "other protocol: no condition was measured alike on both"


def _some(values: Sequence[Any]) -> str:
    shown = [f"{value:g}" if isinstance(value, float) else str(value) for value in values]
    return ", ".join(shown) if len(shown) <= 4 else f"{', '.join(shown[:3])} and {len(shown) - 3} more"


def rows_of_other_protocol(
    a: Run, b: Run, pair: Matched, name: str, values: Values, rows: Sequence[int]
) -> dict[int, str]:
    """Return the numbers of the rows whose conditions differ in what models are not compared by, and in what.

    Such as another revision of a corruption. What follows from the model, and not from the experiment's settings, may
    differ: it counts only where the settings of the two runs differ too. Revisions, and of several data sets their
    digests, always count.

    Args:
        a: the first run.
        b: the second run.
        pair: the models.
        name: of the experiment.
        values: what one of the models is compared by.
        rows: for each row of a comparison the number of its condition in ``values``.
    """
    first, second = a.conditions_of(name, pair.weights_a), b.conditions_of(name, pair.weights_b)
    others = [column for column in first.columns if column in second.columns and column not in (*values.names, RUN)]
    if not other_settings(a, b, name):
        others = [column for column in others if column in (SET_DIGEST, REVISION)]
    found: dict[int, str] = {}
    for number, at in enumerate(rows) if others else ():
        key = dict(zip(values.names, values.keys[at], strict=True))
        mine, theirs = (_of_condition(frame, key) for frame in (first, second))
        for column in others:
            one, other = set(mine[column].to_list()), set(theirs[column].to_list())
            if one and other and one != other:
                what = "images" if column == SET_DIGEST else column.replace("_", " ")
                found.setdefault(number, f"other {what}")
    return found


def _of_condition(conditions: pl.DataFrame, key: Mapping[str, Any]) -> pl.DataFrame:
    return conditions.filter(
        *(pl.col(column).eq_missing(pl.lit(value)) for column, value in key.items() if column in conditions.columns)
    )


def other_settings(a: Run, b: Run, name: str) -> list[str]:
    """Return the settings of an experiment that differ between two runs, in words; none where they are not known."""
    mine, theirs = ({setting.name: setting.value for setting in run.settings_of(name)} for run in (a, b))
    return [
        f"{setting} {as_text(mine[setting])} and {as_text(theirs[setting])}"
        for setting in mine
        if setting in theirs and mine[setting] != theirs[setting]
    ]


def remarks(a: Side, b: Side) -> list[str]:
    """Return what a reader must know of two runs that may be compared all the same."""
    first, second = a.run.manifest, b.run.manifest
    found = [f"{of.text}: {sentence}" for of in (a, b) for sentence in of.run.told]
    if first.seed != second.seed:
        found.append(
            f"Other seeds ({first.seed} and {second.seed}): random masks differ between the two runs. Masks are drawn "
            "for each image, so the pairs of images stand; the differences vary with the masks too."
        )
    if first.precision != second.precision or first.backend != second.backend:
        found.append(f"Other precision: {first.precision} ({first.backend}) and {second.precision} ({second.backend}).")
    if first.images_used != second.images_used:
        found.append(
            f"{a.text} used {counted(first.images_used, 'image')}, {b.text} {second.images_used:,}: compared on those "
            "that both used."
        )
    elif first.limited:
        found.append(f"Limited runs: {first.images_used:,} of {counted(first.data.images, 'image')}.")
    return list(dict.fromkeys(found))
