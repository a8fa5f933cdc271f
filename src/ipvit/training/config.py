"""The sections of a training recipe."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ipvit.core.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Preprocessing, View


class ConfigSection(BaseModel):
    """A section: an unknown key in it is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class ModelConfig(ConfigSection):
    """The network."""

    name: str
    """``deit_micro``, ``resnet_micro`` or any timm name."""
    kwargs: dict[str, Any] = {}
    """Arguments of the network's factory, for example ``{drop_path_rate: 0.1}``."""
    start: str | None = None
    """A checkpoint (file or ``demo:NAME``) whose weights are taken where name and shape agree; ``null``: random."""

    @model_validator(mode="after")
    def _said_once(self) -> ModelConfig:
        for name, where in (
            ("num_classes", "the training data says how many classes there are"),
            ("name", "model.name"),
        ):
            if name in self.kwargs:
                raise ValueError(f"model.kwargs has no {name}: {where}")
        return self


class StylizeConfig(ConfigSection):
    """A copy of the training images in other textures (paper section 3.2).

    Each image has one styled copy, as in Stylized-ImageNet, which its id and the recipe's seed determine.
    """

    folder: str | None = None
    """The copy that ``ipvit stylize`` made of the training images; without it copies are made when first read."""
    styles: str = "demo:textures"
    """Paintings: a folder, or the textures that come with the package."""
    method: Literal["statistics", "magenta"] = "statistics"
    """As of ``ipvit stylize``; its ``adain`` needs a ``folder`` made before."""
    alpha: float = Field(default=1.0, ge=0, le=1)
    """Strength; 1 replaces the texture altogether."""
    texture_scale: float = Field(default=0.05, gt=0, le=0.5)
    """For statistics: size of the textures that are taken out, as a share of the image's side."""
    keep: bool = True
    """Without a ``folder``: keep each copy in the training's folder, so that it is made once."""
    share: float = Field(default=1.0, gt=0, le=1)
    """Probability that an image is seen in its styled copy; 1 is Stylized-ImageNet, 0.5 trains on both."""


class SetConfig(ConfigSection):
    """A data set, as a study's ``data`` names it."""

    name: str
    """A folder, a tar file, ``demo:trifeature/natural-train``, a published set, or a name that timm knows."""
    root: str | None = None
    """Where timm's data sets lie."""
    split: str | None = None
    """Of timm's and published sets; without it ``train`` takes the one for fitting, ``val`` the one for choosing."""
    decoder: Literal["fast", "pil"] = "fast"
    """``fast`` (torchvision) or ``pil`` (Pillow)."""
    classes: str | None = None
    """What integer labels are, where the data does not say: imagenet-1k, or a file with one class name per line."""
    limit: int | None = Field(default=None, ge=1)
    """Take that many of its images, chosen at random but always the same ones, as a run's ``--limit``."""

    @property
    def title(self) -> str:
        """Its name, with what of it is taken."""
        parts = [self.split or "", "" if self.limit is None else f"{self.limit:,} images"]
        said = ", ".join(part for part in parts if part)
        return f"{self.name} ({said})" if said else self.name


class DataConfig(ConfigSection):
    """Where images come from and how they become the network's input."""

    train: str | SetConfig
    """Data set the weights are fitted to: a name (``demo:trifeature/natural-train``, a folder of class folders) or
    ``{name: ..., root: ..., split: ..., decoder: ..., classes: ..., limit: ...}``."""
    val: str | SetConfig
    """Data set that accuracy is measured on after each epoch and the best epoch is chosen by; no image of it may be
    among the training images."""
    size: int = Field(default=224, ge=8)
    """Height and width of the input in pixels."""
    crop_pct: float = Field(default=1.0, gt=0, le=1)
    """Share of the resized shortest side that is cropped."""
    interpolation: Literal["bicubic", "bilinear", "nearest"] = "bicubic"
    """How pictures of another size are resized."""
    mean: tuple[float, float, float] = IMAGENET_MEAN
    """Per-channel mean the network subtracts, for images in [0, 1]."""
    std: tuple[float, float, float] = IMAGENET_STD
    """Per-channel standard deviation the network divides by."""
    workers: int = Field(default=0, ge=0)
    """Loader processes; 0 reads in the training process."""
    memory: float = Field(default=2.0, ge=0)
    """A set is kept decoded in memory when it takes at most this many GB; larger ones are read in every epoch."""
    stylize: StylizeConfig | None = None
    """Train on stylised copies; validation images stay as they are."""

    @property
    def names(self) -> tuple[str, str]:
        """What the two sets are called, with split and number of images where the recipe says them."""
        train, val = (source if isinstance(source, str) else source.title for source in (self.train, self.val))
        return train, val

    @property
    def preprocessing(self) -> Preprocessing:
        """What the network expects of its input."""
        view = View((self.size, self.size), self.crop_pct, self.interpolation)
        return Preprocessing(view, self.mean, self.std)


