"""The twelve superclasses of ImageNet that figure 5 groups by.

The paper names them but does not list their classes. Ours are the classes below the root synsets of the "big_12"
grouping of the robustness library (Madry Lab), by the hypernyms of WordNet 3.0, with the dogs taken out of the
carnivores; ``superclasses.json`` holds them.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from pathlib import Path

_DATA = Path(__file__).with_name("superclasses.json")


@functools.cache
def superclasses() -> dict[str, str]:
    """Return synset -> superclass for the ImageNet classes that have one."""
    groups = json.loads(_DATA.read_text("utf-8"))["groups"]
    return {synset: name for name, group in groups.items() for synset in group["classes"].split()}


def superclass_of(classes: Sequence[str] | None, label: int) -> str:
    """Return the superclass of an output of a model, or an empty string where it has none."""
    if classes is None or not 0 <= label < len(classes):
        return ""
    return superclasses().get(classes[label], "")
