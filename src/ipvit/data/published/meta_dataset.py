"""Which classes of the published sets Meta-Dataset draws its test episodes from."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from pathlib import Path

META_DATASET = "meta-dataset"
"""Stands for these classes."""


@functools.cache
def classes_for_tests() -> Mapping[str, tuple[str, ...]]:
    """Return the test classes of the sets of which Meta-Dataset keeps some for training, by our name of the set.

    Source: the published divisions of Meta-Dataset (Triantafillou et al., ICLR 2020).
    """
    content = json.loads(Path(__file__).with_suffix(".json").read_text("utf-8"))
    return {name: tuple(names) for name, names in content["classes"].items()}


def drawn_from(data: str, classes: tuple[str, ...]) -> tuple[str, ...]:
    """Return those classes of a data set that Meta-Dataset draws test episodes from.

    Args:
        data: name of the data set, such as ``cub:PATH/all``.
        classes: its own.

    Returns:
        All classes for a set that Meta-Dataset only tests on, such as MNIST.

    >>> drawn_from("dtd:PATH", ("banded", "blotchy")), drawn_from("mnist:PATH", ("0", "1"))
    (('banded',), ('0', '1'))
    """
    wanted = classes_for_tests().get(data.partition(":")[0])
    return classes if wanted is None else tuple(name for name in classes if name.strip() in wanted)
