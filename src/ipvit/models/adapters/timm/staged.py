"""timm's ResNet, RegNet, EfficientNet, MobileNet and Swin."""

from __future__ import annotations

from typing import Any

from ipvit.models.adapters.hooks import HookPoint
from ipvit.models.adapters.staged import Chain, Stage, StagedAdapter, children


class TimmResNet(StagedAdapter):
    """timm's ``ResNet``: blocks 0 to 3 are layers 1 to 4, block 4 is the paper's layer 5, before average pooling."""

    handles = ("timm.models.resnet.ResNet",)

    def __init__(self, network: Any) -> None:
        names = ("layer1", "layer2", "layer3", "layer4")
        chain = Chain(
            stem=(network.conv1, network.bn1, network.act1, network.maxpool),
            stages=tuple(Stage(name, (getattr(network, name),)) for name in names),
            tail=(),
            pool=HookPoint(network.global_pool),
            classifier=network.get_classifier(),
        )
        super().__init__(network, chain)


class TimmRegNet(StagedAdapter):
    """timm's ``RegNet`` (X, Y, Z, V)."""

    handles = ("timm.models.regnet.RegNet",)

    def __init__(self, network: Any) -> None:
        chain = Chain(
            stem=(network.stem,),
            stages=tuple(Stage(name, (getattr(network, name),)) for name in ("s1", "s2", "s3", "s4")),
            tail=(network.final_conv,),
            pool=HookPoint(network.head),
            classifier=network.get_classifier(),
        )
        super().__init__(network, chain)


class TimmEfficientNet(StagedAdapter):
    """timm's ``EfficientNet`` (MobileNetV2, MnasNet and others are built from it) and ``MobileNetV3``."""

    handles = ("timm.models.efficientnet.EfficientNet", "timm.models.mobilenetv3.MobileNetV3")

    def __init__(self, network: Any) -> None:
        # MobileNetV3 pools first and has its last convolution after that.
        widens_first = hasattr(network, "bn2")
        chain = Chain(
            stem=(network.conv_stem, network.bn1),
            stages=tuple(Stage(f"blocks.{name}", (stage,)) for name, stage in network.blocks.named_children()),
            tail=(network.conv_head, network.bn2) if widens_first else (),
            pool=HookPoint(network.global_pool),
            classifier=network.get_classifier(),
        )
        super().__init__(network, chain)


class TimmSwin(StagedAdapter):
    """timm's ``SwinTransformer`` and its second version; attention is inside windows, so there are no global maps."""

    handles = (
        "timm.models.swin_transformer.SwinTransformer",
        "timm.models.swin_transformer_v2.SwinTransformerV2",
    )

    def __init__(self, network: Any) -> None:
        chain = Chain(
            stem=(network.patch_embed,),
            stages=tuple(Stage(f"stage {place + 1}", (stage,)) for place, stage in enumerate(children(network.layers))),
            tail=(network.norm,),
            pool=HookPoint(network.head),
            classifier=network.get_classifier(),
            channels_last=True,
            pool_channels_last=True,
            final_norm=network.norm,
        )
        super().__init__(network, chain)
