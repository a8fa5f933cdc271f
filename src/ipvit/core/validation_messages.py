"""What is wrong with a value that pydantic refuses, in our own words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError

from ipvit.errors import InputError, ParametersError, did_you_mean, printable, shown

M = TypeVar("M", bound=BaseModel)


def validated(kind: type[M], values: Mapping[str, Any], where: str = "") -> M:
    """Return a pydantic model of values that a user gave.

    Args:
        kind: the model's class.
        values: by the names of its fields.
        where: what the message begins with, such as the file that the values stand in.

    Raises:
        InputError: a field is unknown or missing, or a value does not fit.
    """
    try:
        return kind(**values)
    except ValidationError as error:
        fault = explain(error, kind)
    except ParametersError as error:
        fault = error.fault
    raise InputError(f"{where}: {fault}" if where else fault)


def explain(error: ValidationError, kind: Any) -> str:
    """Return the first fault of a validation error as one line, with close matches for an unknown key."""
    fault = error.errors()[0]
    place = fault["loc"]
    path = printable(".".join(str(part) for part in place))
    more = f" (and {error.error_count() - 1} more faults)" if error.error_count() > 1 else ""
    if fault["type"] == "extra_forbidden":
        fields = _model_at(kind, place[:-1]).model_fields
        known = [name for name, field in fields.items() if not field.exclude]
        return f"there is no {path!r}.{did_you_mean(str(place[-1]), known)} Known: {', '.join(known)}{more}"
    text = fault_text(fault)
    if fault["type"] in ("missing", "too_short", "too_long") or text.startswith(("must", "cannot")):
        return f"{path or 'it'} {text}{more}"
    return f"{path}: {text}{more}" if path else f"{text}{more}"  # none where several fields do not go together


def _model_at(kind: Any, place: Sequence[int | str]) -> Any:
    """Return the pydantic model that lies in another one, given the keys on the way."""
    for part in place:
        info = kind.model_fields.get(part)  # a number is the place in a list
        if info is None:
            continue
        kind = next(_models_in(info.annotation), kind)
    return kind


def _models_in(annotation: Any) -> Iterator[Any]:
    if hasattr(annotation, "model_fields"):
        yield annotation
    for part in get_args(annotation):
        yield from _models_in(part)


def fault_text(fault: Mapping[str, Any]) -> str:
    """Return what is wrong with a value, from an entry of pydantic's ``ValidationError.errors()``, in our words.

    The value itself is shown in short; where it is, is for the caller to say.
    """
    kind, limits = fault["type"], fault.get("ctx", {})
    if kind in ("value_error", "assertion_error"):  # words of our own, which already name the value
        return fault["msg"].partition(", ")[2]
    if kind == "missing":
        return "is missing"
    if kind == "too_short":
        return f"needs at least {_counted(limits['min_length'])}"
    if kind == "too_long":
        return f"takes at most {_counted(limits['max_length'])}"
    wanted = _WANTED.get(kind)
    if wanted is None:
        return f"cannot be used: {shown(fault['input'])}"
    return f"must be {wanted.format(**limits)}, not {shown(fault['input'])}"


def _counted(number: int) -> str:
    return f"{number} value" if number == 1 else f"{number} values"


_A_NUMBER, _A_WHOLE_NUMBER, _TRUE_OR_FALSE = "a number", "a whole number", "true or false"

_WANTED = {
    "greater_than": "more than {gt:g}",
    "greater_than_equal": "{ge:g} or more",
    "less_than": "less than {lt:g}",
    "less_than_equal": "{le:g} or less",
    "literal_error": "{expected}",
    "enum": "{expected}",
    "int_type": _A_WHOLE_NUMBER,
    "int_parsing": _A_WHOLE_NUMBER,
    "int_from_float": _A_WHOLE_NUMBER,
    "int_parsing_size": "a whole number that is not as long",
    "float_type": _A_NUMBER,
    "float_parsing": _A_NUMBER,
    "finite_number": "a finite number",
    "bool_type": _TRUE_OR_FALSE,
    "bool_parsing": _TRUE_OR_FALSE,
    "string_type": "text",
    "string_unicode": "text",
    "string_sub_type": "text",
    "string_pattern_mismatch": "text of the form {pattern}",
    "list_type": "a list",
    "tuple_type": "a list",
    "dict_type": "a mapping of keys to values",
    "mapping_type": "a mapping of keys to values",
    "model_type": "a mapping of keys to values",
    "model_attributes_type": "a mapping of keys to values",
    "path_type": "a path",
    "none_required": "empty",
    "json_invalid": "JSON",
    "json_type": "JSON",
}
"""What is right where pydantic finds a fault of a kind."""
