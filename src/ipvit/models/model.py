"""``Model``: a network that takes images in [0, 1] and knows what they must look like."""

from __future__ import annotations

import contextlib
import contextvars
import copy
import dataclasses
import hashlib
import inspect
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ipvit.core.digests import digest_of_json
from ipvit.core.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Preprocessing, View
from ipvit.core.text.notebook import definition_table, few
from ipvit.core.text.words import counted
from ipvit.errors import InputError, shown
from ipvit.models.adapters import Adapter, BlockTokens, FeatureState, find_adapter, logits_of, unwrap
from ipvit.models.answers import AnswerSpace
from ipvit.models.dry_pass import outputs_of
from ipvit.models.state_parts import state_parts
from ipvit.models.steadiness import doubt_of
from ipvit.models.verification import own_heads, why_not
from ipvit.models.wrapping import checked_classes, checked_module, checked_name, checked_scale, checked_size
from ipvit.models.zero_shot.texts import Texts

if TYPE_CHECKING:
    from ipvit.data.dataset import Dataset

_STRUCTURE = contextvars.ContextVar("_STRUCTURE", default=False)
"""Whether the ``repr`` of a model is that of its layers."""


class Model(nn.Module):
    """A backbone with its normalisation inside and its metadata on it.

    ``model(images)`` takes ``(B, 3, H, W)`` in [0, 1] and returns logits ``(B, num_classes)`` in float32.

    Args:
        backbone: the network; takes normalised images.
        name: shown in tables and used for the folder of its records.
        preprocessing: input size, crop, interpolation, mean and std.
        classes: names of the outputs in their order (ImageNet: synsets), or None when nobody knows.
        architecture: what identifies the code of the network beside its weights.
        source: where the weights come from, in words.
        weights_sha256: digest of the weights file, where there is one.
        adapter: what reads the inside of the backbone, for a family that none of ours is for: a subclass of
            :class:`ipvit.models.adapters.Adapter`.

    Attributes:
        distillation_token: what the second token of a distilled network is called: ``distillation``, or ``shape``
            where it was taught shape.
        origin: the name that :func:`~ipvit.models.loading.load_model` loads this network by, and whether with its
            published weights; None for a network made in Python.
        backend: what computes it, ``torch`` or for example ``openvino``; see :mod:`ipvit.models.backend`.
        answer_space: what it chooses among where that is not its outputs, see :meth:`answering`.
        classes: names of what it chooses among.
        texts: what the outputs of a zero-shot model are told by; None for any other.
        bank: the images that its answers are votes of, which it must not be measured on; None for any other.
        tower_of: of an image tower without classifier, what it is the tower of and how to ask for that; else empty.
    """

    backend: str = "torch"
    answer_space: AnswerSpace | None = None
    distillation_token: str = "distillation"
    origin: tuple[str, bool] | None = None
    texts: Texts | None = None
    bank: Dataset | None = None
    tower_of: str = ""
    _mean: Tensor
    _std: Tensor

    def __init__(
        self,
        backbone: nn.Module,
        *,
        name: str,
        preprocessing: Preprocessing,
        classes: Sequence[str] | None = None,
        architecture: str = "",
        source: str = "",
        weights_sha256: str | None = None,
        adapter: Callable[[nn.Module], Adapter] | None = None,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.name = name
        self.preprocessing = preprocessing
        self.classes = None if classes is None else tuple(classes)
        self.architecture = architecture or _describe(backbone)
        if adapter is not None:
            if not callable(adapter):
                raise InputError(f"adapter must be a subclass of ipvit.models.adapters.Adapter, not {shown(adapter)}")
            self.architecture = "\n".join(
                [self.architecture, f"read by {getattr(adapter, '__qualname__', '')}", *_source(adapter)]
            )
        self._find_adapter = adapter or find_adapter
        self.source = source
        self.weights_sha256 = weights_sha256
        device = next((parameter.device for parameter in backbone.parameters()), None)
        for name, values in (("_mean", preprocessing.mean), ("_std", preprocessing.std)):
            self.register_buffer(name, torch.tensor(values, device=device).view(1, -1, 1, 1), persistent=False)
        self._digest: str | None = None
        self._adapter: Adapter | None = None
        self._outputs: int | None = None
        self._doubt: str | None = None
        self._of_outputs: tuple[str, ...] | None = None
        self._shown: dict[str, str] = {}
        self._head_kinds: tuple[str, ...] | None = None

    def __repr__(self) -> str:
        if _STRUCTURE.get():
            return super().__repr__()
        height, width = self.image_size
        outputs = f"{self._outputs:,} outputs" if self._outputs else "no classifier" if self._outputs == 0 else ""
        kind = f"{counted(sum(p.numel() for p in self.backbone.parameters()), 'parameter')}, {height}x{width} pixels"
        source = f"weights from {self.source}" if self.source not in ("", "wrapped") else "made in Python"
        return f"<ipvit.Model {self.name!r}: {', '.join(filter(None, (kind, outputs)))}; {source}>"

    def _repr_html_(self) -> str:
        preprocessing = self.preprocessing
        view = preprocessing.view
        return definition_table(
            f"Model {self.name}",
            {
                "network": type(unwrap(self.backbone)).__name__,
                "parameters": f"{sum(p.numel() for p in self.backbone.parameters()):,}",
                "input": f"{view.size[0]} x {view.size[1]} pixels, {view.interpolation}, crop {view.crop_pct:.3g}",
                "normalisation": f"mean {_rounded(preprocessing.mean)}, std {_rounded(preprocessing.std)}",
                "outputs": "" if self._outputs is None else f"{self._outputs:,}",
                "class names": "unknown" if self.classes is None else few(self.classes),
                **({} if self.texts is None else {"answers": self.texts.in_words}),
                "weights from": self.source,
                "digest": self.digest[:12],
            },
        )

    @property
    def output_classes(self) -> tuple[str, ...] | None:
        """Names of all outputs, also where it chooses among others."""
        return self.classes if self.answer_space is None else self._of_outputs

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of the input in pixels."""
        return self.preprocessing.view.size

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return self._mean.device

    @property
    def digest(self) -> str:
        """Digest (32 hex digits) of weights, architecture and preprocessing: what determines the outputs.

        That of a zero-shot model is also of the texts.
        """
        return self.tower_digest if self.texts is None else digest_of_json([self.tower_digest, self.texts.digest], 32)

    @property
    def tower_digest(self) -> str:
        """Digest of what determines the tokens: of a zero-shot model that of its image tower, whatever the texts."""
        if self._digest is None:
            digest = hashlib.sha256()
            for part in (self.architecture, repr(dataclasses.asdict(self.preprocessing))):
                digest.update(part.encode() + b"\0")
            for key, value in sorted(unwrap(self.backbone).state_dict().items()):
                for part in state_parts(key, value):
                    digest.update(part)
            self._digest = digest.hexdigest()[:32]
        return self._digest

    def forget_digest(self) -> None:
        """Work out anew, when it is next asked for, what follows from the weights: they may have changed since."""
        self._digest = self._doubt = None

    def dry_pass(self) -> int:
        """Run the network once on made-up pictures, check what comes back, and return the number of outputs.

        Raises:
            InputError: what comes back does not fit; see :func:`ipvit.models.dry_pass.outputs_of`.
        """
        self._outputs = outputs_of(self)
        self._doubt = None
        return self._outputs

    @property
    def doubt(self) -> str:
        """What makes all numbers of this network doubtful; see :func:`ipvit.models.steadiness.doubt_of`."""
        if self._doubt is None:
            self._doubt = doubt_of(self)
        return self._doubt

    @property
    def n_outputs(self) -> int:
        """Number of outputs, 0 without a classifier; the first time it takes a :meth:`dry_pass`."""
        return self.dry_pass() if self._outputs is None else self._outputs

    def normalize(self, images: Tensor) -> Tensor:
        """Return ``(images - mean) / std``; gradients flow through."""
        return (images - self._mean) / self._std

    def denormalize(self, inputs: Tensor) -> Tensor:
        """Return what :meth:`normalize` was given."""
        return inputs * self._std + self._mean

    def forward(self, images: Tensor) -> Tensor:
        """Return logits ``(B, num_classes)``, float32, for images ``(B, 3, H, W)`` in [0, 1]."""
        return self._answered(logits_of(self.backbone(self.normalize(images))))

    @property
    def adapter(self) -> Adapter:
        """What reads and changes the inside of the backbone; see :mod:`ipvit.models.adapters`."""
        network = unwrap(self.backbone)
        if self._adapter is None or self._adapter.network is not network:
            found: object = self._find_adapter(network)
            if not isinstance(found, Adapter):
                raise InputError(f"adapter must make an ipvit.models.adapters.Adapter, not {shown(found)}")
            self._adapter = found
            self._shown, self._head_kinds = {}, None
        self._adapter.distillation_token = self.distillation_token
        return self._adapter

    @property
    def capabilities(self) -> frozenset[str]:
        """What this model can do beside logits: ``tokens``, ``attention``, ``feature_drop``, ``token_removal``, ...

        All of it has been tried, see :meth:`why_not`; to ask for one, :meth:`can` takes fewer passes.
        """
        return frozenset(capability for capability in self.adapter.capabilities if self.can(capability))

    def can(self, capability: str) -> bool:
        """Say whether the network can do one thing."""
        return not self.why_not(capability)

    @property
    def is_plain_transformer(self) -> bool:
        """Whether one grid of tokens goes through all blocks: it has tokens beside the patches, or maps of attention.

        Other networks, convolutional ones and Swin Transformers, go from stage to stage; in CaiT the class token joins
        the patches late.
        """
        adapter = self.adapter
        return bool(adapter.prefix_tokens_of(0)) or (0 in adapter.attention_blocks and self.can("attention"))

    def why_not(self, capability: str) -> str:
        """Return why the network cannot do something, in one sentence, or an empty string where it can.

        What its adapter claims is tried when it is first asked for, see :mod:`ipvit.models.verification`.
        """
        if capability not in self.adapter.capabilities:
            return self.adapter.lacking(capability) or "its adapter does not offer it"
        if capability not in self._shown:
            self._shown[capability] = why_not(self, capability)
        return self._shown[capability]

    @property
    def head_kinds(self) -> tuple[str, ...]:
        """Kinds of vector of the last block that :meth:`classify` makes the network's own logits of; tried once."""
        if not self.can("tokens") or not self.can("logits"):
            return ()
        if self._head_kinds is None:
            self._head_kinds = own_heads(self)
        return self._head_kinds

    def tokens(
        self, images: Tensor, blocks: Sequence[int] | None = None, *, norm: bool = True
    ) -> dict[int, BlockTokens]:
        """Return what leaves blocks (all by default), in float32, for images in [0, 1]; see :meth:`Adapter.tokens`."""
        adapter = self._able("tokens")
        wanted = range(adapter.n_blocks) if blocks is None else blocks
        found = adapter.tokens(self.normalize(images), wanted, norm)
        return {block: tokens.float() for block, tokens in found.items()}

    def attention(self, images: Tensor, blocks: Sequence[int]) -> dict[int, Tensor]:
        """Return maps ``(B, heads, T, T)``, in float32, for images in [0, 1]; see :meth:`Adapter.attention`."""
        found = self._able("attention").attention(self.normalize(images), blocks)
        return {block: attention.float() for block, attention in found.items()}

    def attention_received(self, images: Tensor, blocks: Sequence[int]) -> dict[int, Tensor]:
        """Return the share of maps that each token receives, ``(B, T)``; see :meth:`Adapter.attention_received`."""
        found = self._able("attention").attention_received(self.normalize(images), blocks)
        return {block: shares.float() for block, shares in found.items()}

    def prefix_attention(self, images: Tensor, block: int) -> Tensor:
        """Return a map's rows ``(B, heads, P, T)`` of the prefix tokens; see :meth:`Adapter.prefix_attention`."""
        return self._able("attention").prefix_attention(self.normalize(images), block).float()

    def n_heads(self, block: int) -> int:
        """Return how many attention maps a block has; takes a pass only where the network's family cannot tell."""
        found = self._able("attention").n_heads(block)
        if found is None:
            with torch.inference_mode():
                blank = torch.zeros(1, 3, *self.image_size, device=self.device)
                found = self.prefix_attention(blank, block).shape[1]
        return found

    def run_to_block(self, images: Tensor, block: int) -> FeatureState:
        """Return what enters a block, for images in [0, 1]; see :meth:`Adapter.run_to_block`."""
        return self._able("feature_drop").run_to_block(self.normalize(images), block)

    def run_to_blocks(self, images: Tensor, blocks: Sequence[int]) -> dict[int, FeatureState]:
        """Return what enters each of some blocks, from one pass where possible; see :meth:`Adapter.run_to_blocks`."""
        return self._able("feature_drop").run_to_blocks(self.normalize(images), blocks)

    def drop(self, state: FeatureState, keep: Tensor) -> FeatureState:
        """Zero the features of the places where ``keep`` is False; see :meth:`Adapter.drop`."""
        return self._able("feature_drop").drop(state, keep)

    def run_from_block(self, state: FeatureState, block: int | None = None) -> Tensor:
        """Return the logits, float32, from what enters a block; see :meth:`Adapter.run_from_block`."""
        return self._answered(self._able("feature_drop").run_from_block(state, block))

    def without_patches(self, images: Tensor, keep: Tensor) -> Tensor:
        """Return the logits, float32, when the other patches never enter; see :meth:`Adapter.token_removal`."""
        return self._answered(self._able("token_removal").token_removal(self.normalize(images), keep))

    def logits_by_token(self, images: Tensor) -> dict[str, Tensor]:
        """Return the logits, float32, of each token's head and their mean; see :meth:`Adapter.logits_by_token`."""
        found = self._able("token_heads").logits_by_token(self.normalize(images))
        return {token: self._answered(logits) for token, logits in found.items()}

    def classify(self, vector: Tensor, kind: str = "class") -> Tensor:
        """Put a token through the network's own head; see :meth:`Adapter.classify`."""
        return self._answered(self._able("tokens").classify(vector, kind))

    def answering(self, answers: AnswerSpace) -> Model:
        """Return the same network as one that chooses among some answers: its logits are their scores.

        It shares weights, preprocessing and digest with this one. Its ``classes`` are the answers' names.
        """
        chooser = copy.copy(self)
        chooser.answer_space, chooser.classes = answers, answers.names
        chooser._of_outputs, chooser._outputs = self.output_classes, len(answers)  # noqa: SLF001 - one of its kind
        return chooser

    def _answered(self, logits: Tensor) -> Tensor:
        return logits.float() if self.answer_space is None else self.answer_space.scores(logits.float())

    def _able(self, capability: str) -> Adapter:
        if reason := self.why_not(capability):
            offered = ", ".join(sorted(self.capabilities))
            raise InputError(f"model {self.name!r} does not offer {capability!r} ({reason}); it offers {offered}")
        return self.adapter


def wrap(
    module: nn.Module,
    *,
    mean: Sequence[float] = IMAGENET_MEAN,
    std: Sequence[float] = IMAGENET_STD,
    size: int | tuple[int, int] = 224,
    crop_pct: float = 0.875,
    interpolation: str = "bicubic",
    classes: Sequence[str] | None = None,
    name: str | None = None,
    adapter: Callable[[nn.Module], Adapter] | None = None,
) -> Model:
    """Make a :class:`Model` of any ``nn.Module`` that maps normalised images to logits.

    Args:
        module: the network; put into evaluation mode.
        mean: per-channel mean the network was trained with, for images in [0, 1].
        std: per-channel standard deviation, likewise.
        size: input height and width in pixels, or one number for both.
        crop_pct: share of the resized shortest side that is cropped (0.875: resize 256, crop 224).
        interpolation: ``bicubic`` or ``bilinear``.
        classes: names of the outputs; needed to map a data set's labels unless its ``classes.txt`` states them.
        name: shown in tables; the class's name by default.
        adapter: a subclass of :class:`ipvit.models.adapters.Adapter` that reads tokens and attention of this network,
            where none of ours is for it.

    Raises:
        InputError: an argument is of another kind, what comes out of one pass over made-up pictures does not fit, or
            the weights are not float32.

    >>> model = wrap(nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()), size=8)
    >>> model(torch.rand(2, 3, 8, 8)).shape
    torch.Size([2, 3])
    """
    checked_module(module)
    height_and_width = checked_size(size)
    scale = checked_scale(mean, std, crop_pct)
    preprocessing = Preprocessing(View(height_and_width, crop_pct, interpolation), *scale)
    model = Model(
        module.eval(),
        name=checked_name(name) or type(module).__name__,
        preprocessing=preprocessing,
        classes=checked_classes(classes),
        source="wrapped",
        adapter=adapter,
    ).eval()
    model.dry_pass()
    return model


def _rounded(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.3g}" for value in values)


_LIBRARIES = ("torch", "torchvision", "timm", "transformers")


def _describe(module: nn.Module) -> str:
    """Text that identifies the code of a network: its structure, the source of its own classes, their plain values."""
    structure = _STRUCTURE.set(True)  # a digest is of the network's structure, whatever we show of a model
    try:
        lines = [repr(module)]
    finally:
        _STRUCTURE.reset(structure)
    lines += [part.code for part in module.modules() if isinstance(part, torch.jit.ScriptModule)][:1]
    seen: set[type] = set()
    for name, part in module.named_modules():
        kind = type(part)
        if kind.__module__.split(".")[0] in _LIBRARIES:
            continue
        plain = {
            key: value
            for key, value in vars(part).items()
            if isinstance(value, int | float | str | tuple) and key != "training" and not key.startswith("_")
        }
        for key, value in sorted(vars(part).items()):
            if isinstance(value, list | dict | set) and not key.startswith("_") and value:
                lines.append(f"{name}.{key} {_plainly(value)}")
            elif inspect.isroutine(value):
                lines += [f"{name}.{key} {value.__module__}.{value.__qualname__}", *_source(value)]
        for key in sorted(part._non_persistent_buffers_set):  # noqa: SLF001 - a state dict lacks them
            if (buffer := getattr(part, key)) is not None:
                lines.append(f"{name}.{key} {hashlib.sha256(b''.join(state_parts(key, buffer))).hexdigest()}")
        lines.append(f"{name} {kind.__module__}.{kind.__qualname__} {sorted(plain.items())}")
        if kind not in seen:
            seen.add(kind)
            lines += _source(kind)
    return "\n".join(lines)


def _plainly(value: Any) -> str:
    """Return a value as text that is the same in every process: no addresses of objects, no order of sets."""
    if isinstance(value, dict):
        return str(sorted((str(key), _plainly(one)) for key, one in value.items()))
    if isinstance(value, list | tuple | set):
        parts = [_plainly(one) for one in value]
        return str(sorted(parts) if isinstance(value, set) else parts)
    if isinstance(value, int | float | str | bool | None):
        return repr(value)
    return f"{type(value).__module__}.{type(value).__qualname__}"


def _source(thing: Any) -> list[str]:
    with contextlib.suppress(OSError, TypeError):  # typed at a prompt: there is no source to read
        return [inspect.getsource(thing)]
    return []