class AugmentConfig(ConfigSection):
    """Changes to each training image, a function of (seed, epoch, image), in this order."""

    crop_scale: tuple[float, float] | None = None
    """Cut a random part of the picture with this range of its area (``RandomResizedCrop``); off by default."""
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    """Range of the part's width over height."""
    simple_crop: bool = False
    """Instead: resize the shortest side, mirror 4 pixels at each border, cut a random window, as DeiT III."""
    pad: int = Field(default=0, ge=0)
    """Zero-pad by this many pixels on each side and cut a random window of the original size."""
    hflip: float = Field(default=0.0, ge=0, le=1)
    """Probability of a mirror image, left to right."""
    vflip: float = Field(default=0.0, ge=0, le=1)
    """Probability of a mirror image, top to bottom."""
    auto: str | None = None
    """A policy of ``timm.data.auto_augment``: ``rand-m9-mstd0.5-inc1`` is DeiT's, ``3a`` DeiT III's, ``augmix-m3``
    AugMix; off by default."""
    color_jitter: float | None = Field(default=None, gt=0, le=1)
    """Most that brightness, contrast and saturation change (DeiT III: 0.3); as in timm not beside ``auto``, but for
    ``3a``."""
    erase: float = Field(default=0.0, ge=0, le=1)
    """Probability that a random rectangle (2 to 33 % of the area) is erased, by timm's own code (DeiT: 0.25)."""
    erase_mode: Literal["pixel", "rand", "const"] = "pixel"
    """Erase with noise in each pixel (DeiT), with one random colour, or with the mean colour; timm's ``remode``."""
    erase_count: int = Field(default=1, ge=1)
    """Most rectangles, which share the area; timm's ``recount``."""
    repeats: int = Field(default=1, ge=1)
    """Times an image is seen, changed differently, in an epoch of unchanged length (DeiT: 3)."""

    @model_validator(mode="after")
    def _ordered(self) -> AugmentConfig:
        for name in ("crop_scale", "crop_ratio"):
            limits = getattr(self, name)
            if limits is not None and not 0 < limits[0] <= limits[1]:
                raise ValueError(f"{name} must be two rising numbers above 0, not {list(limits)}")
        if self.crop_scale is not None and self.crop_scale[1] > 1:
            raise ValueError("crop_scale is a share of the area: at most 1")
        if self.simple_crop and (self.crop_scale is not None or self.pad):
            raise ValueError("simple_crop cuts windows itself: no crop_scale, no pad")
        if self.color_jitter is not None and self.auto is not None and "3a" not in self.auto:
            raise ValueError(
                f"timm does not jitter colours beside auto: {self.auto}; leave color_jitter out, or use 3a"
            )
        return self

    @property
    def moves(self) -> list[str]:
        """What may put a part of the picture elsewhere: the names of such keys that are on."""
        return [name for name in ("crop_scale", "simple_crop", "pad", "hflip", "vflip", "auto") if getattr(self, name)]


class MixupConfig(ConfigSection):
    """Mixup and CutMix, by ``timm.data.Mixup``."""

    mixup_alpha: float = Field(default=0.8, ge=0)
    """Mixup's beta distribution; 0 turns it off."""
    cutmix_alpha: float = Field(default=1.0, ge=0)
    """CutMix's beta distribution; 0 turns it off."""
    prob: float = Field(default=1.0, ge=0, le=1)
    """Probability that a batch is mixed at all."""
    switch_prob: float = Field(default=0.5, ge=0, le=1)
    """Probability of CutMix where both are on."""
    mode: Literal["batch", "pair", "elem"] = "batch"
    """One mixture for a whole batch (DeiT), for each pair, or for each image."""
    cutmix_minmax: tuple[float, float] | None = None
    """Range of the sides of CutMix's rectangle, as shares, instead of its beta distribution."""

    @model_validator(mode="after")
    def _range(self) -> MixupConfig:
        if self.cutmix_minmax is None:
            return self
        low, high = self.cutmix_minmax
        if not 0 <= low < high <= 1:
            raise ValueError(f"cutmix_minmax: {low:g} and {high:g} are no range of shares; 0 <= LOW < HIGH <= 1")
        if not self.cutmix_alpha:
            raise ValueError("cutmix_minmax is of CutMix, which cutmix_alpha: 0 turns off")
        return self


LossKind = Literal["cross_entropy", "bce"]


class EmaConfig(ConfigSection):
    """A moving average of the weights, which is then what is measured and saved."""

    decay: float = Field(default=0.999, gt=0, lt=1)
    """Share of the average that is kept at each step."""
    warmup: bool = True
    """Let the decay grow towards its value, so that a short training forgets its random start."""


class SupervisedConfig(ConfigSection):
    """Cross-entropy with the labels."""

    kind: Literal["supervised"]


