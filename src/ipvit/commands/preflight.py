"""Before a reproduction is measured: all its data are opened, and all its networks are loaded."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ipvit.commands.paper_studies import OPTIONS, StudyPart, data_name, weights_key
from ipvit.core.files import user_path
from ipvit.core.run_config import RunConfig
from ipvit.data.published import SETS
from ipvit.errors import CombinedInputError, InputError, UnavailableWeightsError
from ipvit.models.names import ModelName
from ipvit.models.zoo.paper import NETWORKS, PaperNetwork, paper_name

if TYPE_CHECKING:
    from ipvit.engine.study import Study
    from ipvit.models.model import Model

Entry = tuple[str, bool, str | None]
"""A model of a study: its name, whether it is pretrained, and its label."""

_PARTIAL = "--partial runs what there is"


@dataclasses.dataclass(frozen=True)
class Sources:
    """What a user gives for a reproduction.

    Attributes:
        data: places of data by kind: a path, or a data name as other commands take it.
        weights: files to take instead of the published ones, by network; see :func:`weights_key`.
        models: entries of a study, measured instead of the paper's where there are any.
    """

    data: Mapping[str, str]
    weights: Mapping[str, str]
    models: Sequence[Any]

    def keys(self, part: StudyPart) -> dict[str, Any]:
        """Return the study of a part as a mapping; a place stands in for data that are not given."""
        place = self.data.get(part.data, f"PATH-OF-{part.data.upper()}")
        return part.keys(data_name(part.data, place), self.weights, self.models)


def ready_parts(
    parts: Sequence[StudyPart], sources: Sources, config: RunConfig, *, partial: bool
) -> tuple[dict[int, Study], list[str]]:
    """Open the data of all parts, load all networks, and let the experiments check both.

    Args:
        parts: what is to be measured.
        sources: where data and weights are.
        config: the options of the run.
        partial: leave out what something is missing for.

    Returns:
        The studies of the parts that can be measured, by their place in ``parts``, and a line about each thing that is
        missing.

    Raises:
        CombinedInputError: something is missing and ``partial`` is not given, or nothing is left to be measured. It has
            a line for each missing thing, the data first.
    """
    lines = _missing_data(parts, sources.data)
    there = [number for number, part in enumerate(parts) if not _missing_data([part], sources.data)]
    if lines and not partial:  # gigabytes are not fetched for a run that cannot start
        raise CombinedInputError([*lines, *_by_hand(parts, sources), *([_PARTIAL] if there else [])])
    networks = _Networks()
    ready: dict[int, Study] = {}
    faults: list[str] = []
    for number in there:
        try:
            study = _checked(parts[number].name, sources.keys(parts[number]), networks, config)
        except InputError as error:
            faults += error.lines if isinstance(error, CombinedInputError) else [str(error)]
        else:
            if study is not None:
                ready[number] = study
    lines += [*dict.fromkeys([*faults, *networks.missing.values()])]
    if not ready or (lines and not partial):
        raise CombinedInputError([*lines, *([_PARTIAL] if ready else [])])
    return ready, lines


class _Networks:
    """The networks of a reproduction: each is tried once, and those of the last part are kept for the next one."""

    def __init__(self) -> None:
        self.missing: dict[tuple[str, bool], str] = {}
        """Why a network cannot be had and what to do, by its name and whether it is pretrained."""
        self._kept: dict[Entry, Model] = {}

    def keep(self, entries: Iterable[Entry]) -> None:
        """Let go of all other networks: those of a whole paper do not fit into memory."""
        wanted = set(entries)
        self._kept = {entry: model for entry, model in self._kept.items() if entry in wanted}

    def load(self, entry: Entry) -> Model | None:
        """Return a network, whose weights are downloaded if need be; None where it cannot be had."""
        from ipvit.models.loading import load_model

        name, pretrained, label = entry
        if (name, pretrained) in self.missing:
            return None
        if entry not in self._kept:
            try:
                self._kept[entry] = load_model(name, pretrained=pretrained, label=label)
            except InputError as error:
                self.missing[name, pretrained] = _what_to_do(name, error)
                return None
        return self._kept[entry]


def _checked(name: str, keys: dict[str, Any], networks: _Networks, config: RunConfig) -> Study | None:
    """Return the study of a part with the networks that can be had; None where it has too few.

    Raises:
        InputError: its data cannot be opened, or an experiment refuses them or the networks; one that concerns this
            part alone begins with its name.
    """
    from ipvit.api import bind_context
    from ipvit.engine.distributed import ProcessGroup
    from ipvit.engine.preparation import checked
    from ipvit.engine.study import make_study

    entries = {_entry(model): model for model in keys["models"]}
    others = [_entry(model) for model in _salience(keys)]
    networks.keep([*entries, *others])
    loaded = {entry: model for entry in entries if (model := networks.load(entry)) is not None}
    lacking = [entry for entry in others if networks.load(entry) is None]
    data = make_study(keys).data.open()
    if not loaded or lacking:
        return None
    keys["models"] = [entries[entry] for entry in loaded]
    study = make_study(keys).with_options(config)
    models = list(loaded.values())
    try:
        checked(study.make_experiments(), models, data, study, ProcessGroup(), bind_context(study.data))
    except InputError as error:
        raise InputError(f"{name}: {error}") from None
    return study


def _missing_data(parts: Sequence[StudyPart], given: Mapping[str, str]) -> list[str]:
    """Return a line for each kind of data that is not given or not there, and what to do."""
    lines = []
    for kind in dict.fromkeys(part.data for part in parts):
        option, words = _option(kind)
        if kind not in given:
            lines.append(f"{kind} is missing; give {option}: {words}")
        elif ":" not in given[kind] and not user_path(given[kind]).exists():
            lines.append(f"there is no folder {given[kind]!r}; {option} is {words}")
    return lines


def _option(kind: str) -> tuple[str, str]:
    """How a kind of data is given, and what it is."""
    if kind in OPTIONS:
        option, words = OPTIONS[kind]
        return f"{option} PATH", words
    entry = SETS[kind]
    return f"--data {kind}=PATH", f"{entry.title}: {entry.layout}"


def _by_hand(parts: Sequence[StudyPart], sources: Sources) -> list[str]:
    """Return what to do about the weights that no program can fetch."""
    lines = []
    for part in parts:
        keys = part.keys("", sources.weights, sources.models)
        for model in [*keys["models"], *_salience(keys)]:
            name, pretrained, _ = _entry(model)
            if pretrained and name.startswith("paper:") and "@" not in name and _published(name).weights is None:
                lines.append(_what_to_do(name, None))
    return [*dict.fromkeys(lines)]


def _what_to_do(name: str, error: InputError | None) -> str:
    """Say why a network cannot be had and what to give instead."""
    reason = error.reason if isinstance(error, UnavailableWeightsError) else str(error)
    if "@" in name or ":" not in name:
        return str(error)
    instead = f"give --weights {weights_key(name)}=FILE"
    if not name.startswith("paper:"):
        return f"the weights of {name}: {reason}; {instead}"
    network = _published(name)
    if network.weights is None:
        return f"the weights of {network.title} can only be fetched by a person, from {network.page}; then {instead}"
    return f"the weights of {network.title}: {reason}, or {instead}"


def _published(name: str) -> PaperNetwork:
    return NETWORKS[paper_name(ModelName.parse(name).name)]


def _salience(keys: dict[str, Any]) -> list[Any]:
    """Return the network that says where the foreground is, where a study has one: it is not among its models."""
    salience = keys["experiments"].get("occlusion", {}).get("salience")
    return [salience] if salience else []


def _entry(model: Any) -> Entry:
    """Return the name of a study's model, whether it is pretrained, and its label."""
    keys = model if isinstance(model, dict) else {"name": model}
    return keys["name"], keys.get("pretrained", True), keys.get("label")
