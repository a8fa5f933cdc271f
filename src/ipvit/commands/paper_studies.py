"""The studies behind the tables and figures of the paper: what is run on which data, and what is missing to run it."""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from ipvit.analysis.data_names import SCHEMES
from ipvit.core.files import user_path
from ipvit.errors import InputError, did_you_mean
from ipvit.models.names import ModelName
from ipvit.models.zoo.paper import paper_name

FOLDER = Path(__file__).with_name("studies") / "paper"

SALIENCE = "paper:dino_vits16"
"""The network that tells salient patches from others."""

ALL = "all"
"""Stands for all studies."""

NOT_MEASURED = {
    "figure-1": "an overview of the paper",
    "figure-2": "example pictures under PatchDrop; figure-3 measures it",
    "figure-7": "a drawing of how the shape token is trained; table-3 has its numbers",
    "figure-9": "an example picture whose patches are shuffled; figure-10 measures it",
    "figure-14": "a drawing of an ensemble of tokens; figure-16 and table-5 have its numbers",
    **dict.fromkeys(("figure-17", "figure-20"), "example pictures of the appendix; figure-18 to figure-22 measure"),
    **dict.fromkeys(
        ("figure-28", "figure-29", "figure-30", "figure-31"),
        "example pictures of segmentation, PatchDrop and adversarial patches; table-4, figure-3 and figure-12 measure",
    ),
}
"""Figures without a measurement of their own, and what they are."""

OPTIONS = {
    "imagenet": ("--imagenet", "ImageNet-1k's validation images, a folder with a folder of images per class"),
    "imagenet-c": ("--imagenet-c", "the published ImageNet-C, CORRUPTION/SEVERITY/SYNSET/NAME.JPEG"),
    "voc": ("--voc", "PASCAL VOC 2012, the folder VOCdevkit or VOC2012"),
    "cue-conflict": ("--cue-conflict", "the cue-conflict images of Geirhos et al., SHAPE/SHAPE1-TEXTURE2.png"),
}
"""Data with an option of their own, and what its value is."""


@dataclasses.dataclass(frozen=True)
class StudyPart:
    """Models and experiments on one data set.

    Attributes:
        name: folder of its run, where a study has several parts.
        data: a key of :data:`OPTIONS`, or the name of a published set.
        models: as in a study file.
        experiments: as in a study file; ``{data}`` in a text stands for the data's name without its split.
        split: of a published set; the one that numbers are reported on by default.
    """

    name: str
    data: str
    models: tuple[Any, ...]
    experiments: Mapping[str, Any]
    split: str | None = None

    def keys(self, data: str, weights: Mapping[str, str], models: Sequence[Any]) -> dict[str, Any]:
        """Return the study as a mapping.

        Args:
            data: name of the data.
            weights: files to take instead of the published ones, by network.
            models: other models than the paper's.
        """
        chosen = list(models) or [_with_weights(entry, weights) for entry in self.models]
        experiments = _filled(self.experiments, data)
        if self.needs_salience:
            experiments["occlusion"]["salience"] = _with_weights(SALIENCE, weights)
        name = f"{data}/{self.split}" if self.split else data
        return {"models": chosen, "data": name, "experiments": experiments}

    @property
    def needs_salience(self) -> bool:
        """Whether another network must tell salient patches from others."""
        occlusion = self.experiments.get("occlusion") or {}
        return bool({"salient", "non_salient"} & set(occlusion.get("modes", ())))


@dataclasses.dataclass(frozen=True)
class PaperStudy:
    """What is behind a table or figure.

    Attributes:
        name: ``table-4-mce``.
        title: for people.
        also: further names, which several studies may share.
        targets: entries of ``paper_targets.json`` that it is compared with.
        parts: what is run.
    """

    name: str
    title: str
    also: tuple[str, ...]
    targets: tuple[str, ...]
    parts: tuple[StudyPart, ...]


@functools.cache
def paper_studies() -> dict[str, PaperStudy]:
    """Return all of them by name: tables first, then figures, by number."""
    found = {path.stem: _read(path) for path in FOLDER.glob("*.yaml")}
    return {name: found[name] for name in sorted(found, key=_place)}


