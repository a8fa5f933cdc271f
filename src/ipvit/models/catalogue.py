"""What networks there are, by family, without building any of them."""

from __future__ import annotations

import dataclasses
import fnmatch
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from types import MappingProxyType
from urllib.parse import urlparse

from ipvit.errors import InputError, did_you_mean
from ipvit.models.libraries import families
from ipvit.models.zoo.bundled import BUNDLED, bundled_models, bundled_weights
from ipvit.models.zoo.paper import NETWORKS, PaperNetwork

STAGED = frozenset({"logits", "gradients", "tokens", "feature_drop"})
"""What is possible with networks that work in stages: the features of each can be read and dropped."""

TRANSFORMER = STAGED | {"attention", "token_removal"}
"""What is possible with plain transformers beside that: their attention read, and patches left out."""

PAPER_CAPABILITIES: Mapping[str, frozenset[str]] = MappingProxyType(
    {
        "CNN": STAGED,
        "RegNetY": STAGED,
        "Swin": STAGED,
        "DeiT": TRANSFORMER,
        "ViT": TRANSFORMER,
        "T2T": TRANSFORMER - {"token_removal"},
        "TnT": TRANSFORMER - {"token_removal"},
        "DINO": TRANSFORMER - {"logits"},
        "DeiT-SIN": TRANSFORMER,
        "DeiT-T variants": TRANSFORMER,
    }
)
"""By the paper's families; distilled networks have ``token_heads`` in addition. Held against the adapters by a test."""

TIMM_CAPABILITIES: Mapping[str, frozenset[str]] = MappingProxyType(
    {
        "deit": TRANSFORMER,
        "vision_transformer": TRANSFORMER,
        "resnet": STAGED,
        "regnet": STAGED,
        "efficientnet": STAGED,
        "mobilenetv3": STAGED,
        "convnext": STAGED,
        "swin_transformer": STAGED,
        "swin_transformer_v2": STAGED,
        "eva": TRANSFORMER,
        "beit": TRANSFORMER,
        "naflexvit": TRANSFORMER,
        "cait": TRANSFORMER,
        "xcit": STAGED | {"attention"},
        "tnt": TRANSFORMER,
        "hiera": STAGED | {"token_removal"},
        "maxxvit": STAGED,
        "mobilevit": STAGED,
        "mambaout": STAGED,
        "efficientvim": STAGED - {"feature_drop"},
    }
)
"""By timm's families, of their usual members; what a network really can do is ``load_model(NAME).capabilities``."""

TORCHVISION_CAPABILITIES: Mapping[str, frozenset[str]] = MappingProxyType(
    {
        **dict.fromkeys(
            ("resnet", "vgg", "alexnet", "squeezenet", "densenet", "efficientnet", "mobilenetv3", "convnext"), STAGED
        ),
        "swin_transformer": STAGED,
        "vision_transformer": TRANSFORMER,
    }
)
"""By torchvision's families."""


@dataclasses.dataclass(frozen=True)
class CatalogueEntry:
    """One name that ``load_model`` takes.

    Attributes:
        name: the whole name.
        source: ``demo``, ``tin50``, ``paper``, ``torchvision``, ``open_clip`` or ``timm``.
        family: the paper's, or the library's own.
        capabilities: what can be measured with it, or None where only loading it tells.
    """

    name: str
    source: str
    family: str
    capabilities: frozenset[str] | None = None

    @property
    def plain(self) -> str:
        """The name without what stands before its colon."""
        return self.name.partition(":")[2] or self.name


@cache
def catalogue() -> tuple[CatalogueEntry, ...]:
    """Return every name: bundled networks, the paper's, torchvision's, open_clip's where it is installed, timm's."""
    return tuple(entry for entries in SOURCES.values() for entry in entries())


def matching(pattern: str) -> list[CatalogueEntry]:
    """Return the entries whose name, with or without what stands before the colon, fits shell wildcards.

    Where none does and the pattern is a plain word, those that it is a part of.

    Raises:
        InputError: there are none; with close names.
    """
    entries = catalogue()
    found = [entry for entry in entries if _fits(entry, pattern)]
    if not found and not any(mark in pattern for mark in "*?["):
        found = [entry for entry in entries if pattern.lower() in entry.name.lower()]
    if not found:
        raise InputError(f"no model matches {pattern!r}.{did_you_mean(pattern, [entry.name for entry in entries])}")
    return found


def paper_networks(pattern: str | None = None) -> list[PaperNetwork]:
    """Return the networks of the paper, or those whose name, with or without ``paper:``, fits shell wildcards.

    Raises:
        InputError: there are none; with close names.
    """
    found = [NETWORKS[entry.plain] for entry in _paper() if pattern is None or _fits(entry, pattern)]
    if not found:
        raise InputError(f"no network of the paper matches {pattern!r}.{did_you_mean(pattern or '', NETWORKS)}")
    return found


