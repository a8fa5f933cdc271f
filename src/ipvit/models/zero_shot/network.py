"""Zero-shot classifiers: an image tower whose one linear head is made of texts, for CLIP, SigLIP and their kin."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from ipvit.core.digests import digest_of, digest_of_json
from ipvit.core.files import cache_folder, write_atomic
from ipvit.core.terminal import progress
from ipvit.errors import InputError, shown
from ipvit.models.model import Model
from ipvit.models.state_parts import state_parts
from ipvit.models.zero_shot.texts import Texts

BATCH = 256
"""Texts that are encoded at a time."""

SHOWN_FROM = 4096
"""Texts from which on a progress bar is shown."""

_FORMAT = 1
"""Raised whenever encoded texts that were kept are no longer right."""


@dataclasses.dataclass(frozen=True)
class TextSide:
    """The part of a zero-shot model that reads texts.

    Attributes:
        tokenize: texts to token numbers ``(N, L)`` int64, all that the text tower takes; refuses texts that are longer
            than its context.
        encode: these to embeddings ``(N, D)``, of any length.
        network: the whole model, with which ``encode`` computes.
        scale: what the cosine of image and text is multiplied with.
        bias: what is added to that.
        how: how texts are prepared, in words.
        architecture: what identifies the code of the text tower beside its weights: heads, activation, pooling.
    """

    tokenize: Callable[[Sequence[str]], Tensor]
    encode: Callable[[Tensor], Tensor]
    network: nn.Module
    scale: float
    bias: float
    how: str
    architecture: str

    @functools.cached_property
    def digest(self) -> str:
        """Digest (32 hex digits) of all weights, the architecture, the scale and the bias."""
        found = hashlib.sha256(f"{self.scale!r} {self.bias!r} {self.architecture}".encode())
        for key, value in sorted(self.network.state_dict().items()):
            for part in state_parts(key, value):
                found.update(part)
        return found.hexdigest()[:32]


class ZeroShotNetwork(nn.Module):
    """An image tower that answers by the cosine of its embedding to those of the classes' texts.

    Without texts it has no classifier: it returns the embedding, and experiments read its tokens.

    The classifier is no part of the ``state_dict``: it follows from the texts, whose digest tells it apart, and its
    last digits from the machine that encoded them.

    Args:
        trunk: takes normalised images; has the blocks.
        projection: from what the trunk returns, ``(B, F)``, to the embedding ``(B, D)`` that is shared with texts.
        text_side: what reads texts, as long as it is needed.
    """

    weight: Tensor | None
    bias: Tensor | None

    def __init__(self, trunk: nn.Module, projection: nn.Module, text_side: TextSide | None = None) -> None:
        super().__init__()
        self.trunk = trunk
        self.projection = projection
        self.text_side = text_side
        self.num_classes = 0
        self.register_buffer("weight", None, persistent=False)
        self.register_buffer("bias", None, persistent=False)

    def classifying(self, directions: Tensor, scale: float, bias: float) -> ZeroShotNetwork:
        """Return a network with the same tower that answers.

        Args:
            directions: ``(C, D)`` unit vectors of the classes.
            scale: of the cosine.
            bias: of all logits.
        """
        made = ZeroShotNetwork(self.trunk, self.projection)
        made.num_classes = len(directions)
        made.register_buffer("weight", directions * scale, persistent=False)
        made.register_buffer("bias", torch.full((len(directions),), bias), persistent=False)
        return made

    def forward(self, images: Tensor) -> Tensor:
        """Return logits ``(B, C)``, or without texts the embedding ``(B, D)``, for normalised images."""
        return self.answer(self.trunk(images))

    def answer(self, features: Tensor | tuple[Tensor, ...]) -> Tensor:
        """Return the same for what the trunk returns."""
        embedding = self.projection(features[0] if isinstance(features, tuple) else features)
        if self.weight is None:
            return embedding
        with torch.autocast(embedding.device.type, enabled=False):
            return nn.functional.linear(nn.functional.normalize(embedding.float(), dim=1), self.weight, self.bias)


def with_texts(tower: Model, texts: Texts, name: str) -> Model:
    """Return a zero-shot model that shares its tower's weights.

    Args:
        tower: a model of a :class:`ZeroShotNetwork` that still has its text side.
        texts: what the classes are told by.
        name: shown in tables.

    Raises:
        InputError: a text is longer than the model's context, or two class names are one to its tokenizer.
    """
    network: Any = tower.backbone
    side: TextSide = network.text_side
    tokens = side.tokenize([text for number in range(len(texts.names.outputs)) for text in texts.of_class(number)])
    _refuse_alike(texts, tokens, name, side.how)
    key = [side.digest, digest_of(b"".join(state_parts("tokens", tokens))), texts.stated]
    texts = dataclasses.replace(texts, prepared=side.how, digest=digest_of_json(key, 32))
    model = Model(
        network.classifying(_directions(texts, side, tokens), side.scale, side.bias),
        name=name,
        preprocessing=tower.preprocessing,
        classes=texts.names.outputs,
        architecture=tower.architecture,
        source=tower.source,
        weights_sha256=tower.weights_sha256,
    )
    model.texts = texts
    return model


def without_texts(tower: Model) -> Model:
    """Return an image tower that forgets what reads texts, and has no classifier."""
    network: Any = tower.backbone
    network.text_side = None
    return tower


def is_tower(model: Model) -> bool:
    """Tell whether a model is a zero-shot model's image tower, which would answer if it had class names."""
    return isinstance(model.backbone, ZeroShotNetwork) and model.texts is None


