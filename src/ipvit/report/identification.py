"""Which of the paper's networks and data a run measured: told by what was loaded, never by a label or folder."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from ipvit.core.manifest import UNSTATED, ExperimentData, Manifest, RunSummary, UsedModel
from ipvit.data.recognition import CUE_CONFLICT, IMAGENET, IMAGENET_C, SIZES, VOC
from ipvit.models.names import ModelName, weights_in_words
from ipvit.models.zoo.paper import NETWORKS, loaded_network

_SIZE = 224
"""Height and width of the input of the networks that the zoo does not hold."""

_SETS = {
    IMAGENET: "ImageNet's validation set",
    IMAGENET_C: "ImageNet-C",
    VOC: "PASCAL VOC 2012's validation set",
    CUE_CONFLICT: "the cue-conflict stimuli of Geirhos et al.",
}


@dataclasses.dataclass(frozen=True)
class PaperModel:
    """A model of a run that is a network of the paper.

    Attributes:
        name: in the run's tables.
        network: of the paper.
        untrained: its weights are random.
        size: height and width of its input in pixels.
        note: what its weights are, where they need not be the published ones.
    """

    name: str
    network: str
    untrained: bool
    size: tuple[int, int]
    note: str = ""


def identified(model: UsedModel) -> tuple[PaperModel | None, str]:
    """Return which network of the paper a model is, or None and why it is none, empty where nothing suggests it."""
    if model.loaded_as is None:
        return None, f"{UNSTATED} what {model.name} was loaded as"
    if not model.loaded_as:
        return None, ""
    network, reason = loaded_network(model.loaded_as)
    if network is None:
        return None, reason
    parsed = ModelName.parse(model.loaded_as)
    note = weights_in_words(parsed) if parsed.weights and not _published(network, model.weights_sha256) else ""
    return PaperModel(model.name, network, model.untrained, model.preprocessing.size, note), ""


def published_size(network: str) -> tuple[int, int]:
    """Return height and width of the input that a network was published with."""
    known = NETWORKS.get(network)
    return known.preprocessing.view.size if known else (_SIZE, _SIZE)


def other_data(summary: RunSummary, wanted: str) -> Callable[[str], str]:
    """Return what says of an experiment why its data are not the published set of a number, empty where they are.

    Args:
        summary: of a run; of several seen together nothing is known of the data of each.
        wanted: see :attr:`ipvit.analysis.paper_numbers.PaperNumber.data`.
    """

    def refusal(experiment: str) -> str:
        used = summary.subject(experiment) if isinstance(summary, Manifest) else summary.data
        name = used.name or summary.data.name
        if used.published is None:
            return f"{UNSTATED} what images {name} are"
        if isinstance(used, ExperimentData) and used.answers != "all":
            return f"answers were among the classes of {name}, not all outputs"
        return "" if used.published == wanted else f"{name} is not {_SETS.get(wanted, wanted)}"

    return refusal


def whole_sets() -> str:
    """Return in words which whole sets the paper's numbers are for."""
    return "; ".join(f"{SIZES[name]:,} images of {_SETS[name]}" for name in (IMAGENET, VOC, CUE_CONFLICT))


def is_part(summary: RunSummary, experiment: str, n_images: int | None) -> bool:
    """Tell whether a number rests on a part of the published set that the paper used as a whole."""
    used = summary.subject(experiment) if isinstance(summary, Manifest) else summary.data
    if used.published == IMAGENET_C:  # its versions of one photo are many images
        return (n_images or 0) < used.published_images
    if used.fingerprint != summary.data.fingerprint:
        return summary.limited
    return summary.images_used < used.published_images


def _published(network: str, sha256: str | None) -> bool:
    """Tell whether a file of weights is the one that was published, by the digest in the published name."""
    known = NETWORKS.get(network)
    stated = known.sha256 if known else None
    return bool(stated and sha256 and sha256.startswith(stated))
