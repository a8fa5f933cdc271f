"""Options that several commands share."""

from __future__ import annotations

import dataclasses
import types
from pathlib import Path
from typing import Annotated, Any, Union, get_args, get_origin

from cyclopts import Group, Parameter
from pydantic import BeforeValidator
from pydantic.fields import FieldInfo

from ipvit.core.run_config import RunConfig
from ipvit.core.validation_messages import validated

SUBJECT = Group("Models and data", sort_key=1)
PROTOCOL = Group("What is measured", sort_key=2)
HOW = Group("How it is run", sort_key=3)

Flag = Annotated[bool, Parameter(negative="", show_default=False)]
"""A switch that is off unless it is given."""


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
    if kind is bool:
        return name, Annotated[Flag, Parameter(help=field.description)], False
    number = int in (kind, *get_args(kind))
    return name, Annotated[int | None if number else str | None, Parameter(help=field.description)], None


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


@Parameter(name="*", group=SUBJECT)
@dataclasses.dataclass(kw_only=True)
class ModelsAndData:
    """What is measured."""

    model: Annotated[list[str], Parameter(name=("--model", "-m"), negative="")]
    """NAME, NAME@WEIGHTS with a file or URL, or NAME@probe:FILE; repeatable."""
    data: Annotated[str, Parameter(name=("--data", "-d"))]
    """A folder of class folders, a .tar of them, demo:trifeature, or a name that timm knows."""
    data_root: str | None = None
    """Where timm's data sets lie."""
    split: str | None = None
    """Split of timm's data sets."""
    decoder: str | None = None
    """fast (torchvision) or pil (Pillow)."""
    classes: str | None = None
    """What integer labels are, where the data does not say: imagenet-1k, or a file of class names."""
    labels: str | None = None
    """real: ReaL's labels of ImageNet's validation images."""
    pretrained: bool = True
    """Fetch published weights where none are given; otherwise random ones."""

    def study_keys(self) -> dict[str, object]:
        """Return models and data as a study file has them."""
        more = {"root": self.data_root, "split": self.split, "decoder": self.decoder, "classes": self.classes}
        more["labels"] = self.labels
        data = {"name": self.data, **{key: value for key, value in more.items() if value is not None}}
        return {"models": [{"name": name, "pretrained": self.pretrained} for name in self.model], "data": data}
