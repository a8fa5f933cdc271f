"""The numbers of one model as metadata and a table for its card: the profile, one number a question.

Two formats of the hub: ``model-index`` in the YAML on top of a card, and ``.eval_results/*.yaml`` beside it, whose
entries belong to a data set of the hub. See https://huggingface.co/docs/hub/eval-results.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from ipvit.analysis.sentences import interval
from ipvit.core.manifest import Manifest, UsedModel
from ipvit.errors import InputError
from ipvit.report.profile import HOW_TO_READ, Column
from ipvit.report.tables.files import markdown_table

if TYPE_CHECKING:
    from ipvit.analysis.profile import Score
    from ipvit.results import Run

INDEX, TABLE, RESULTS = "model-index.yaml", "card.md", ".eval_results/ipvit.yaml"
"""The files of a card."""

HUB_NAMES = {"imagenet": "ILSVRC/imagenet-1k"}
"""Data sets of the hub by the name of the published set; for any other the user gives it."""

BEGIN, END = "<!-- ipvit: begin -->", "<!-- ipvit: end -->"
"""Around the table: it takes the place of an earlier one."""

CLEAN = "clean"


@dataclasses.dataclass(frozen=True)
class Source:
    """Where the numbers can be looked up, and what the data set is called on the hub.

    Attributes:
        url: of the report, for example; empty for none.
        dataset: ``OWNER/NAME`` on the hub; empty where it is not given.
    """

    url: str = ""
    dataset: str = ""


@dataclasses.dataclass(frozen=True)
class ModelCard:
    """What is exported of one model.

    Attributes:
        model: its name in the tables.
        index: the list under ``model-index``.
        results: the entries of ``.eval_results``; empty where the data have no name on the hub.
        table: Markdown.
        missing: why there are no entries; empty where there are.
    """

    model: str
    index: list[dict[str, Any]]
    results: list[dict[str, Any]]
    table: str
    missing: str = ""

    def files(self) -> dict[str, str]:
        """Return the texts of the files by their names."""
        found = {INDEX: as_yaml({"model-index": self.index}), TABLE: self.table}
        return found | ({RESULTS: as_yaml(self.results)} if self.results else {})


def card_of(run: Run, name: str, source: Source) -> ModelCard:
    """Return what a run says of one of its models.

    Args:
        run: read from its folder.
        name: of the model, as in the tables.
        source: of the numbers and of the data.

    Raises:
        InputError: there is no such model, none of its numbers stands in the profile, or they say nothing: its weights
            are random or its answers are.
    """
    used = next((model for model in run.manifest.models if model.name == name), None)
    if used is None:
        known = ", ".join(model.name for model in run.manifest.models)
        raise InputError(f"{str(run.out)!r} has no model {name!r}; it has {known}")
    if used.untrained or used.doubt:
        why = used.doubt_in_words or f"{name} has random weights: its numbers say nothing."
        raise InputError(f"{why} They are not for a model card")
    columns = [column for column in run.profile.columns if _is_number(column.score(name))]
    if not columns:
        raise InputError(f"{name} has no number in the profile of {str(run.out)!r}: ipvit profile says what it needs")
    numbers = [_Number.of(run, column, used) for column in columns]
    dataset = source.dataset or HUB_NAMES.get(run.manifest.data.published or "", "")
    missing = (
        ""
        if dataset
        else f"no {RESULTS}: its entries belong to a data set of the hub, and what {run.manifest.data.name} is called "
        "there is not known here; give it as --dataset OWNER/NAME"
    )
    own = [number for number in numbers if number.fingerprint == run.manifest.data.fingerprint]
    return ModelCard(
        name,
        _index(name, numbers, run.manifest, source),
        [number.entry(dataset, run.manifest, source) for number in own] if dataset else [],
        _table(name, numbers, run),
        missing,
    )


@dataclasses.dataclass(frozen=True)
class _Number:
    """One number, and all that is part of it."""

    key: str
    title: str
    what: str
    value: float
    low: float
    high: float
    digits: int
    unit: str
    n_images: int
    protocol: str
    answers: str
    data: str
    fingerprint: str

    @classmethod
    def of(cls, run: Run, column: Column, model: UsedModel) -> _Number:
        manifest, analysis = run.manifest, run.analyses[column.experiment]
        question, score = column.question, column.score(model.name)
        assert score is not None
        subject = manifest.subject(column.experiment)
        chosen, outputs = subject.among.get(model.digest, (0, 0))
        answers = ""
        if chosen and analysis.labels:
            answers = f"{chosen:,} classes" if chosen == outputs else f"{chosen:,} classes of {outputs:,} outputs"
        return cls(
            question.key,
            question.title,
            question.what,
            float(score.value),
            float(score.low),
            float(score.high),
            question.digits,
            question.unit,
            score.n_images,
            score.protocol,
            answers,
            _public(subject.name or manifest.data.name, subject.published),
            subject.fingerprint,
        )

    @property
    def ends(self) -> str:
        return interval(self.low, self.high, self.digits)

    @property
    def said(self) -> str:
        """The number as text, with its unit."""
        return f"{self.value:.{self.digits}f}{' %' if self.unit == 'percent' else ''}"

    def metric(self) -> dict[str, Any]:
        """Return the number as a metric of ``model-index``."""
        parts: dict[str, Any] = {"what": self.what, "images": self.n_images, "protocol": self.protocol}
        if self.ends:
            parts["interval_95"] = [round(self.low, 4), round(self.high, 4)]
        if self.answers:
            parts["answers_among"] = self.answers
        kind = "accuracy" if self.key == CLEAN else f"ipvit-{self.key}"
        unit = f"{self.title}, %" if self.unit == "percent" else self.title
        return {"type": kind, "value": round(self.value, 4), "name": unit, "args": parts}

    def entry(self, dataset: str, manifest: Manifest, source: Source) -> dict[str, Any]:
        """Return the number as an entry of ``.eval_results``."""
        notes = [self.what, f"95 % interval {self.ends}" if self.ends else "", f"{self.n_images:,} images"]
        notes += [f"among {self.answers}" if self.answers else "", self.protocol, *_state(manifest)]
        found: dict[str, Any] = {"dataset": {"id": dataset, "task_id": self.key}, "value": round(self.value, 4)}
        found["date"] = manifest.finished
        if source.url:
            found["source"] = {"url": source.url, "name": _tool(manifest)}
        return found | {"notes": "; ".join(filter(None, notes))}


def _public(name: str, published: str | None) -> str:
    """Return what data are called in public: a published set by its name, a folder without where it lies."""
    return published or (name if name.startswith("demo:") else Path(name.rpartition(":")[2]).name)


def _is_number(score: Score | None) -> bool:
    return score is not None and math.isfinite(score.value)


def _tool(manifest: Manifest) -> str:
    """Return what measured, with its version."""
    return f"ipvit {manifest.versions.get('ipvit') or ''}".strip()


def _state(manifest: Manifest) -> list[str]:
    """Return what is wrong with all numbers of a run."""
    found: list[str] = []
    if manifest.limited:
        found.append(f"limited run: {manifest.images_used:,} of {manifest.data.images:,} images")
    if not manifest.finished_well:
        found.append(f"not finished: {manifest.status}")
    return found


def _index(name: str, numbers: Sequence[_Number], manifest: Manifest, source: Source) -> list[dict[str, Any]]:
    """Return ``model-index``: a result for each data set."""
    results: list[dict[str, Any]] = []
    for fingerprint in dict.fromkeys(number.fingerprint for number in numbers):
        those = [number for number in numbers if number.fingerprint == fingerprint]
        own = fingerprint == manifest.data.fingerprint
        kind = (source.dataset or HUB_NAMES.get(manifest.data.published or "", "")) if own else ""
        about: dict[str, Any] = {"fingerprint": fingerprint, "seed": manifest.seed, "precision": manifest.precision}
        if state := _state(manifest):
            about["note"] = "; ".join(state)
        result: dict[str, Any] = {
            "task": {"type": "image-classification", "name": "Image classification"},
            "dataset": {"name": those[0].data, "type": kind or those[0].data, "args": about},
            "metrics": [number.metric() for number in those],
        }
        if source.url:
            result["source"] = {"url": source.url, "name": _tool(manifest)}
        results.append(result)
    return [{"name": name, "results": results}]


def _table(name: str, numbers: Sequence[_Number], run: Run) -> str:
    """Return the table for a card, in Markdown, with what a reader must know."""
    manifest = run.manifest
    several = len({number.data for number in numbers}) > 1
    heads = [
        "question",
        "number",
        "95 % interval",
        "images",
        *(["data"] if several else []),
        "answers among",
        "protocol",
    ]
    rows = [
        [
            number.title,
            number.said,
            number.ends,
            f"{number.n_images:,}",
            *([number.data] if several else []),
            number.answers,
            number.protocol,
        ]
        for number in numbers
    ]
    data, when = _public(manifest.data.name, manifest.data.published), manifest.finished[:10]
    said = [f"Measured on {data} with {_tool(manifest)}, {when}, seed {manifest.seed}."]
    said += [f"{text[:1].upper()}{text[1:]}." for text in _state(manifest)]
    notes = [*said, HOW_TO_READ.partition(" A rank is")[0], "", *_definitions(numbers)]
    lines = [BEGIN, f"## What {name} relies on", "", markdown_table(heads, rows), *notes, END]
    return "\n".join(lines) + "\n"


def _definitions(numbers: Sequence[_Number]) -> list[str]:
    return [*(f"- {number.title}: {number.what}" for number in numbers)]


def as_yaml(content: Any) -> str:
    """Return plain content as YAML, in its order."""
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=120)
