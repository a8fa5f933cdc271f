"""torchvision's convolutional networks and Swin."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from ipvit.models.adapters.hooks import HookPoint
from ipvit.models.adapters.staged import Chain, Stage, StagedAdapter, children

_ZOO = "torchvision.models"


class TorchvisionResNet(StagedAdapter):
    """torchvision's ``ResNet``, ResNeXt and wide ResNet; blocks as timm's."""

    handles = (f"{_ZOO}.resnet.ResNet",)

    def __init__(self, network: Any) -> None:
        names = ("layer1", "layer2", "layer3", "layer4")
        chain = Chain(
            stem=(network.conv1, network.bn1, network.relu, network.maxpool),
            stages=tuple(Stage(name, (getattr(network, name),)) for name in names),
            tail=(),
            pool=HookPoint(network.avgpool),
            classifier=network.fc,
        )
        super().__init__(network, chain)


class TorchvisionVGG(StagedAdapter):
    """torchvision's ``VGG`` and ``AlexNet``: a stage ends with its max-pooling, the classifier has hidden layers."""

    handles = (f"{_ZOO}.vgg.VGG", f"{_ZOO}.alexnet.AlexNet")

    def __init__(self, network: Any) -> None:
        chain = Chain(
            stem=(),
            stages=_between_max_pools(children(network.features)),
            tail=(),
            pool=HookPoint(network.avgpool),
            classifier=children(network.classifier)[-1],
        )
        super().__init__(network, chain)


class TorchvisionSqueezeNet(StagedAdapter):
    """torchvision's ``SqueezeNet``: it pools logits, so ``pool`` is the map before the 1 x 1 classifier."""

    handles = (f"{_ZOO}.squeezenet.SqueezeNet",)

    def __init__(self, network: Any) -> None:
        chain = Chain(
            stem=(),
            stages=_between_max_pools(children(network.features)),
            tail=(),
            pool=HookPoint(network.classifier),
            classifier=None,
        )
        super().__init__(network, chain)


class TorchvisionDenseNet(StagedAdapter):
    """torchvision's ``DenseNet``: its pooling is a function, so ``pool`` is what leaves the norm before it."""

    handles = (f"{_ZOO}.densenet.DenseNet",)

    def __init__(self, network: Any) -> None:
        parts = dict(network.features.named_children())
        names = [name for name in parts if name.startswith("denseblock")]
        first = list(parts).index(names[0])
        stages = [
            Stage(name, tuple(parts[part] for part in (name, f"transition{place + 1}") if part in parts))
            for place, name in enumerate(names)
        ]
        chain = Chain(
            stem=tuple(parts.values())[:first],
            stages=tuple(stages),
            tail=(parts["norm5"],),
            pool=HookPoint(parts["norm5"], "output"),
            classifier=network.classifier,
        )
        super().__init__(network, chain)


class TorchvisionFeatures(StagedAdapter):
    """Those made of ``features``, pooling and ``classifier``: EfficientNet, MobileNet, ConvNeXt."""

    handles = (
        f"{_ZOO}.efficientnet.EfficientNet",
        f"{_ZOO}.mobilenetv2.MobileNetV2",
        f"{_ZOO}.mobilenetv3.MobileNetV3",
        f"{_ZOO}.convnext.ConvNeXt",
    )

    def __init__(self, network: Any) -> None:
        stem, *stages = network.features.named_children()
        # MobileNetV2 pools by a function.
        pool = HookPoint(network.avgpool) if hasattr(network, "avgpool") else HookPoint(stages[-1][1], "output")
        chain = Chain(
            stem=(stem[1],),
            stages=tuple(Stage(f"features.{name}", (stage,)) for name, stage in stages),
            tail=(),
            pool=pool,
            classifier=children(network.classifier)[-1],
        )
        super().__init__(network, chain)


class TorchvisionRegNet(StagedAdapter):
    """torchvision's ``RegNet``."""

    handles = (f"{_ZOO}.regnet.RegNet",)

    def __init__(self, network: Any) -> None:
        chain = Chain(
            stem=(network.stem,),
            stages=tuple(Stage(name, (stage,)) for name, stage in network.trunk_output.named_children()),
            tail=(),
            pool=HookPoint(network.avgpool),
            classifier=network.fc,
        )
        super().__init__(network, chain)


class TorchvisionSwin(StagedAdapter):
    """torchvision's ``SwinTransformer``; a stage begins with its patch merging, as in timm."""

    handles = (f"{_ZOO}.swin_transformer.SwinTransformer",)

    def __init__(self, network: Any) -> None:
        stem, first, *rest = children(network.features)
        groups = [(first,), *zip(rest[::2], rest[1::2], strict=True)]
        chain = Chain(
            stem=(stem,),
            stages=tuple(Stage(f"stage {place + 1}", group) for place, group in enumerate(groups)),
            tail=(network.norm, network.permute),
            pool=HookPoint(network.avgpool),
            classifier=network.head,
            channels_last=True,
            final_norm=network.norm,
        )
        super().__init__(network, chain)


def _between_max_pools(modules: Sequence[nn.Module]) -> tuple[Stage, ...]:
    stages: list[Stage] = []
    part: list[nn.Module] = []
    for place, module in enumerate(modules):
        part.append(module)
        if isinstance(module, nn.MaxPool2d) or place == len(modules) - 1:
            stages.append(Stage(f"stage {len(stages) + 1}", tuple(part)))
            part = []
    return tuple(stages)
