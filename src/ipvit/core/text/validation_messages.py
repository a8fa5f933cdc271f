"""What is wrong with a value that pydantic refuses, in our own words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError

from ipvit.core.text.words import counted
from ipvit.errors import InputError, ParametersError, closest, did_you_mean, printable, shown

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
    """Return the most telling fault of a validation error as one line, with close matches for an unknown key."""
    faults = _by_weight(error.errors(), kind)
    fault = faults[0]
    place = fault["loc"]
    path = printable(_in_words(place))
    more = f" (and {len(faults) - 1} more {'fault' if len(faults) == 2 else 'faults'})" if len(faults) > 1 else ""
    if fault["type"] == "extra_forbidden":
        known = _known(kind, place)
        name = ".".join(str(part) for part in place[-1:])
        where = printable(_in_words(place[:-1]))
        inside = f"{where}: " if where else ""
        return f"{inside}there is no {printable(name)!r}.{did_you_mean(name, known)} Known: {', '.join(known)}{more}"
    text = _range(fault, kind) or fault_text(fault)
    if fault["type"] in ("missing", "too_short", "too_long") or text.startswith(("must", "cannot")):
        return f"{path or 'it'} {text}{more}"
    return f"{path}: {text}{more}" if path else f"{text}{more}"  # none where several fields do not go together


def _by_weight(faults: Sequence[Any], kind: Any) -> list[Any]:
    """Return faults, the one that explains most first: a misspelt key, and then without the missing one it stands for.

    Then unknown keys, then values that do not fit, and last what is missing.
    """
    missing = {fault["loc"]: fault for fault in faults if fault["type"] == "missing"}
    explained: set[tuple[int | str, ...]] = set()
    misspelt: list[Any] = []
    for fault in faults:
        place = fault["loc"]
        if fault["type"] == "extra_forbidden" and (close := closest(str(place[-1]), _known(kind, place))):
            misspelt.append(fault)
            explained |= {(*place[:-1], name) for name in close}
    rank = {"extra_forbidden": 1, "missing": 3}
    rest = [fault for fault in faults if fault not in misspelt and fault["loc"] not in missing.keys() & explained]
    return misspelt + sorted(rest, key=lambda fault: rank.get(fault["type"], 2))


def _known(kind: Any, place: Sequence[int | str]) -> list[str]:
    """Return the keys that there are where an unknown one stands."""
    fields = _model_at(kind, place[:-1]).model_fields
    return [name for name, field in fields.items() if not field.exclude]


def _in_words(place: Sequence[int | str]) -> str:
    """Return where a fault is: of a list of values its name, of a list of mappings also the number of the entry.

    >>> _in_words(("levels", 1)), _in_words(("models", 0, "name"))
    ('levels', 'models, entry 1: name')
    """
    parts = place[:-1] if place and isinstance(place[-1], int) else place
    text = ""
    for part in parts:
        if isinstance(part, int):
            text += f", entry {part + 1}"
        else:
            text += f"{': ' if text.rpartition(', entry ')[1] else '.' if text else ''}{part}"
    return text


_LARGEST_SAID = 1e15
"""Upper limits beyond it are what a number can hold, and nobody's concern who gave another one."""


def _range(fault: Mapping[str, Any], kind: Any) -> str:
    """Return what a number must be that lies outside its range, with both ends; empty for any other fault."""
    if fault["type"] not in ("greater_than", "greater_than_equal", "less_than", "less_than_equal"):
        return ""
    ends = _ends(kind, fault["loc"])
    low, high = ends.get("ge", ends.get("gt")), ends.get("le", ends.get("lt"))
    if low is None or high is None or high > _LARGEST_SAID:
        return ""
    share = "a share" if low == 0 and 0 < high <= 1 else "a number"
    first = f"above {low:g}" if "gt" in ends else f"from {low:g}"
    last = f" and below {high:g}" if "lt" in ends else f" and up to {high:g}" if "gt" in ends else f" to {high:g}"
    words = first + last
    return f"must be {share} {words}, not {shown(fault['input'])}"


def _ends(kind: Any, place: Sequence[int | str]) -> dict[str, float]:
    """Return the limits that a field, or the values of a list in it, states: ``ge``, ``gt``, ``le``, ``lt``."""
    name = next((part for part in reversed(place) if isinstance(part, str)), None)
    info = getattr(_model_at(kind, place[: place.index(name)]), "model_fields", {}).get(name) if name else None
    found: dict[str, float] = {}
    parts: list[Any] = [] if info is None else [*info.metadata, info.annotation]
    for constraint in _constraints(parts):
        for end in ("ge", "gt", "le", "lt"):
            if (value := getattr(constraint, end, None)) is not None:
                found[end] = value
    return found


def _constraints(parts: Sequence[Any]) -> Iterator[Any]:
    for part in parts:
        yield part
        inner: list[Any] = [*(getattr(part, "metadata", None) or ()), *getattr(part, "__metadata__", ())]
        yield from _constraints([*inner, *get_args(part)])


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
    if kind == "missing":  # of a fixed number of values, the place of the first that is not there
        place = fault.get("loc", ())
        return (
            f"needs more than {counted(place[-1], 'value')}" if place and isinstance(place[-1], int) else "is missing"
        )
    if kind == "too_short":
        return f"needs at least {counted(limits['min_length'], 'value')}"
    if kind == "too_long":
        return f"takes at most {counted(limits['max_length'], 'value')}"
    wanted = _WANTED.get(kind)
    if wanted is None:
        return f"cannot be used: {shown(fault['input'])}"
    return f"must be {wanted.format(**limits)}, not {shown(fault['input'])}"


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
