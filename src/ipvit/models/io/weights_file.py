"""A file of weights as people have them: several networks in it, names under a prefix, counters and metrics beside."""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ipvit.core.digests import digest_of_file
from ipvit.core.files import user_path
from ipvit.errors import InputError, did_you_mean, printable
from ipvit.models.io.state_dict import WRAPPERS, StateDict, read_content, resolve, shards_of, tensors_of, unwrapped

AVERAGED = re.compile(r"(?:^|_)(?:ema|avg|average|averaged|swa|polyak|shadow)(?:_|$)")
"""Names of averaged weights, which are what their authors evaluate: before anything else."""

SECOND_CHOICE = ("student", "momentum_encoder", "encoder_k", "predictor", "optimizer")
"""Names of networks that are trained beside the one that their authors evaluate."""

COUNTERS = ("total_ops", "total_params", "num_batches_tracked", "n_averaged")
"""Last parts of the names of numbers that are no weights: thop's, batch norm's, averaging's."""

HEADS = ("head", "head_dist", "fc", "classifier", "heads", "projector", "predictor", "last_layer")
"""First parts of the names of a classifier's or a projection head's weights."""

_DEEPEST = 5
_ANCHORS = 12
_ENOUGH = 0.5


@dataclasses.dataclass
class WeightsFile:
    """What stands behind ``@`` in a model's name.

    Attributes:
        location: as it was given.
        path: the local file, or a folder of shards.
        content: what is in it.
        key: which network in it is meant, ``teacher`` or ``teacher.backbone``; empty where the file has to say.
        left_out: what was not loaded, by :meth:`state_for`.
    """

    location: str
    path: Path
    content: Mapping[str, Any]
    key: str = ""
    left_out: list[str] = dataclasses.field(default_factory=list[str])

    @classmethod
    def read(cls, location: str) -> WeightsFile:
        """Read ``FILE``, ``FILE#KEY``, ``FOLDER`` or the like of a URL, without executing anything in it.

        Raises:
            InputError: there is no such file, or it holds no weights; says what it is instead.
        """
        place, key = split_key(location)
        folder = user_path(place)
        path = folder if folder.is_dir() else resolve(place)
        return cls(location, path, _of_shards(path) if path.is_dir() else read_content(path), key)

    @property
    def sha256(self) -> str:
        """SHA-256 of the file; of a folder, that of its files' digests, in the order of their names."""
        if not self.path.is_dir():
            return digest_of_file(self.path)
        return hashlib.sha256("".join(map(digest_of_file, _shards(self.path))).encode()).hexdigest()

    @property
    def in_words(self) -> str:
        """The location, and what was left out of what is there."""
        if not self.left_out:
            return self.location
        shown = ", ".join(self.left_out[:3]) + (f" and {len(self.left_out) - 3} more" if len(self.left_out) > 3 else "")
        return f"{self.location} without {shown}"

    def state_for(self, network: nn.Module, rename: Callable[[StateDict], StateDict] | None = None) -> StateDict:
        """Return the weights that a network's own names lie among, without what stands before these names.

        What lies elsewhere is left out and noted in ``left_out``; what lies among them and is not the network's stays,
        to be refused, but for counters and, where the network has no classifier, the heads.

        Args:
            network: whose names are looked for.
            rename: gives weights the names of today.

        Raises:
            InputError: several networks in the file fit and none goes before the others, or there is no such key.
        """
        self.left_out = []
        own = {key for key in network.state_dict() if key.rpartition(".")[2] not in COUNTERS}
        found = list(_found(self._below_key(), own, rename or (lambda state: state)))
        best = max((one.score for one in found), default=0.0)
        if best < _ENOUGH:  # the family's converter, or a message, has to make something of it
            return self._tidied(self._guessed(), network)
        fitting = sorted((one for one in found if one.score == best), key=lambda one: one.rank)
        first = fitting[0]
        if equal := [one.name or "the file itself" for one in fitting if one.rank == first.rank][1:]:
            raise InputError(
                f"{str(self.path)!r} holds several networks that fit: {first.name or 'the file itself'}, "
                f"{', '.join(equal)}; choose one as @FILE#{first.name}"
            )
        self.left_out += [*(one.name for one in fitting[1:]), *first.beside]
        return self._tidied(first.state, network)

    def _below_key(self) -> Mapping[str, Any]:
        """Return the part that the key names, by whole names or the beginnings of weights' names."""
        content: Any = self.content
        rest = self.key
        while rest:
            whole = next((k for k in content if str(k) == rest or rest.startswith(f"{k}.")), None)
            if whole is not None and isinstance(content[whole], Mapping):
                content, rest = content[whole], rest[len(str(whole)) :].removeprefix(".")
                continue
            below = {str(k)[len(rest) + 1 :]: v for k, v in content.items() if str(k).startswith(f"{rest}.")}
            if not below:
                names = _choices(content)
                raise InputError(
                    f"{str(self.path)!r} has no network {printable(self.key)!r}; it has {', '.join(names[:8])}."
                    + did_you_mean(rest, names)
                )
            content, rest = below, ""
        return content

    def _guessed(self) -> StateDict:
        state = unwrapped(self._below_key())
        if not state:
            raise InputError(f"the weights file {str(self.path)!r} holds no tensors")
        return state

    def _tidied(self, state: StateDict, network: nn.Module) -> StateDict:
        own = network.state_dict()
        headless = getattr(network, "num_classes", None) == 0
        gone = [
            key
            for key in state
            if key not in own and (key.rpartition(".")[2] in COUNTERS or (headless and key.partition(".")[0] in HEADS))
        ]
        self.left_out += [key for key in gone if key.rpartition(".")[2] != "num_batches_tracked"]
        return {key: value for key, value in state.items() if key not in gone}