def _refuse_alike(texts: Texts, tokens: Tensor, title: str, how: str) -> None:
    """Refuse class names that differ in what the tokenizer drops, such as capital letters."""
    read: dict[bytes, str] = {}
    for words, row in zip(texts.names.words, tokens.unflatten(0, (len(texts.names.words), -1)), strict=True):
        first = read.setdefault(b"".join(state_parts("tokens", row)), words)
        if first != words:
            raise InputError(
                f"the class names {first!r} and {words!r} are one to the tokenizer of {title} ({how}); answers could "
                "not be told apart"
            )


def _directions(texts: Texts, side: TextSide, tokens: Tensor) -> Tensor:
    """Return a unit vector for each class, ``(C, D)`` float32: of the mean of its texts' unit vectors.

    They are kept in the user's cache folder under the digest of all that determines them.
    """
    folder = cache_folder()
    path = None if folder is None else folder / "texts" / f"{texts.digest}-{_FORMAT}.safetensors"
    kept = None if path is None else _kept(path)
    if kept is not None and len(kept) == len(texts.names.outputs):
        return kept
    found = _encoded(texts, side, tokens)
    if path is not None:
        with contextlib.suppress(OSError):  # a cache that cannot be written costs time, nothing else
            tensors = {"directions": found}
            write_atomic(path, save(tensors, metadata={"sha256": _checksum(found)}))
    return found


def _encoded(texts: Texts, side: TextSide, tokens: Tensor) -> Tensor:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    parts: list[Tensor] = []
    shown = len(tokens) >= SHOWN_FROM
    with (
        progress("encoding texts", len(tokens), shown=shown, unit="texts") as advance,
        torch.inference_mode(),
        _on(device, side.network),
    ):
        for part in tokens.split(BATCH):
            parts.append(nn.functional.normalize(side.encode(part.to(device)).float().cpu(), dim=1))
            advance(len(part))
        unit = torch.cat(parts).unflatten(0, (len(texts.names.outputs), -1))
        found = nn.functional.normalize(unit.mean(dim=1), dim=1)
    if not found.isfinite().all():
        raise InputError("the text tower returned values that are not finite for these prompts and class names")
    return found.clone()  # outside of inference mode: a tensor that gradients may flow past


@contextlib.contextmanager
def _on(device: torch.device, network: nn.Module) -> Iterator[None]:
    """Let a network be on a device for a while."""
    network.to(device)
    try:
        yield
    finally:
        network.to("cpu")


def _kept(path: Path) -> Tensor | None:
    """Return what is kept in a file; None where there is none, or a damaged one."""
    try:
        with safe_open(str(path), framework="pt") as file:
            found, stated = file.get_tensor("directions"), (file.metadata() or {}).get("sha256")
    except (SafetensorError, OSError, ValueError):
        return None
    return found if stated == _checksum(found) else None


def _checksum(tensor: Tensor) -> str:
    return digest_of(b"".join(state_parts("directions", tensor)))


def refuse_too_long(texts: Sequence[str], lengths: Iterable[int], context: int, title: str) -> None:
    """Refuse texts that the model would see without their ends.

    Args:
        texts: as they were given.
        lengths: their numbers of tokens, with those for start and end.
        context: how many the model takes.
        title: what messages call the model.

    Raises:
        InputError: names the first text that is too long.
    """
    for text, length in zip(texts, lengths, strict=True):
        if length > context:
            raise InputError(
                f"{title} takes texts of {context} tokens, start and end among them, and {shown(text)} has {length}: "
                "its end would be cut off; shorten the prompt or the class name"
            )
