"""Which output of the model each class of the data is; stated, never guessed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ipvit.core.text_files import same_letters
from ipvit.errors import InputError


def map_classes(
    data_classes: Sequence[str],
    aliases: Sequence[str] | None,
    model_classes: Sequence[str] | None,
    *,
    data_name: str,
    model_name: str,
) -> np.ndarray:
    """Return, for each class of the data, the index of the model's output for it.

    A class is found by its name or by its alias (the second column of ``classes.txt``), among the model's class names.
    Where the model's classes are unknown, the data must state output numbers as aliases.

    Args:
        data_classes: names of the data's classes, for example ImageNet synsets (any subset, any order).
        aliases: second names, one per class, or None.
        model_classes: names of the model's outputs in their order, or None.
        data_name: for the message.
        model_name: for the message.

    Returns:
        ``(len(data_classes),)`` int64.

    Raises:
        InputError: a class cannot be found, or two classes are the same output.
    """
    outputs = None if model_classes is None else {same_letters(name): i for i, name in enumerate(model_classes)}
    data_classes = [same_letters(name) for name in data_classes]
    aliases = None if aliases is None else [same_letters(name) for name in aliases]
    seconds = aliases if aliases is not None else data_classes
    if outputs is None:
        mapping = [int(name) if name.isdecimal() else -1 for name in seconds]
    else:
        mapping = [
            outputs.get(name, outputs.get(second, _number(second, len(outputs)) if aliases is not None else -1))
            for name, second in zip(data_classes, seconds, strict=True)
        ]
    unknown = [name for name, index in zip(data_classes, mapping, strict=True) if index < 0]
    if unknown:
        listed = ", ".join(repr(name) for name in unknown[:3]) + (", ..." if len(unknown) > 3 else "")
        known = (
            "whose class names are unknown"
            if model_classes is None
            else f"whose classes are {', '.join(model_classes[:3])}, ..."
        )
        raise InputError(
            f"cannot map {len(unknown)} of the {len(data_classes)} classes of {data_name} ({listed}) to the outputs of "
            f"{model_name}, {known}; {_remedy(data_name)}"
        )
    if len(set(mapping)) != len(mapping):
        twice = next(name for i, name in enumerate(data_classes) if mapping[i] in mapping[:i])
        raise InputError(f"two classes of {data_name} are the same output of {model_name}; one of them is {twice!r}")
    return np.array(mapping, dtype=np.int64)


def _remedy(data_name: str) -> str:
    if data_name.startswith(("hfds/", "hfids/", "tfds/", "torch/", "wds/")):
        return (
            "say what its labels are with --classes: a file of the model's class names in their order, or imagenet-1k"
        )
    return "put a classes.txt with lines 'folder<TAB>model class or output number' there"


def _number(text: str, outputs: int) -> int:
    """Return an output's number written out, or -1."""
    return int(text) if text.isdecimal() and int(text) < outputs else -1
