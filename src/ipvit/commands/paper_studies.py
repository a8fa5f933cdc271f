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
from ipvit.data.published import SETS
from ipvit.errors import InputError, did_you_mean
from ipvit.models.names import ModelName
from ipvit.models.zoo.paper import NETWORKS, PaperNetwork, paper_name

FOLDER = Path(__file__).with_name("studies") / "paper"

SALIENCE = "paper:dino_vits16"
"""The network that tells salient patches from others."""

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
    """

    name: str
    data: str
    models: tuple[Any, ...]
    experiments: Mapping[str, Any]

    def keys(self, data: str, weights: Mapping[str, str], models: Sequence[str]) -> dict[str, Any]:
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
        return {"models": chosen, "data": data, "experiments": experiments}

    @property
    def needs_salience(self) -> bool:
        """Whether another network must tell salient patches from others."""
        occlusion = self.experiments.get("occlusion") or {}
        return bool({"salient", "non_salient"} & set(occlusion.get("modes", ())))

    def networks(self, models: Sequence[str] = ()) -> list[PaperNetwork]:
        """Return the networks of the paper whose weights this part needs, also when other models are measured."""
        entries = [entry if isinstance(entry, dict) else {"name": entry} for entry in models or self.models]
        names = [entry["name"] for entry in entries if entry.get("pretrained", True) and "@" not in entry["name"]]
        if self.needs_salience:
            names.append(SALIENCE)
        return [NETWORKS[paper_name(ModelName.parse(n).name)] for n in names if n.startswith("paper:")]


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
    """Return the studies of a name; ``table-4`` is two.

    Raises:
        InputError: there is no such table or figure, with close matches.
    """
    kinds = {"fig": "figure-", "tab": "table-"}
    plain = re.sub(r"^(fig|tab)(ure|le)?[-_. ]*(?=\d)", lambda match: kinds[match[1]], name.lower())
    studies = paper_studies()
    if plain in studies:
        return [studies[plain]]
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


def missing_data(parts: Sequence[StudyPart], given: Mapping[str, str]) -> list[str]:
    """Return a line for each kind of data that is not given or not there, and what to do."""
    lines = []
    for kind in dict.fromkeys(part.data for part in parts):
        option, words = _option(kind)
        if kind not in given:
            lines.append(f"{kind} is missing; give {option}: {words}")
        elif ":" not in given[kind] and not user_path(given[kind]).exists():
            lines.append(f"there is no folder {given[kind]!r}; {option} is {words}")
    return lines


def missing_weights(
    parts: Sequence[StudyPart], weights: Mapping[str, str], models: Sequence[str], *, fetch: bool
) -> dict[str, str]:
    """Return, by network, why its weights cannot be had and what to do.

    Args:
        parts: what is to be run.
        weights: files to take instead of the published ones, by network.
        models: other models than the paper's.
        fetch: download what can be downloaded; otherwise say only what can not.
    """
    from ipvit.models.io.state_dict import resolve

    networks = {network.name: network for part in parts for network in part.networks(models)}
    lines = {}
    for name, network in networks.items():
        location = weights.get(name) or network.weights
        if location is None:
            lines[name] = (
                f"the weights of {network.title} can only be fetched by a person, from {network.page}; "
                f"then give --weights {name}=FILE"
            )
            continue
        if not fetch:
            continue
        try:
            resolve(location)
        except InputError as error:
            lines[name] = f"the weights of {network.title}: {error}, or give --weights {name}=FILE"
    return lines


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


def _option(kind: str) -> tuple[str, str]:
    """How a kind of data is given, and what it is."""
    if kind in OPTIONS:
        option, words = OPTIONS[kind]
        return f"{option} PATH", words
    entry = SETS[kind]
    return f"--data {kind}=PATH", f"{entry.title}: {entry.layout}"


def _with_weights(entry: Any, weights: Mapping[str, str]) -> Any:
    name = entry["name"] if isinstance(entry, dict) else entry
    if not name.startswith("paper:"):
        return entry
    file = weights.get(paper_name(ModelName.parse(name).name))
    if file is None or (isinstance(entry, dict) and not entry.get("pretrained", True)):
        return entry
    return {**entry, "name": f"{name}@{file}"} if isinstance(entry, dict) else f"{name}@{file}"


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
        StudyPart(part.get("name", path.stem), part["data"], tuple(part["models"]), part["experiments"])
        for part in content["parts"]
    )
    return PaperStudy(path.stem, content["title"], tuple(content.get("also", ())), tuple(content["targets"]), parts)


def _place(name: str) -> tuple[bool, int, str]:
    kind, number, *rest = name.split("-")
    return (kind != "table", int(number), "-".join(rest))