class DistillationConfig(ConfigSection):
    """A teacher beside the labels (section 3.2 with a shape token; Touvron et al. 2021; Hinton et al. 2015).

    A network with a second token (``deit_micro`` with ``distilled: true``, timm's ``deit_*_distilled_*``) learns the
    labels with its class head and the teacher with the second head, neither sees the other's target. Any other network
    learns both with its one head.
    """

    kind: Literal["distillation"]
    teacher: str
    """Any model name: ``demo:resnet_micro_sin``, ``paper:resnet50_sin``, ``NAME@WEIGHTS``."""
    target: Literal["hard", "soft"] = "hard"
    """Learn the teacher's decision, or its probabilities."""
    alpha: float = Field(default=0.5, ge=0, le=1)
    """Weight of the teacher; 1 - alpha is that of the labels."""
    tau: float = Field(default=1.0, gt=0)
    """Temperature of both distributions where the target is soft."""
    token: str = "shape"
    """What the second token is called in tables."""
    sees: Literal["augmented", "original"] = "augmented"
    """What the teacher judges: the student's own changed images, as in DeiT, or each unchanged image once and for all
    (far cheaper; the crop that the student sees may lack what the teacher saw)."""
    size: int | None = Field(default=None, ge=8)
    """Height and width of the teacher's input in pixels; its own by default."""
    attention: float = Field(default=0.0, ge=0)
    """Weight of the teacher's attention: in the student's last block every head's class token learns to which patches
    the teacher's looks. With ``alpha: 0`` it is all that the teacher says, which then needs no classifier."""
    attention_head: int | None = Field(default=None, ge=0)
    """Whose attention, of the heads of the teacher's last block (from 0); the mean of all by default."""

    @model_validator(mode="after")
    def _one_attention(self) -> DistillationConfig:
        if self.attention_head is not None and not self.attention:
            raise ValueError("attention_head is for attention above 0")
        return self


Amount = Annotated[float, Field(ge=0, le=1)]


class DinoConfig(ConfigSection):
    """Self-distillation without labels (Caron et al. 2021), and what the paper's section 4 leaves open.

    Values are DINO's own for ViT-S/16; momentum and temperatures follow their schedules.
    """

    kind: Literal["dino"]
    out_dim: int = Field(default=65536, ge=2)
    """Outputs of the projection head, which is not saved."""
    hidden_dim: int = Field(default=2048, ge=2)
    """Width of the projection head."""
    bottleneck_dim: int = Field(default=256, ge=2)
    """Width before its last layer."""
    global_scale: tuple[float, float] = (0.4, 1.0)
    """Range of the area of the two global views."""
    local_scale: tuple[float, float] = (0.05, 0.4)
    """Range of the area of the local views."""
    local_views: int = Field(default=8, ge=0)
    """Number of small views, which only the student sees."""
    local_size: int = Field(default=96, ge=8)
    """Height and width of a local view in pixels."""
    global_views_of: Literal["natural", "stylized"] = "natural"
    """``stylized`` shows shape only: the global views come from the image's styled copy."""
    local_views_of: Literal["natural", "stylized"] = "natural"
    """With ``global_views_of: stylized`` and ``natural`` here, local texture must agree with global shape."""
    color_jitter: tuple[Amount, Amount, Amount, Annotated[float, Field(ge=0, le=0.5)]] = (0.4, 0.4, 0.2, 0.1)
    """Most that brightness, contrast, saturation (shares) and hue (turns of the colour circle) of a view change."""
    grayscale: float = Field(default=0.2, ge=0, le=1)
    """Probability that a view loses its colour."""
    momentum: float = Field(default=0.996, gt=0, lt=1)
    """Of the teacher's moving average at the start; rises to 1."""
    teacher_temp: float = Field(default=0.04, gt=0)
    """Temperature of the teacher after warm-up."""
    warmup_teacher_temp: float = Field(default=0.04, gt=0)
    """Temperature of the teacher at the start."""
    warmup_teacher_temp_epochs: int = Field(default=0, ge=0)
    """Epochs of linear change between the two, the last of which has the second value."""
    student_temp: float = Field(default=0.1, gt=0)
    """Temperature of the student."""
    center_momentum: float = Field(default=0.9, gt=0, lt=1)
    """Of the running mean of the teacher's outputs."""
    freeze_last_layer: int = Field(default=1, ge=0)
    """Epochs in which the projection head's last layer does not move."""
    norm_last_layer: bool = True
    """Keep the last layer's rows at unit length."""
    decay_tokens: bool = True
    """Let class token and positions shrink like other weights, as DINO; ``false`` spares them, as DeiT."""
    scale_blur: bool = False
    """Blur in proportion to a view's size, in pixels at 224; ``false`` blurs small views as strongly, as DINO."""


ObjectivePart = Annotated[SupervisedConfig | DistillationConfig | DinoConfig, Field(discriminator="kind")]
