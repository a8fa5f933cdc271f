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

_TIMM, _TORCHVISION, _TRANSFORMERS = "timm.models", "torchvision.models", "transformers.models"

_WINDOWED = (
    f"{_TIMM}.swin_transformer.SwinTransformer",
    f"{_TIMM}.swin_transformer_v2.SwinTransformerV2",
    f"{_TIMM}.swin_transformer_v2_cr.SwinTransformerV2Cr",
    f"{_TORCHVISION}.swin_transformer.SwinTransformer",
    f"{_TRANSFORMERS}.swin.modeling_swin.SwinForImageClassification",
    f"{_TRANSFORMERS}.swinv2.modeling_swinv2.Swinv2ForImageClassification",
)
_CONVOLUTIONAL = (
    f"{_TIMM}.resnet.ResNet",
    f"{_TIMM}.regnet.RegNet",
    f"{_TIMM}.efficientnet.EfficientNet",
    f"{_TIMM}.mobilenetv3.MobileNetV3",
    f"{_TIMM}.convnext.ConvNeXt",
    f"{_TIMM}.densenet.DenseNet",
    f"{_TIMM}.vgg.VGG",
    f"{_TIMM}.nfnet.NormFreeNet",
    f"{_TIMM}.inception_next.MetaNeXt",
    f"{_TIMM}.mambaout.MambaOut",
    f"{_TORCHVISION}.resnet.ResNet",
    f"{_TORCHVISION}.vgg.VGG",
    f"{_TORCHVISION}.alexnet.AlexNet",
    f"{_TORCHVISION}.squeezenet.SqueezeNet",
    f"{_TORCHVISION}.densenet.DenseNet",
    f"{_TORCHVISION}.efficientnet.EfficientNet",
    f"{_TORCHVISION}.mobilenetv2.MobileNetV2",
    f"{_TORCHVISION}.mobilenetv3.MobileNetV3",
    f"{_TORCHVISION}.convnext.ConvNeXt",
    f"{_TORCHVISION}.regnet.RegNet",
    f"{_TORCHVISION}.googlenet.GoogLeNet",
    f"{_TORCHVISION}.inception.Inception3",
    f"{_TORCHVISION}.mnasnet.MNASNet",
    f"{_TORCHVISION}.shufflenetv2.ShuffleNetV2",
    f"{_TRANSFORMERS}.convnext.modeling_convnext.ConvNextForImageClassification",
    f"{_TRANSFORMERS}.convnextv2.modeling_convnextv2.ConvNextV2ForImageClassification",
    f"{_TRANSFORMERS}.resnet.modeling_resnet.ResNetForImageClassification",
    f"{_TRANSFORMERS}.regnet.modeling_regnet.RegNetForImageClassification",
)
_OF_SEQUENCES = (
    f"{_TIMM}.efficientformer.EfficientFormer",
    f"{_TIMM}.levit.Levit",
    f"{_TIMM}.pit.PoolingVisionTransformer",
)
_MOBILEVIT = (
    f"{_TIMM}.byobnet.ByobNet",
    f"{_TRANSFORMERS}.mobilevit.modeling_mobilevit.MobileViTForImageClassification",
    f"{_TRANSFORMERS}.mobilevitv2.modeling_mobilevitv2.MobileViTV2ForImageClassification",
)

_KNOWN: tuple[tuple[tuple[str, ...], dict[str, str]], ...] = (
    (_WINDOWED, {"attention": WINDOWS, "token_removal": NEEDS_GRID}),
    (_CONVOLUTIONAL, {"attention": NO_ATTENTION, "token_removal": NEEDS_MAP}),
    (
        (f"{_TIMM}.maxxvit.MaxxVit", f"{_TORCHVISION}.maxvit.MaxVit"),
        {
            "attention": "it attends within blocks and along a grid of few places, between convolutions: no map is "
            "over the whole image",
            "token_removal": NEEDS_MAP,
        },
    ),
    (
        _MOBILEVIT,
        {
            "attention": "what attention there is runs between convolutions, among some places of a map: no map is "
            "over the whole image",
            "token_removal": NEEDS_MAP,
        },
    ),
    (
        (f"{_TIMM}.xcit.Xcit",),
        {"token_removal": "its blocks mix neighbouring patches by a convolution that needs the whole grid"},
    ),
    (
        (f"{_TIMM}.hiera.Hiera",),
        {
            "attention": "attention is within mask units first and from pooled queries later: no map is over the "
            "patches of the image",
        },
    ),
    (
        (f"{_TIMM}.coat.CoaT", f"{_TIMM}.crossvit.CrossVit"),
        {
            "feature_drop": "its branches look at the image side by side: what enters one block is not all that the "
            "rest needs",
            "attention": "its branches have tokens of their own: no map is over all of them",
        },
    ),
    (
        _OF_SEQUENCES,
        {"feature_drop": "its stages pass on sequences of tokens, and ipvit does not know which place each is of"},
    ),
    (
        (f"{_TIMM}.convit.ConVit",),
        {"feature_drop": "its class token joins the patches in the last blocks, where ipvit does not tell it apart"},
    ),
    (
        (f"{_TIMM}.efficientvim.EfficientViM",),
        {
            "feature_drop": "each of its stages has a classifier of its own, so that the answer does not come from the "
            "last one alone",
            "attention": "it mixes places by a state-space model and computes no attention between them",
            "token_removal": NEEDS_MAP,
        },
    ),
)

LACKING: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {name: MappingProxyType(reasons) for names, reasons in _KNOWN for name in names}
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
