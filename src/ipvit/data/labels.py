"""Which output of the model each class of the data is: stated, or by a rule that is told."""

from __future__ import annotations

import collections
import re
from collections.abc import Mapping, Sequence

import numpy as np

from ipvit.core.text.text_files import same_letters
from ipvit.errors import InputError

_SEVERAL = re.compile(r"(?P<aggregate>mean|max)\s*\((?P<inside>[^()]+)\)|(?P<names>[^,()]+(?:,[^,()]+)+)")
"""Several names or output numbers of one class: ``281,282``, ``max(n02123045, n02123159)``."""


def map_classes(
    data_classes: Sequence[str],
    aliases: Sequence[str] | None,
    model_classes: Sequence[str] | None,
    *,
    data_name: str,
    model_name: str,
    n_outputs: int | None = None,
    notes: list[str] | None = None,
) -> np.ndarray:
    """Return, for each class of the data, the index of the model's only output for it.

    See :func:`outputs_of_classes`, which takes the same arguments.

    Returns:
        ``(len(data_classes),)`` int64.

    Raises:
        InputError: a class cannot be found or has several outputs, or two classes are the same output.
    """
    outputs = outputs_of_classes(
        data_classes,
        aliases,
        model_classes,
        data_name=data_name,
        model_name=model_name,
        n_outputs=n_outputs,
        notes=notes,
    )
    several = next((place for place, columns in enumerate(outputs) if len(columns) > 1), None)
    if several is not None:
        raise InputError(
            f"the class {data_classes[several]!r} of {data_name} is {len(outputs[several])} outputs of {model_name}, "
            "where one label an image is needed; --answers data makes one answer of them"
        )
    return np.array([columns[0] for columns in outputs], dtype=np.int64)


def outputs_of_classes(
    data_classes: Sequence[str],
    aliases: Sequence[str] | None,
    model_classes: Sequence[str] | None,
    *,
    data_name: str,
    model_name: str,
    n_outputs: int | None = None,
    notes: list[str] | None = None,
) -> tuple[tuple[int, ...], ...]:
    """Return, for each class of the data, the indices of the model's outputs for it: one, where no more are stated.

    A class is found by its name or by its alias (the second column of ``classes.txt``), among the model's class names.
    An alias may be several names or output numbers, divided by commas, and ``max(...)`` round them, see
    :func:`stated_aggregate`. Where the model's classes are unknown, the data
    must state output numbers as aliases, or have exactly as many classes as there are outputs: they are then taken in
    their order, folders that are numbers by number. So are numbers 0 to n - 1 where the model's n names are no numbers
    (ImageNet-V2's folders). Both is noted.

    Args:
        data_classes: names of the data's classes, for example ImageNet synsets (any subset, any order).
        aliases: second names, one per class, or None.
        model_classes: names of the model's outputs in their order, or None.
        data_name: for the message.
        model_name: for the message.
        n_outputs: how many outputs the model has, where its classes are unknown.
        notes: the rule by which classes without names were mapped is added here, in a sentence.

    Raises:
        InputError: a class cannot be found, or two classes share an output.
    """
    data_classes = [same_letters(name) for name in data_classes]
    aliases = None if aliases is None else [same_letters(name) for name in aliases]
    outputs = None if model_classes is None else {same_letters(name): i for i, name in enumerate(model_classes)}
    count = n_outputs if model_classes is None else len(model_classes)
    stated = aliases is not None
    found = None if stated else _by_count(data_classes, outputs, count)
    if found is not None:
        mapping, rule = found
        if notes is not None:
            unknown = "whose class names are unknown" if outputs is None else "whose class names are none of them"
            notes.append(
                f"{data_name} has as many classes as {model_name}, {unknown}, has outputs ({count}): they were taken "
                f"{rule}; a classes.txt with lines 'folder<TAB>output number' states another order"
            )
        return tuple((number,) for number in mapping)
    twice = {name for name, number in collections.Counter(map(same_letters, model_classes or ())).items() if number > 1}
    for name, second in zip(data_classes, aliases or data_classes, strict=True):
        if said := next((part for part in (name, second) if part in twice), ""):
            raise InputError(
                f"several outputs of {model_name} are called {said!r}, so the class {name!r} of {data_name} cannot be "
                "told by its name; state its output number in classes.txt"
            )
    columns = [
        _found(name, second, outputs, count if stated else 0)
        for name, second in zip(data_classes, aliases or data_classes, strict=True)
    ]
    _refuse_unknown(data_classes, columns, model_classes, count, data_name, model_name)
    owners: dict[int, str] = {}
    for name, numbers in zip(data_classes, columns, strict=True):
        if len(set(numbers)) < len(numbers):
            raise InputError(f"the class {name!r} of {data_name} names one output of {model_name} twice")
        if owners.keys() & set(numbers):
            raise InputError(f"two classes of {data_name} are the same output of {model_name}; one of them is {name!r}")
        owners |= dict.fromkeys(numbers, name)
    return tuple(columns)


