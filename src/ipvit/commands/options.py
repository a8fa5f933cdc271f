"""Options that several commands share."""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Union, get_args, get_origin

from cyclopts import Group, Parameter, Token
from pydantic import BeforeValidator
from pydantic.fields import FieldInfo

from ipvit.core.run_config import RunConfig
from ipvit.core.text.validation_messages import validated
from ipvit.errors import InputError, printable
from ipvit.models.names import split_label

SUBJECT = Group("Models and data", sort_key=1)
PROTOCOL = Group("What is measured", sort_key=2)
HOW = Group("How it is run", sort_key=3)

Flag = Annotated[bool, Parameter(negative="", show_default=False)]
"""A switch that is off unless it is given."""


def yes_or_no(given: bool) -> str:
    """Return a switch's value as a help writes it."""
    return "yes" if given else "no"


Switch = Annotated[bool, Parameter(show_default=yes_or_no)]
"""A switch with a word for either."""


def plain_type(annotation: Any) -> Any:
    """Return a type without the constraints that pydantic checks: they would be checked twice, with other words."""
    origin = get_origin(annotation)
    if origin is Annotated:
        if any(isinstance(part, BeforeValidator) for part in get_args(annotation)[1:]):
            return str  # words that the field itself reads
        return plain_type(get_args(annotation)[0])
    items = tuple(item if item is Ellipsis else plain_type(item) for item in get_args(annotation))
    if origin is tuple:
        return tuple[items]
    if origin is list:
        return list[items]
    if origin in (Union, types.UnionType):
        return Union[items]  # noqa: UP007 - made from a tuple
    return annotation


@dataclasses.dataclass(kw_only=True)
class _RunFolder:
    out: Path | None = None
    """Run folder; run again on it to continue."""


NOT_OFFERED = ("progress", "flush_seconds")
"""Options of a run that the command line does not have: ``--json`` turns the progress bar off."""


def _option(name: str, field: FieldInfo) -> tuple[str, Any, Any]:
    """Return an option of the command line as a field of a dataclass: its name, type, and default.

    What is not given is None, or False for a switch. Words stay text: :class:`RunConfig` says which ones there are.
    """
    kind = plain_type(field.annotation)
    said = printable(field.description or "")
    if kind is bool:
        return name, Annotated[Flag, Parameter(help=said)], False
    number = int in (kind, *get_args(kind))
    default = "" if field.default is None else f" [default: {field.default}]"
    text = Parameter(help=f"{said}{default}")
    return name, Annotated[int | None if number else str | None, text], None


_FromConfig: Any = dataclasses.make_dataclass(
    "_FromConfig",
    [_option(name, field) for name, field in RunConfig.model_fields.items() if name not in NOT_OFFERED],
    bases=(_RunFolder,),
    kw_only=True,
)


@Parameter(name="*", group=HOW)
@dataclasses.dataclass(kw_only=True)
class RunOptions(_FromConfig):
    """How a study is run; an option that is not given leaves the study's own value."""

    json: Flag = False
    """Print the tables as JSON on standard output, nothing else."""

    def config(self) -> RunConfig:
        """Return the options that were given.

        Raises:
            InputError: a value does not fit.
        """
        offered = {name: getattr(self, name) for name in RunConfig.model_fields if name not in NOT_OFFERED}
        given = {name: value for name, value in offered.items() if value is not None and value is not False}
        return validated(RunConfig, given | {"progress": not self.json})


@Parameter(name="*", group=HOW)
@dataclasses.dataclass(kw_only=True)
class MeasureOptions(RunOptions):
    """How a study is run by a command that measures, and what it says of it."""

    dry_run: Flag = False
    """Load and check everything, print the study file and what would be measured, and stop: nothing is written."""
    quiet: Flag = False
    """Print failures and warnings only; tables and report are in the run folder."""
    verbose: Flag = False
    """Also print on standard error what the run folder's log.txt gets: models, data, device, what is done when."""

    def config(self) -> RunConfig:
        """Return the options that were given.

        Raises:
            InputError: a value does not fit, or two do not go together.
        """
        if self.quiet and (self.verbose or self.json):
            raise InputError(f"--quiet and {'--verbose' if self.verbose else '--json'} do not go together")
        given = super().config()
        return given.model_copy(update={"progress": given.progress and not self.quiet})


JUDGED = Group("What must hold", sort_key=4)
ASSERT = Parameter(name="--assert", negative="", consume_multiple=False, group=JUDGED)


@Parameter(name="*", group=JUDGED)
@dataclasses.dataclass(kw_only=True)
class AssertOptions:
    """What must hold of the numbers."""

    asserted: Annotated[list[str] | None, ASSERT] = None
    """What must hold, else the exit code is 3, such as 'occlusion.top1[information_loss=0.5] >= 40'; @FILE for many."""
    junit: Path | None = None
    """Also write what was decided into a JUnit file, one case an assertion."""


@Parameter(name="*", group=HOW)
@dataclasses.dataclass(kw_only=True)
class JudgedOptions(MeasureOptions, AssertOptions):
    """How a study is run by a command that measures, and what must hold of its numbers."""


