"""Probe files: a linear head on a backbone's tokens, and the backbone's name (section 3.5).

The file holds the head alone and states which network it belongs to, down to the digest of its weights; together they
are a classifier that every experiment can use.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import BaseModel, Field
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from ipvit.core.artifacts import ArtifactError, Kind, Metadata
from ipvit.core.digests import digest_of, digest_of_file
from ipvit.core.files import write_atomic
from ipvit.core.preprocessing import Preprocessing, View
from ipvit.errors import InputError, error_line
from ipvit.models.adapters.base import Adapter, BlockTokens
from ipvit.models.io.checkpoint import ViewMetadata
from ipvit.models.model import Model
from ipvit.models.readout import FeatureSpec, blocks_of, side_by_side

METADATA_KEY = "ipvit-probe"

MARK = "@probe:"
"""What stands between a backbone's name and a probe file; ``probe:PATH`` alone uses the name in the file."""


@dataclasses.dataclass(frozen=True)
class ProbeHead:
    """A linear head and what it reads.

    Attributes:
        weight: ``(C, D)`` float32.
        bias: ``(C,)`` float32.
        specs: the vectors that make up the D numbers, in their order.
        norm: they were put through the backbone's last normalisation.
        classes: names of the C outputs.
        view: how pictures become the input.
        backbone: name that loads the backbone, weights included; empty where there is none.
        pretrained: whether the name was loaded with its published weights.
        digest: of the backbone.
        fit: how the head was fitted, for the reader.
        key: digest of all that determines the head, as its file name states it; empty where no run fitted it.
    """

    weight: Tensor
    bias: Tensor
    specs: tuple[FeatureSpec, ...]
    norm: bool
    classes: tuple[str, ...]
    view: View
    backbone: str
    pretrained: bool
    digest: str
    fit: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    key: str = ""

    def __call__(self, tokens: Mapping[int, BlockTokens]) -> Tensor:
        """Return the logits ``(B, C)``, float32, from what leaves the blocks."""
        return linear(side_by_side(tokens, self.specs), self.weight, self.bias)

    def to(self, device: torch.device) -> ProbeHead:
        """Return the same on a device."""
        return dataclasses.replace(self, weight=self.weight.to(device), bias=self.bias.to(device))