def stated_aggregate(aliases: Sequence[str]) -> str:
    """Return what the probability of a class is of those of its several outputs: ``mean`` or ``max``.

    Args:
        aliases: second names of classes that are several outputs.

    Raises:
        InputError: second names state one and the other.
    """
    found = {(match["aggregate"] or "mean") for name in aliases if (match := _SEVERAL.fullmatch(name.strip()))}
    if len(found) > 1:
        raise InputError("classes.txt states the mean for some classes of several outputs and the maximum for others")
    return found.pop() if found else "mean"


def _by_count(
    names: Sequence[str], outputs: Mapping[str, int] | None, count: int | None
) -> tuple[list[int], str] | None:
    """Return output numbers and the rule in words where the classes are as many as the outputs and have no names."""
    if count is None or len(names) != count or count == 0:
        return None
    numbers = [int(name) for name in names if name.isdecimal()]
    numbered = len(set(numbers)) == count
    if outputs is None and not numbered:
        return list(range(count)), "in their order, folders in that of the alphabet"
    if outputs is None or (numbered and set(numbers) == set(range(count)) and outputs.keys().isdisjoint(names)):
        places = {number: place for place, number in enumerate(sorted(numbers))}
        return [places[number] for number in numbers], "by number"
    return None


def _found(name: str, second: str, outputs: Mapping[str, int] | None, count: int | None) -> tuple[int, ...]:
    """Return the outputs for a class by its name or its second one, see :func:`_one`; none where one is unknown.

    Several outputs that are all known are what the user stated, also where the name alone is one of them. Words that
    merely hold commas, such as a list of synonyms, state nothing.
    """
    whole = _one(name, outputs, 0), _one(second, outputs, count)
    if min(whole) >= 0 and whole[0] != whole[1]:
        raise InputError(
            f"the class {name!r} is output {whole[0]} of the model by its name and output {whole[1]} by its second "
            f"name {second!r} in classes.txt; rename the folder, or leave one of them out"
        )
    several = None if whole[1] >= 0 else _SEVERAL.fullmatch(second)
    if several is not None:
        parts = [_one(part.strip(), outputs, count) for part in (several["inside"] or several["names"]).split(",")]
        if min(parts) >= 0 or several["aggregate"]:
            return () if min(parts) < 0 else tuple(parts)
    known = next((number for number in whole if number >= 0), None)
    return () if known is None else (known,)


def _one(name: str, outputs: Mapping[str, int] | None, count: int | None) -> int:
    """Return the output of a name, which may be a number below ``count``; or -1."""
    if outputs is not None and name in outputs:
        return outputs[name]
    return int(name) if name.isdecimal() and (count is None or int(name) < count) else -1


def _refuse_unknown(
    names: Sequence[str],
    columns: Sequence[tuple[int, ...]],
    model_classes: Sequence[str] | None,
    count: int | None,
    data_name: str,
    model_name: str,
) -> None:
    unknown = [name for name, numbers in zip(names, columns, strict=True) if not numbers]
    if not unknown:
        return
    listed = ", ".join(repr(name) for name in unknown[:3]) + (", ..." if len(unknown) > 3 else "")
    of_model = f"the {count or 'unknown number of'} outputs of {model_name}"
    known = (
        "whose class names are unknown"
        if model_classes is None
        else f"whose classes are {', '.join(model_classes[:3])}, ..."
    )
    raise InputError(
        f"cannot map {len(unknown)} of the {len(names)} classes of {data_name} ({listed}) to {of_model}, {known}; "
        f"{_remedy(data_name)}"
    )


def _remedy(data_name: str) -> str:
    from ipvit.data.formats.timm import SCHEMES

    if data_name.startswith(SCHEMES):
        return (
            "say what its labels are with --classes: a file of the model's class names in their order, or imagenet-1k"
        )
    return "put a classes.txt with lines 'folder<TAB>model class or output number' there"