def _fits(entry: CatalogueEntry, pattern: str) -> bool:
    return fnmatch.fnmatch(entry.name, pattern) or fnmatch.fnmatch(entry.plain, pattern)


def by_family(entries: Iterable[CatalogueEntry]) -> dict[tuple[str, str], list[CatalogueEntry]]:
    """Return entries by source and family, in their order."""
    found: dict[tuple[str, str], list[CatalogueEntry]] = {}
    for entry in entries:
        found.setdefault((entry.source, entry.family), []).append(entry)
    return found


def capabilities_of(network: PaperNetwork) -> frozenset[str]:
    """Return what can be measured with a network of the paper.

    >>> sorted(capabilities_of(NETWORKS["deit_s_sin_dist"]) - TRANSFORMER)
    ['token_heads']
    """
    heads = {"token_heads"} if len(network.prefix_tokens) > 1 else set()
    return PAPER_CAPABILITIES[network.family] | heads


def describe(network: PaperNetwork) -> dict[str, object]:
    """Return what is known of a network of the paper, as JSON can hold it."""
    height, width = network.preprocessing.view.size
    return {
        "name": f"paper:{network.name}",
        "title": network.title,
        "family": network.family,
        "where": network.where,
        "constructor": network.constructor,
        "options": dict(network.options),
        "parameters": network.parameters,
        "input_size": [height, width],
        "resize": network.preprocessing.view.resize[0],
        "interpolation": network.preprocessing.view.interpolation,
        "mean": list(network.preprocessing.mean),
        "std": list(network.preprocessing.std),
        "weights": network.weights,
        "sha256": network.sha256,
        "page": network.page,
        "capabilities": sorted(capabilities_of(network)),
        "notes": network.notes,
    }


def publisher(network: PaperNetwork) -> str:
    """Return in one or two words where the weights of a network of the paper come from.

    >>> publisher(NETWORKS["deit_s_sin"]), publisher(NETWORKS["resnet50"]), publisher(NETWORKS["resnet50_augmix"])
    ('paper', 'torchvision', 'by hand')
    """
    if network.weights is None:
        return "by hand"
    place = urlparse(network.weights)
    owner = f"{place.netloc}{place.path}"
    return next(name for beginning, name in PUBLISHERS.items() if owner.startswith(beginning))


PUBLISHERS = {
    "github.com/Muzammal-Naseer/": "paper",
    "dl.fbaipublicfiles.com/deit/": "DeiT",
    "dl.fbaipublicfiles.com/dino/": "DINO",
    "github.com/yitu-opensource/": "T2T-ViT",
    "github.com/rwightman/": "timm",
    "github.com/SwinTransformer/": "Swin",
    "github.com/contrastive/": "TnT",
    "download.pytorch.org/": "torchvision",
    "bitbucket.org/robert_geirhos/": "Geirhos",
}
"""Who publishes what, by the beginning of the address."""


def _demo() -> Iterator[CatalogueEntry]:
    from ipvit.models.io.checkpoint import read_metadata  # takes a moment to import

    for source in BUNDLED:
        for name in bundled_models(source):
            stated = read_metadata(bundled_weights(source, name.partition(":")[2])) or {}
            network = stated["architecture"]
            can = STAGED if network["name"].startswith("resnet") else TRANSFORMER
            heads = {"token_heads"} if network["kwargs"].get("distilled") else set()
            none = set() if stated["classes"] else {"logits"}
            yield CatalogueEntry(name, source, "bundled", can - none | heads)


def _paper() -> Iterator[CatalogueEntry]:
    for network in NETWORKS.values():
        yield CatalogueEntry(f"paper:{network.name}", "paper", network.family, capabilities_of(network))


def _torchvision() -> Iterator[CatalogueEntry]:
    for name, family in families("torchvision").items():
        yield CatalogueEntry(f"torchvision:{name}", "torchvision", family, TORCHVISION_CAPABILITIES.get(family))


def _open_clip() -> Iterator[CatalogueEntry]:
    for name, family in sorted(families("open_clip").items(), key=lambda item: (item[1], item[0])):
        yield CatalogueEntry(f"open_clip:{name}", "open_clip", family)


def _timm() -> Iterator[CatalogueEntry]:
    for name, family in sorted(families("timm").items(), key=lambda item: (item[1], item[0])):
        yield CatalogueEntry(name, "timm", family, TIMM_CAPABILITIES.get(family))


SOURCES: Mapping[str, Callable[[], Iterator[CatalogueEntry]]] = MappingProxyType(
    {"demo": _demo, "paper": _paper, "torchvision": _torchvision, "open_clip": _open_clip, "timm": _timm}
)
"""What lists the networks of a source; that of the bundled ones lists all of them."""
