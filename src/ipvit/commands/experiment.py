"""One command per experiment, its options made from the experiment's fields."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_origin

from cyclopts import App, Parameter
from pydantic.fields import FieldInfo

from ipvit.commands.measure import measure
from ipvit.commands.options import PROTOCOL, ModelsAndData, RunOptions, plain_type
from ipvit.core.files import path_component
from ipvit.errors import InputError
from ipvit.experiments.registry import experiment_class, experiment_names

if TYPE_CHECKING:
    from ipvit.experiments.base import Experiment


def command_for(name: str) -> Callable[..., int]:
    """Return the command of an experiment: the common options and one option per field."""
    kind = experiment_class(name)

    def command(subject: ModelsAndData, options: RunOptions | None = None, **parameters: Any) -> int:
        from ipvit.engine.study import make_study

        options = options or RunOptions()
        study = make_study(subject.study_keys() | {"experiments": [{"name": name, "parameters": parameters}]})
        return measure(study, options, default_out=Path("runs") / path_component(kind.name))

    command.__doc__ = f"{kind.heading()}.\n\n{kind.question}"
    keyword = inspect.Parameter.KEYWORD_ONLY
    common = [
        inspect.Parameter("subject", keyword, annotation=ModelsAndData),
        inspect.Parameter("options", keyword, annotation=RunOptions | None, default=None),
    ]
    own = [
        inspect.Parameter(
            field, keyword, annotation=_option(info.annotation, info.description), default=_as_given(info)
        )
        for field, info in kind.model_fields.items()
    ]
    command.__signature__ = inspect.Signature([*common, *own])  # pyright: ignore[reportFunctionMemberAccess]
    return command


def add_from_file(app: App, location: str) -> str:
    """Add the command of an experiment in the user's own file; return the command's name."""
    kind: type[Experiment] = experiment_class(location)
    if kind.name in app:
        raise InputError(f"{location!r} is called {kind.name!r}, as a command of ipvit is; give its class another name")
    app.command(command_for(location), name=kind.name)
    return kind.name


def __getattr__(name: str) -> Callable[..., int]:
    for known in experiment_names():
        if known.replace("-", "_") == name:
            return command_for(known)
    raise AttributeError(name)


def _as_given(info: FieldInfo) -> Any:
    """Return a field's default as it would be written on the command line, where the field reads words."""
    default: Any = info.default
    if plain_type(info.annotation) != tuple[str, ...] or not isinstance(default, tuple):
        return default
    return tuple(f"{item:g}" if isinstance(item, float) else item for item in default)


def _option(annotation: Any, text: str | None) -> Any:
    plain = plain_type(annotation)
    several = get_origin(plain) in (tuple, list)
    parameter = Parameter(
        help=text,
        group=PROTOCOL,
        consume_multiple=several,
        negative="" if several else None,
        show_default=_default,
    )
    return Annotated[plain, parameter]


def _default(value: Any) -> str:
    return (
        " ".join(f"{item:g}" if isinstance(item, float) else str(item) for item in value)
        if isinstance(value, tuple | list)
        else str(value)
    )