@dataclasses.dataclass(kw_only=True)
class _MoreOfData:
    data_root: str | None = None
    """Where timm's data sets lie."""
    split: str | None = None
    """Split of timm's data sets. [default: validation]"""
    decoder: str | None = None
    """fast (torchvision) or pil (Pillow). [default: fast]"""
    classes: str | None = None
    """What integer labels are, where the data does not say: imagenet-1k, or a file of class names."""
    labels: str | None = None
    """real: ReaL's labels of ImageNet's validation images."""
    subset: str | None = None
    """robustbench: the 5,000 of ImageNet's validation images that RobustBench measures on."""

    def data_keys(self) -> dict[str, str]:
        """Return what was given beside the data's name, as a study file has it."""
        more = {"root": self.data_root, "split": self.split, "decoder": self.decoder, "classes": self.classes}
        return {
            key: value
            for key, value in (more | {"labels": self.labels, "subset": self.subset}).items()
            if value is not None
        }


@dataclasses.dataclass(kw_only=True)
class _Texts:
    prompts: Annotated[list[str] | None, Parameter(negative="")] = None
    """Of zero-shot models: 'a photo of a {}', openai80, or a file with one such sentence a line; repeatable."""
    class_names: str | None = None
    """Likewise: imagenet, or a file with one class a line. [default: the classes of the data]"""

    def text_keys(self) -> dict[str, Any]:
        """Return what was given, as a study file has it."""
        given = {"prompts": self.prompts or None, "class_names": self.class_names}
        return {key: value for key, value in given.items() if value is not None}


MODEL = Parameter(name=("--model", "-m"), negative="")
DATA = Parameter(name=("--data", "-d"))


@Parameter(name="*", group=SUBJECT)
@dataclasses.dataclass(kw_only=True)
class ModelsAndData(_Texts, _MoreOfData):
    """What is measured."""

    model: Annotated[list[str], MODEL]
    """[LABEL=]NAME, NAME@WEIGHTS (file or URL), NAME@probe:FILE or NAME@knn:DATA; repeatable. LABEL is for tables."""
    data: Annotated[str, DATA]
    """A folder of class folders, a .tar of them, demo:trifeature, or a name that timm knows."""
    pretrained: Switch = True
    """Fetch published weights where none are given; otherwise random ones."""

    def study_keys(self) -> dict[str, Any]:
        """Return models and data as a study file has them."""
        return {
            "models": model_entries(self.model, pretrained=self.pretrained),
            "data": {"name": self.data, **self.data_keys()},
            **self.text_keys(),
        }


@Parameter(name="*", group=SUBJECT)
@dataclasses.dataclass(kw_only=True)
class OtherModelsAndData(_Texts, _MoreOfData):
    """What is measured instead of what a study file says."""

    model: Annotated[list[str] | None, MODEL] = None
    """[LABEL=]NAME[@WEIGHTS] instead of the study's models, for all of its experiments; repeatable."""
    data: Annotated[str | None, DATA] = None
    """Instead of the study's data, as for the experiments."""
    pretrained: bool | None = None
    """Fetch published weights where none are given; otherwise random ones. By default as the study says."""

    def change(self, study: dict[str, Any]) -> dict[str, Any]:
        """Return a study, as :meth:`pydantic.BaseModel.model_dump` gives it, with what was given in its place.

        Other models are for every experiment; other data take no options of the study's.
        """
        changed = study | self.text_keys()
        if self.model:
            changed["models"] = model_entries(self.model, pretrained=self.pretrained is not False)
            changed["experiments"] = [{**entry, "models": None} for entry in study["experiments"]]
        elif self.pretrained is not None:
            changed["models"] = [{**entry, "pretrained": self.pretrained} for entry in study["models"]]
        if self.data is not None:
            changed["data"] = {"name": self.data, **self.data_keys()}
        elif more := self.data_keys():
            changed["data"] = study["data"] | more
        return changed


def model_entries(names: Sequence[str], *, pretrained: bool) -> list[dict[str, Any]]:
    """Return ``[LABEL=]NAME[@WEIGHTS]`` as entries of a study's models.

    Raises:
        InputError: several names stand in one, or a label without a name.
    """
    found: list[dict[str, Any]] = []
    for text in names:
        label, name = split_label(text)
        found.append({"name": name, "pretrained": pretrained} | ({} if label is None else {"label": label}))
    return found


class Commas:
    """Converts the values of a list: each may hold several, parted by commas."""

    def __init__(self, *, free: bool = False) -> None:
        self.free = free

    def __call__(self, _kind: Any, tokens: Sequence[Token]) -> tuple[str, ...]:
        """Return the values as text; the field they are for says what is wrong with them.

        Names of data keep their commas, which part the places of one data set, and so do files that are there.
        """
        found: list[str] = []
        for token in tokens:
            whole = self.free or Path(token.value).exists()
            parts = [token.value] if whole else [part.strip() for part in token.value.split(",")]
            found += [part for part in parts if part]
        return tuple(found)
