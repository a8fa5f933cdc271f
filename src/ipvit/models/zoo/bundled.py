"""The networks that come with the package."""

from __future__ import annotations

from pathlib import Path

from ipvit.errors import InputError, did_you_mean

DEMO_WEIGHTS = Path(__file__).parent / "weights"

BUNDLED = {"demo": DEMO_WEIGHTS, "tin50": DEMO_WEIGHTS / "tin50"}
"""Where the bundled networks lie: those of the procedural set, and those of 50 classes of Tiny ImageNet."""

ABOUT = {
    "demo:deit_micro": "a transformer with 6 blocks, on drawn objects whose shape and texture agree",
    "demo:resnet_micro": "a convolutional network, on the same images",
    "demo:deit_micro_sin": '"sin": the transformer where texture says nothing, as on Stylized-ImageNet',
    "demo:resnet_micro_sin": '"sin": the convolutional network where texture says nothing',
    "demo:deit_micro_shape": '"shape": with a second token that learns from resnet_micro_sin',
    "demo:deit_micro_nopos": '"nopos": without positional encoding',
    "demo:dino_micro": '"dino": the transformer trained without labels; it has no classifier',
}
"""What the bundled networks of the procedural set are, and what they were trained on."""


def bundled_models(source: str = "demo") -> list[str]:
    """Return the names of the bundled networks of one source, ``demo`` or ``tin50``."""
    return sorted(f"{source}:{path.stem}" for path in BUNDLED[source].glob("*.safetensors"))


def demo_models() -> list[str]:
    """Return the names of the networks of the procedural set."""
    return bundled_models("demo")


def bundled_weights(source: str, name: str) -> Path:
    """Return the file of a bundled network's weights.

    Raises:
        InputError: there is none of that name.
    """
    path = BUNDLED[source] / f"{name}.safetensors"
    if not path.is_file():
        names = bundled_models(source)
        raise InputError(
            f"there is no bundled model '{source}:{name}'; there are: {', '.join(names)}."
            + did_you_mean(f"{source}:{name}", names)
        )
    return path
