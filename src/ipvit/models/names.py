"""Names of models, taken apart and shortened."""

from __future__ import annotations

import contextlib
import dataclasses
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlparse

from ipvit.core.files import user_path
from ipvit.core.plugins import OWN_FILE
from ipvit.errors import InputError, shown


@dataclasses.dataclass(frozen=True)
class ModelName:
    """A model name taken apart: ``[SCHEME:]NAME[?KEY=VALUE&...][@WEIGHTS]``."""

    scheme: str
    name: str
    options: dict[str, Any]
    weights: str | None

    @classmethod
    def parse(cls, text: str) -> ModelName:
        """Take a name apart; the first ``@`` begins the weights, in the name of a function of a file that behind it."""
        text, weights = split_weights(text)
        file, function = _of_file(text)
        function, _, query = function.partition("?")
        text = file + function
        scheme = ""
        if OWN_FILE in text:
            scheme = "file"
        elif ":" in text:
            scheme, _, text = text.partition(":")
        options = {key: _value(value) for key, value in parse_qsl(query, keep_blank_values=True)}
        return cls(scheme, text, options, weights or None)


def split_weights(name: str) -> tuple[str, str]:
    """Return a name without its weights, and these; a path may hold ``@``, that of a Python file also ``?``.

    Of ``transformers:PATH``, ``open_clip:PATH`` and of a file of weights, what is there on disk is the path, the
    longest one first.

    >>> split_weights("me@home/net.py:small?classes=2@mine.pth"), split_weights("resnet50@mine.pth")
    (('me@home/net.py:small?classes=2', 'mine.pth'), ('resnet50', 'mine.pth'))
    """
    file, rest = _of_file(name)
    if not file:
        return _beside_path(name)
    rest, _, weights = rest.partition("@")
    return file + rest, weights


def _beside_path(name: str) -> tuple[str, str]:
    """Divide at the last ``@`` before which a path ends that there is, where names are paths; else at the first."""
    scheme = next((one for one in _OF_FOLDERS if name.startswith(one)), "")
    if scheme or name.endswith(_WEIGHTS_ALONE):
        places = [place for place, letter in enumerate(name) if letter == "@"]
        for end in (len(name), *reversed(places)):
            if _is_there(name[len(scheme) : end].partition("?")[0]):
                return name[:end], name[end + 1 :]
    text, _, weights = name.partition("@")
    return text, weights


def _is_there(path: str) -> bool:
    try:
        return user_path(path).exists()
    except (InputError, OSError):  # no name of a file
        return False


def _of_file(name: str) -> tuple[str, str]:
    """Return the path of a Python file with its colon, and what follows; nothing and the name where there is none."""
    start = name.find(OWN_FILE)
    if start < 0 or _OTHER.match(name):
        return "", name
    return name[: start + len(OWN_FILE)], name[start + len(OWN_FILE) :]


_OF_FOLDERS, _WEIGHTS_ALONE = ("transformers:", "open_clip:"), ".safetensors"


NEIGHBOURS = "@knn:"
"""What stands between a backbone's name and the data whose images vote."""


def split_neighbours(name: str) -> tuple[str, str, dict[str, Any]] | None:
    """Return the backbone, the data and the options of ``NAME@knn:DATA[?k=20&T=0.07]``; None for any other name.

    The options are told from those of a data factory, ``make.py:data?size=3``, by their keys: ``k``, ``T``, ``limit``,
    ``split`` and ``token``.

    Raises:
        InputError: there is no backbone or no data, or only some of the keys are options.

    >>> split_neighbours("dino.py:make@knn:photos/train?k=10")
    ('dino.py:make', 'photos/train', {'k': 10})
    """
    backbone, mark, data = name.rpartition(NEIGHBOURS)
    if not mark:
        return None
    place, sign, query = data.rpartition("?")
    options = {key: _value(value) for key, value in parse_qsl(query, keep_blank_values=True)} if sign else {}
    known = ("k", "T", "limit", "split", "token")
    if options and not any(key in known for key in options) and OWN_FILE in data:
        place, options = data, {}
    if strange := [key for key in options if key not in known]:
        raise InputError(f"{shown(name)}: neighbours take no {strange[0]!r}; they take {', '.join(known)}")
    place = place if sign and options else data
    if not backbone or not place:
        raise InputError(f"{shown(name)}: a network and the images that vote are written NAME{NEIGHBOURS}DATA")
    return backbone, place, options