def split_key(location: str) -> tuple[str, str]:
    """Return a location and what stands after ``#``; a file whose own name has a ``#`` is meant as it is.

    >>> split_key("runs/dino.pth#teacher")
    ('runs/dino.pth', 'teacher')
    """
    place, mark, key = location.rpartition("#")
    return (place, key) if mark and not user_path(location).exists() else (location, "")


@dataclasses.dataclass(frozen=True)
class _Candidate:
    """Weights whose names are a network's own, once ``name`` before them is taken off."""

    name: str
    state: StateDict
    score: float
    beside: list[str]

    @property
    def rank(self) -> tuple[int, int]:
        """What goes first: averages, then the plain network, by the usual order of names; last the second choices."""
        parts = self.name.split(".")
        kind = 0 if any(map(AVERAGED.search, parts)) else 2 if set(parts) & set(SECOND_CHOICE) else 1
        return kind, min((WRAPPERS.index(part) for part in parts if part in WRAPPERS), default=len(WRAPPERS))


def _found(content: Mapping[str, Any], own: set[str], rename: Callable[[StateDict], StateDict]) -> Iterator[_Candidate]:
    """Yield every group of tensors among which some of a network's names lie."""
    for where, tensors in _groups(content, ()):
        state = rename(tensors)
        for prefix in _prefixes(state, own):
            inside = {key[len(prefix) :]: value for key, value in state.items() if key.startswith(prefix)}
            name = ".".join([*where, prefix.rstrip(".")]).strip(".")
            beside = [key for key in state if not key.startswith(prefix)]
            yield _Candidate(name, inside, len(own & inside.keys()) / max(len(own), 1), beside)


def _groups(content: Mapping[str, Any], where: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], StateDict]]:
    if state := tensors_of(content):
        yield where, state
    if len(where) < _DEEPEST:
        for key, value in content.items():
            if isinstance(value, Mapping):
                yield from _groups(value, (*where, str(key)))


def _prefixes(state: StateDict, own: set[str]) -> list[str]:
    """Return what stands before a network's names in names of weights, from some of them."""
    ordered = sorted(own)
    anchors = ordered[:: max(1, len(ordered) // _ANCHORS)]
    ends = {
        key: key[: -len(anchor)] for anchor in anchors for key in state if key == anchor or key.endswith(f".{anchor}")
    }
    return list(dict.fromkeys(ends.values()))


def _choices(content: Mapping[str, Any]) -> list[str]:
    """Return the names that may stand after ``#``."""
    nested = [str(key) for key, value in content.items() if isinstance(value, Mapping)]
    first = dict.fromkeys(str(key).partition(".")[0] for key, value in content.items() if isinstance(value, Tensor))
    return [printable(name) for name in (*nested, *first)] or ["no weights at all"]


_WHOLE = ("model.safetensors", "pytorch_model.bin")
_INDEX = ".index.json"


def _shards(folder: Path) -> Sequence[Path]:
    """Return the weights files of a folder as Hugging Face writes it.

    Raises:
        InputError: a shard is missing, or there are no weights.
    """
    for name in _WHOLE:
        if (folder / name).is_file():
            return [folder / name]
        index = folder / f"{name}{_INDEX}"
        if index.is_file():
            paths = [folder / shard for shard in sorted(set(shards_of(index).values()))]
            if gone := [path.name for path in paths if not path.is_file()]:
                raise InputError(f"{str(folder)!r} lacks {len(gone)} of its {len(paths)} shards: {', '.join(gone[:3])}")
            return paths
    raise InputError(f"the folder {str(folder)!r} holds no weights: neither {' nor '.join(_WHOLE)}, whole or in shards")


def _of_shards(folder: Path) -> Mapping[str, Any]:
    parts = [read_content(path) for path in _shards(folder)]
    return parts[0] if len(parts) == 1 else {key: value for part in parts for key, value in part.items()}
