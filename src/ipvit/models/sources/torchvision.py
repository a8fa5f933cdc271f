"""Networks of torchvision."""

from __future__ import annotations

import re
from typing import Any

from torch import Tensor, nn

from ipvit.core.manifest import UNTRAINED
from ipvit.core.preprocessing import Preprocessing, View
from ipvit.errors import FOREIGN_ERRORS, InputError, did_you_mean
from ipvit.models.io.state_dict import load_strictly
from ipvit.models.io.weights_file import WeightsFile
from ipvit.models.label_spaces import imagenet_classes
from ipvit.models.model import Model
from ipvit.models.names import ModelName, check_outputs
from ipvit.models.sources.building import cannot_fetch, seeded

_TRANSFORMING = ("googlenet", "inception_v3")
"""Networks that scale their inputs anew where torchvision's published weights are loaded by name."""


def load_torchvision(parsed: ModelName, pretrained: bool) -> Model:
    """Load a classification network of torchvision; ``?weights=IMAGENET1K_V1`` chooses among the published weights.

    ``?num_classes=0`` leaves the classifier out, as timm does.

    Raises:
        InputError: unknown name, options or weights.
    """
    import torchvision.models as zoo

    known = zoo.list_models(module=zoo)
    if parsed.name not in known:
        raise InputError(
            f"torchvision knows no classification model {parsed.name!r}.{did_you_mean(parsed.name, known)}"
        )
    options = dict(parsed.options)
    check_outputs(options, f"torchvision:{parsed.name}")
    published: Any = zoo.get_model_weights(parsed.name)
    wanted = options.pop("weights", None)
    if wanted is not None and wanted not in published.__members__:
        raise InputError(
            f"torchvision:{parsed.name} has no weights {wanted!r}; known: {', '.join(published.__members__)}"
        )
    entry = published[wanted] if wanted else published.DEFAULT if pretrained else next(iter(published))
    file = WeightsFile.read(parsed.weights) if parsed.weights else None
    if file is not None and parsed.name in _TRANSFORMING and "transform_input" not in options:
        raise InputError(
            f"torchvision:{parsed.name} needs to know how its inputs are scaled: ?transform_input=true for "
            "torchvision's published weights, false for others that are trained without it"
        )
    fetch = pretrained and file is None
    headless = options.get("num_classes") == 0
    built = {key: value for key, value in options.items() if not (headless and key == "num_classes")}
    try:
        with seeded():
            network = zoo.get_model(parsed.name, weights=entry if fetch else None, **built)
    except FOREIGN_ERRORS as error:
        raise InputError(f"torchvision:{parsed.name} does not take {options}: {error}") from None
    except OSError as error:
        raise cannot_fetch(f"torchvision:{parsed.name}", error) from None
    head = _without_classifier(network) if headless else ""
    if file is not None:
        state = file.state_for(network, undotted)
        if head and [*getattr(network, head).parameters()] and not any(key.startswith(f"{head}.") for key in state):
            setattr(network, head, nn.Sequential(nn.Identity()))  # none of VGG's three layers, not all but the last
        load_strictly(network, state, str(file.path))
    preset = (entry if wanted or fetch else next(iter(published))).transforms()
    cropped, resized = int(preset.crop_size[0]), int(preset.resize_size[0])
    size = options.get("image_size", cropped)  # ViT's: the only ones that are built for a size
    view = View((size, size), cropped / resized, preset.interpolation.value)
    outputs = options.get("num_classes", 1000)
    return Model(
        network,
        name=f"torchvision:{parsed.name}",
        preprocessing=Preprocessing(view, tuple(preset.mean), tuple(preset.std)),
        classes=imagenet_classes() if outputs == 1000 else None,
        architecture=f"torchvision:{parsed.name}{sorted(options.items())}",
        source=file.in_words if file else f"torchvision {entry.name}" if fetch else UNTRAINED,
        weights_sha256=file.sha256 if file else None,
    )


def _without_classifier(network: nn.Module) -> str:
    """Put nothing in the place of the layer that gives the logits; return the name of the part that it is in."""
    head = next(name for name in ("fc", "classifier", "heads", "head") if hasattr(network, name))
    layers = [
        name
        for name, part in network.named_modules()
        if (name == head or name.startswith(f"{head}.")) and isinstance(part, nn.Linear | nn.Conv2d)
    ]
    network.set_submodule(layers[-1], nn.Identity())
    vars(network)["num_classes"] = 0  # by which a network without classifier is known
    return head


def undotted(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights with the names of today: DenseNet's files still say ``norm.1`` where it has ``norm1``."""
    return {re.sub(r"(denselayer\d+\.(?:norm|conv))\.([12])\.", r"\1\2.", key): value for key, value in state.items()}
