"""Why a network does not offer something: one sentence for each family and capability.

What is said here is of the architecture, not of our adapter: another adapter could not offer it either. Where only an
adapter is missing, the sentence of :data:`UNKNOWN` says that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

WINDOWS = "attention is within windows that move from block to block: no map is over the whole image"
NEEDS_GRID = "its windows cut a whole grid of patches: none can be left out"
NO_ATTENTION = "it computes no attention between places"
NEEDS_MAP = "its convolutions run over a whole map of places: none can be left out"
OVERLAPS = "its patches are made by convolutions that see neighbouring pixels: a patch cannot be left out alone"

_CONVOLUTIONAL = {"attention": NO_ATTENTION, "token_removal": NEEDS_MAP}
_WINDOWED = {"attention": WINDOWS, "token_removal": NEEDS_GRID}

LACKING: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {
        "timm.models.swin_transformer.SwinTransformer": _WINDOWED,
        "timm.models.swin_transformer_v2.SwinTransformerV2": _WINDOWED,
        "timm.models.swin_transformer_v2_cr.SwinTransformerV2Cr": _WINDOWED,
        "torchvision.models.swin_transformer.SwinTransformer": _WINDOWED,
        "transformers.models.swin.modeling_swin.SwinForImageClassification": _WINDOWED,
        "transformers.models.swinv2.modeling_swinv2.Swinv2ForImageClassification": _WINDOWED,
        **dict.fromkeys(
            (
                *(
                    f"timm.models.{name}"
                    for name in (
                        "resnet.ResNet",
                        "regnet.RegNet",
                        "efficientnet.EfficientNet",
                        "mobilenetv3.MobileNetV3",
                        "convnext.ConvNeXt",
                        "densenet.DenseNet",
                        "vgg.VGG",
                        "nfnet.NormFreeNet",
                        "inception_next.MetaNeXt",
                        "mambaout.MambaOut",
                    )
                ),
                *(
                    f"torchvision.models.{name}"
                    for name in (
                        "resnet.ResNet",
                        "vgg.VGG",
                        "alexnet.AlexNet",
                        "squeezenet.SqueezeNet",
                        "densenet.DenseNet",
                        "efficientnet.EfficientNet",
                        "mobilenetv2.MobileNetV2",
                        "mobilenetv3.MobileNetV3",
                        "convnext.ConvNeXt",
                        "regnet.RegNet",
                        "googlenet.GoogLeNet",
                        "inception.Inception3",
                        "mnasnet.MNASNet",
                        "shufflenetv2.ShuffleNetV2",
                    )
                ),
                *(
                    f"transformers.models.{name}ForImageClassification"
                    for name in (
                        "convnext.modeling_convnext.ConvNext",
                        "convnextv2.modeling_convnextv2.ConvNextV2",
                        "resnet.modeling_resnet.ResNet",
                        "regnet.modeling_regnet.RegNet",
                    )
                ),
            ),
            _CONVOLUTIONAL,
        ),
        "timm.models.maxxvit.MaxxVit": {
            "attention": "it attends within blocks and along a grid of few places between convolutions: no map is over "
            "the whole image",
            "token_removal": NEEDS_MAP,
        },
        "torchvision.models.maxvit.MaxVit": {
            "attention": "it attends within blocks and along a grid of few places between convolutions: no map is over "
            "the whole image",
            "token_removal": NEEDS_MAP,
        },
        "timm.models.xcit.Xcit": {
            "token_removal": "its blocks mix neighbouring patches by a convolution that needs the whole grid",
        },
        "timm.models.hiera.Hiera": {
            "attention": "attention is within mask units first and from pooled queries later: no map is over the patches "
            "of the image",
        },
        "timm.models.byobnet.ByobNet": {
            "attention": "what attention there is runs between convolutions, among places of a map and not over the "
            "image",
            "token_removal": NEEDS_MAP,
        },
        "timm.models.efficientvim.EfficientViM": {
            "feature_drop": "each of its stages has a classifier of its own, so that the answer does not come from the "
            "last one alone",
            "attention": "it mixes places by a state-space model and computes no attention between them",
            "token_removal": NEEDS_MAP,
        },
    }
)
"""By the full name of a network's class, then by capability."""

OF_TRANSFORMERS: Mapping[str, str] = MappingProxyType(
    {
        "attention": "some of its blocks do not compute attention as a softmax that can be read",
        "token_removal": OVERLAPS,
    }
)
"""Where the blocks take and return tokens."""

OF_STAGES: Mapping[str, str] = MappingProxyType(
    {
        "attention": "ipvit knows its stages only, and reads attention where the patches of the whole image attend to "
        "each other",
        "token_removal": "ipvit knows its stages only, which work on a whole map of places",
    }
)
"""Where the blocks are stages that take and return maps of places."""

UNKNOWN: Mapping[str, str] = MappingProxyType(
    {
        "tokens": "ipvit has no adapter that names the blocks of this network",
        "feature_drop": "ipvit has no adapter that names the blocks of this network",
        "attention": "ipvit has no adapter that reads the attention of this network",
        "token_removal": "ipvit has no adapter that leaves patches out of this network",
        "token_heads": "it has no second token with a classifier of its own",
        "logits": "it has no classifier",
    }
)
"""Where nothing is known of the architecture."""


def ruled_out(kinds: Sequence[type]) -> frozenset[str]:
    """Return the capabilities that networks of a class cannot have, see :data:`LACKING`."""
    return frozenset(name for kind in kinds for name in LACKING.get(f"{kind.__module__}.{kind.__qualname__}", {}))


def reason_for(kinds: Sequence[type], capability: str, otherwise: Mapping[str, str] = UNKNOWN) -> str:
    """Return why networks of a class do not offer something.

    Args:
        kinds: the class and those that it derives from, the nearest first.
        capability: one of :data:`ipvit.models.capabilities.CAPABILITIES`.
        otherwise: what to say by capability where nothing is known of the class.
    """
    for kind in kinds:
        known = LACKING.get(f"{kind.__module__}.{kind.__qualname__}", {})
        if capability in known:
            return known[capability]
    return otherwise.get(capability, UNKNOWN.get(capability, ""))