def split_label(text: str) -> tuple[str | None, str]:
    """Return the label and the name of ``[LABEL=]NAME[@WEIGHTS]``, as a command line has it.

    What stands before the first ``=`` is a label if it holds none of ``/ : ? @ .``, which options, weights and files of
    names do.

    Raises:
        InputError: the label or the name is empty.

    >>> split_label("small=resnet18"), split_label("resnet18?num_classes=3"), split_label("./a=b.py:make")
    (('small', 'resnet18'), (None, 'resnet18?num_classes=3'), (None, './a=b.py:make'))
    """
    label, sign, name = text.partition("=")
    if not sign or any(mark in label for mark in "/:?@."):
        return None, text
    if not label.strip() or not name.strip():
        raise InputError(f"--model {text!r}: a label and a name are written LABEL=NAME")
    return label, name


_OTHER = re.compile(r"[^/\\@]*@[^@]*\.(pth|pt|bin|safetensors|tar)\b")
"""A plain name with weights: what its weights are called says nothing of a Python file."""


def short_name(name: str) -> str:
    """Return what tables show: without the folders of a file, and of the weights only their name."""
    text, weights = split_weights(name)
    if OWN_FILE in text:
        text = Path(text.rpartition(":")[0]).name + ":" + text.rpartition(":")[2]
    found = urlparse(weights)
    return f"{text}@{Path(found.path).stem}{f'#{found.fragment}' if found.fragment else ''}" if weights else text


def weights_in_words(name: ModelName) -> str:
    """Say where weights are from that stand behind ``@`` in a name.

    >>> weights_in_words(ModelName.parse("torchvision:resnet50@weights/mine.pth"))
    'weights from mine.pth'
    """
    found = urlparse(name.weights or "")
    return f"weights from {Path(found.path).name}{f', {found.fragment}' if found.fragment else ''}"


def _value(text: str) -> Any:
    if "," in text:
        parts = tuple(_value(part) for part in text.split(","))
        return parts if all(type(part) is int for part in parts) else text
    lowered = text.lower()
    if lowered in ("true", "false"):
        return lowered == "true"
    for convert in (int, float):
        with contextlib.suppress(ValueError):
            return convert(text)
    return text


def refuse_sources(options: Iterable[str], name: str) -> None:
    """Refuse arguments that fetch or read something else than the network's own shape.

    A checkpoint names the arguments of its network; it must not name further files to read, or code to trust.

    Raises:
        InputError: names the argument.
    """
    for option in options:
        if option in _SOURCES:
            raise InputError(f"{name} takes no {option!r}: weights are given as NAME@FILE, and no code is fetched")


def check_outputs(options: Mapping[str, Any], name: str) -> None:
    """Refuse a number of outputs that is none: below 0, timm would leave the classifier out and call features outputs.

    Raises:
        InputError: says what was given.
    """
    count = options.get("num_classes", 0)
    if not isinstance(count, int) or isinstance(count, bool) or count < 0:
        raise InputError(f"{name}: num_classes is a number of outputs, 0 for no classifier, not {shown(count)}")


_SOURCES = frozenset(
    {
        "pretrained",
        "pretrained_cfg",
        "pretrained_cfg_overlay",
        "checkpoint_path",
        "cache_dir",
        "scriptable",
        "no_jit",
        "exportable",
        "trust_remote_code",
        "code_revision",
    }
)
