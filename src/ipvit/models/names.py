"""Names of models, taken apart and shortened."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlparse

from ipvit.core.plugins import OWN_FILE
from ipvit.errors import InputError


@dataclasses.dataclass(frozen=True)
class ModelName:
    """A model name taken apart: ``[SCHEME:]NAME[?KEY=VALUE&...][@WEIGHTS]``."""

    scheme: str
    name: str
    options: dict[str, Any]
    weights: str | None

    @classmethod
    def parse(cls, text: str) -> ModelName:
        """Take a name apart; the first ``@`` begins the weights."""
        text, _, weights = text.partition("@")
        text, _, query = text.partition("?")
        scheme = ""
        if OWN_FILE in text:
            scheme = "file"
        elif ":" in text:
            scheme, _, text = text.partition(":")
        options = {key: _value(value) for key, value in parse_qsl(query, keep_blank_values=True)}
        return cls(scheme, text, options, weights or None)


def short_name(name: str) -> str:
    """Return what tables show: without the folders of a file, and of the weights only their name."""
    text, _, weights = name.partition("@")
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