def linear(features: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Return ``features @ weight.T + bias`` in float32, whatever the autocast around."""
    with torch.autocast(features.device.type, enabled=False):
        return nn.functional.linear(features.float(), weight, bias)


class _Backbone(BaseModel):
    name: str
    pretrained: bool
    digest: str


class _Metadata(Metadata):
    """What a probe file says of itself; older ones do not state the digest of their numbers."""

    backbone: _Backbone
    reads: Annotated[list[tuple[Annotated[int, Field(ge=0)], str]], Field(min_length=1)]
    norm: bool
    classes: list[str]
    view: ViewMetadata
    fit: dict[str, Any]
    sha256: str = ""


_WRITTEN_BY = "ipvit probe writes them to OUT/probes"

PROBE = Kind("probe", _Metadata, content="head", place="header", hint=_WRITTEN_BY)


def save_probe(path: Path, head: ProbeHead) -> None:
    """Write a probe file, whole or not at all."""
    tensors = {"weight": head.weight.cpu().contiguous(), "bias": head.bias.cpu().contiguous()}
    metadata = _Metadata(
        key=head.key,
        backbone=_Backbone(name=head.backbone, pretrained=head.pretrained, digest=head.digest),
        reads=[(spec.block, spec.token) for spec in head.specs],
        norm=head.norm,
        classes=list(head.classes),
        view=ViewMetadata.model_validate(dataclasses.asdict(head.view)),
        fit=dict(head.fit),
        sha256=digest_of(_numbers(save(tensors))),
    )
    write_atomic(path, save(tensors, metadata={METADATA_KEY: PROBE.dumps(metadata, indent=None)}))


def read_probe(path: Path) -> ProbeHead:
    """Read a probe file.

    Raises:
        InputError: there is no such file, it is damaged, or it is something else.
    """
    if not path.is_file():
        raise InputError(f"there is no probe file {str(path)!r}; {_WRITTEN_BY}")
    try:
        with safe_open(str(path), framework="pt") as file:
            text = (file.metadata() or {}).get(METADATA_KEY)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    except (SafetensorError, OSError, ValueError) as error:
        raise InputError(f"{str(path)!r} is not a whole probe file: {error_line(error)}") from None
    if text is None or not {"weight", "bias"} <= tensors.keys():
        raise InputError(f"{str(path)!r} is not a probe file: {_WRITTEN_BY}")
    metadata = PROBE.loads(text, path)
    if metadata.sha256:
        PROBE.verify(_numbers(path.read_bytes()), metadata.sha256, path)
    weight, bias = tensors["weight"].float(), tensors["bias"].float()
    shapes = tuple(weight.shape), tuple(bias.shape)
    if weight.ndim != 2 or shapes != ((len(metadata.classes), weight.shape[1]), (len(metadata.classes),)):
        raise ArtifactError(
            f"{str(path)!r} is a damaged probe file: weight {shapes[0]} and bias {shapes[1]} for "
            f"{len(metadata.classes)} classes"
        )
    if not (weight.isfinite().all() and bias.isfinite().all()):
        raise ArtifactError(f"{str(path)!r} is a damaged probe file: not all of its numbers are finite")
    return ProbeHead(
        weight=weight,
        bias=bias,
        specs=tuple(FeatureSpec(block, token) for block, token in metadata.reads),
        norm=metadata.norm,
        classes=tuple(metadata.classes),
        view=View(**metadata.view.model_dump()),
        backbone=metadata.backbone.name,
        pretrained=metadata.backbone.pretrained,
        digest=metadata.backbone.digest,
        fit=metadata.fit,
        key=metadata.key,
    )


def _numbers(file: bytes) -> bytes:
    """Return what follows the header of a safetensors file: the tensors' bytes."""
    return file[8 + int.from_bytes(file[:8], "little") :]


class HeadedNetwork(nn.Module):
    """A backbone that answers through a head on its tokens.

    Args:
        network: the backbone; takes normalised images.
        adapter: what reads it.
        specs: the vectors that the head reads, side by side.
        norm: they are put through the backbone's last normalisation.
        head: takes these, ``(B, D)``, and returns logits ``(B, C)``.
        outputs: how many these are.
    """

    def __init__(
        self,
        network: nn.Module,
        adapter: Adapter,
        specs: Sequence[FeatureSpec],
        norm: bool,
        head: nn.Module,
        outputs: int,
    ) -> None:
        super().__init__()
        self.network = network
        self.adapter = adapter
        self.specs = specs
        self.blocks = blocks_of(specs)
        self.norm = norm
        self.num_classes = outputs
        self.head = head

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits ``(B, C)`` for normalised images."""
        return self.answer(self.adapter.tokens(images, self.blocks, self.norm))

    def features(self, images: Tensor) -> Tensor:
        """Return what the head reads, ``(B, D)``, for normalised images."""
        return side_by_side(self.adapter.tokens(images, self.blocks, self.norm), self.specs)

    def answer(self, tokens: Mapping[int, BlockTokens]) -> Tensor:
        """Return the logits from what leaves the blocks."""
        return self.head(side_by_side(tokens, self.specs))


class ProbedNetwork(HeadedNetwork):
    """A backbone that answers through a linear head on its tokens.

    Args:
        network: the backbone; takes normalised images.
        adapter: what reads it.
        probe: the head.
    """

    head: nn.Linear

    def __init__(self, network: nn.Module, adapter: Adapter, probe: ProbeHead) -> None:
        head = nn.Linear(probe.weight.shape[1], probe.weight.shape[0])
        head.load_state_dict({"weight": probe.weight, "bias": probe.bias})
        super().__init__(network, adapter, probe.specs, probe.norm, head, len(probe.classes))

    def answer(self, tokens: Mapping[int, BlockTokens]) -> Tensor:
        """Return the logits from what leaves the blocks."""
        return linear(side_by_side(tokens, self.specs), self.head.weight, self.head.bias)


def with_head(
    backbone: Model,
    head: nn.Module,
    specs: Sequence[FeatureSpec],
    *,
    classes: Sequence[str],
    told: str,
    identity: str,
    name: str,
    norm: bool = True,
) -> Model:
    """Return a model that answers through any head on a backbone's tokens; it shares the backbone's weights.

    Args:
        backbone: the network.
        head: takes the vectors side by side, ``(B, D)``, and returns logits ``(B, C)``.
        specs: what it reads.
        classes: names of its outputs.
        told: what it is, for tables.
        identity: all that determines it; what its buffers hold beside that may depend on the machine.
        name: shown in tables.
        norm: the vectors are put through the backbone's last normalisation.
    """
    network = HeadedNetwork(backbone.adapter.network, backbone.adapter, specs, norm, head, len(classes))
    model = Model(
        network.eval().requires_grad_(False),
        name=name,
        preprocessing=backbone.preprocessing,
        classes=classes,
        architecture=f"{identity}\n{backbone.architecture}",
        source=f"{backbone.source}, {told}",
        weights_sha256=backbone.weights_sha256,
    )
    model.distillation_token = backbone.distillation_token
    return model.to(backbone.device)


def with_probe(backbone: Model, probe: ProbeHead, *, where: str = "the head", name: str | None = None) -> Model:
    """Return a model that answers through a head; it shares the backbone's weights.

    Args:
        backbone: the network that the head was fitted on.
        probe: the head.
        where: what messages call it.
        name: shown in tables; the backbone's and ``+probe`` by default.

    Raises:
        InputError: the head was fitted on another network, or on the same with other weights.
    """
    if backbone.tower_digest != probe.digest:
        raise InputError(
            f"{where} was fitted on {probe.backbone or 'a network without a name'} (digest {probe.digest[:8]}); "
            f"{backbone.name} has other weights or another input (digest {backbone.tower_digest[:8]})"
        )
    before = backbone.preprocessing
    model = Model(
        ProbedNetwork(backbone.adapter.network, backbone.adapter, probe).eval().requires_grad_(False),
        name=name or f"{backbone.name}+probe",
        preprocessing=Preprocessing(probe.view, before.mean, before.std),
        classes=probe.classes,
        architecture=f"probe {[str(spec) for spec in probe.specs]} norm={probe.norm}\n{backbone.architecture}",
        source=f"{backbone.source}, {where}",
    )
    model.distillation_token = backbone.distillation_token
    return model.to(backbone.device)


def load_probed(path: Path, backbone: Model, *, name: str | None = None) -> Model:
    """Load the head in a probe file onto its backbone; see :func:`with_probe`."""
    model = with_probe(backbone, read_probe(path), where=f"the probe {str(path)!r}", name=name)
    model.weights_sha256 = digest_of_file(path)
    return model
