"""One command per experiment, its options made from the experiment's fields."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args, get_origin

from cyclopts import App, Parameter
from pydantic import WrapValidator
from pydantic.fields import FieldInfo

from ipvit.commands.measure import measure
from ipvit.commands.options import PROTOCOL, Commas, JudgedOptions, ModelsAndData, plain_type, yes_or_no
from ipvit.core.files import path_component
from ipvit.errors import InputError, printable
from ipvit.experiments.registry import experiment_class, experiment_names

if TYPE_CHECKING:
    from ipvit.experiments.base import Experiment


def command_for(name: str) -> Callable[..., int]:
    """Return the command of an experiment: the common options and one option per field."""
    kind = experiment_class(name)

    def command(subject: ModelsAndData, options: JudgedOptions | None = None, **parameters: Any) -> int:
        from ipvit.engine.study import make_study

        options = options or JudgedOptions()
        study = make_study(subject.study_keys() | {"experiments": [{"name": name, "parameters": parameters}]})
        return measure(study, options, default_out=Path("runs") / path_component(kind.name))

    command.__doc__ = f"{kind.heading()}.\n\n{kind.question}"
    keyword = inspect.Parameter.KEYWORD_ONLY
    common = [
        inspect.Parameter("subject", keyword, annotation=ModelsAndData),
        inspect.Parameter("options", keyword, annotation=JudgedOptions | None, default=None),
    ]
    own = [_option(field, info) for field, info in kind.model_fields.items()]
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


def _option(name: str, info: FieldInfo) -> inspect.Parameter:
    """Return a field of an experiment as an option.

    Several values are one list, with spaces or commas between them, and reach the field as text: it says what is wrong.
    """
    plain, default = plain_type(info.annotation), info.default
    several = get_origin(plain) in (tuple, list)
    empty = default is None or default == "" or default == ()
    text = printable(info.description or "")
    if several and (choices := _literals(plain)):
        text += f" [choices: {', '.join(map(str, choices))}]"
    parameter = Parameter(
        help=text,
        group=PROTOCOL,
        consume_multiple=several,
        converter=Commas(free=_holds_data(info.annotation)) if several else None,
        negative="" if several else None,
        show_default=False if empty else _default,
        show_choices="" not in _literals(plain),
    )
    kind = list[str] if several else plain
    if isinstance(default, tuple):  # as it would be written
        default = [f"{item:g}" if isinstance(item, float) else str(item) for item in default]
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, annotation=Annotated[kind, parameter], default=default
    )


def _literals(annotation: Any) -> list[Any]:
    if get_origin(annotation) is Literal:
        return [*get_args(annotation)]
    return [value for part in get_args(annotation) for value in _literals(part)]


def _holds_data(annotation: Any) -> bool:
    """Whether the values are names of data, in which a comma parts the places of one data set."""
    if get_origin(annotation) is Annotated:
        return any(isinstance(part, WrapValidator) for part in get_args(annotation)[1:]) or _holds_data(
            get_args(annotation)[0]
        )
    return any(_holds_data(part) for part in get_args(annotation))


def _default(value: Any) -> str:
    if isinstance(value, list):
        return " ".join(value)
    if isinstance(value, bool):
        return yes_or_no(value)
    return f"{value:.4g}" if isinstance(value, float) else str(value)