def find(name: str) -> list[PaperStudy]:
    """Return the studies of a name; ``table-4`` is two, and ``all`` is every one.

    Raises:
        InputError: there is no such table or figure, with close matches, or nothing in it is measured.
    """
    kinds = {"fig": "figure-", "tab": "table-"}
    if name == ALL:
        return [*paper_studies().values()]
    plain = re.sub(r"^(fig|tab)(ure|le)?[-_. ]*(?=\d)", lambda match: kinds[match[1]], name.lower())
    studies = paper_studies()
    if plain in studies:
        return [studies[plain]]
    if plain in NOT_MEASURED:
        raise InputError(f"{plain.replace('-', ' ')} is no measurement: {NOT_MEASURED[plain]}")
    shared = [study for study in studies.values() if plain in study.also]
    if not shared:
        known = dict.fromkeys([*studies, *(other for study in studies.values() for other in study.also)])
        raise InputError(f"no study reproduces {name!r}.{did_you_mean(plain, known)} See ipvit reproduce --list")
    return shared


def data_name(kind: str, place: str) -> str:
    """Return the name of data from what the user gave for it.

    Args:
        kind: ``imagenet``, ``voc``, ..., or a published set.
        place: a path, or a data name as other commands take it.
    """
    if kind == "imagenet":
        return f"imagenet:{place}" if (user_path(place) / "val").is_dir() else place
    prefix = f"{SCHEMES.get(kind, kind)}:"
    return place if place.startswith(prefix) else prefix + place


def weights_key(name: str) -> str:
    """Return the word that stands for a network in ``--weights``.

    >>> weights_key("paper:deit_small"), weights_key("torchvision:alexnet")
    ('deit_small', 'alexnet')
    """
    parsed = ModelName.parse(name)
    return paper_name(parsed.name) if parsed.scheme == "paper" else parsed.name


def parse_weights(values: Sequence[str]) -> dict[str, str]:
    """Return the files of ``--weights NETWORK=FILE`` by :func:`weights_key`.

    Raises:
        InputError: one has no ``=``, or no study has such a network.
    """
    others = {weights_key(name) for name in _names() if not name.startswith("paper:")}
    found = {}
    for network, file in parse_pairs(values, "--weights").items():
        plain = network.removeprefix("torchvision:")
        found[plain if plain in others else paper_name(network)] = file
    return found


def _names() -> set[str]:
    """Return the names of all networks of all studies."""
    entries = (entry for study in paper_studies().values() for part in study.parts for entry in part.models)
    return {entry["name"] if isinstance(entry, dict) else entry for entry in entries}


def parse_pairs(values: Sequence[str], option: str) -> dict[str, str]:
    """Return ``NAME=VALUE`` options as a mapping.

    Raises:
        InputError: one has no ``=``.
    """
    pairs = {}
    for value in values:
        name, sign, place = value.partition("=")
        if not sign or not name or not place:
            raise InputError(f"{option} takes NAME=VALUE, not {value!r}")
        pairs[name] = place
    return pairs


def _with_weights(entry: Any, weights: Mapping[str, str]) -> Any:
    """Return an entry of a study's models with the file that is given for it."""
    keys = entry if isinstance(entry, dict) else {"name": entry}
    if "@" in keys["name"] or not keys.get("pretrained", True):
        return entry
    file = weights.get(weights_key(keys["name"]))
    if file is None:
        return entry
    name = f"{keys['name']}@{file}"
    return {**entry, "name": name} if isinstance(entry, dict) else name


def _filled(node: Any, data: str) -> Any:
    """Put the data's name into the texts of a part's experiments."""
    if isinstance(node, dict):
        return {key: _filled(value, data) for key, value in node.items()}
    if isinstance(node, list):
        return [_filled(value, data) for value in node]
    return node.replace("{data}", data) if isinstance(node, str) else node


def _read(path: Path) -> PaperStudy:
    content = yaml.safe_load(path.read_text("utf-8"))
    parts = tuple(
        StudyPart(
            part.get("name", path.stem), part["data"], tuple(part["models"]), part["experiments"], part.get("split")
        )
        for part in content["parts"]
    )
    return PaperStudy(path.stem, content["title"], tuple(content.get("also", ())), tuple(content["targets"]), parts)


def _place(name: str) -> tuple[bool, int, str]:
    kind, number, *rest = name.split("-")
    return (kind != "table", int(number), "-".join(rest))
