"""Section 3.2: shape bias, tokens and segmentation."""

from __future__ import annotations

from collections.abc import Iterator

from ipvit.report.numbers.quantity import CLEAN, Place, Quantity, network
from ipvit.report.paper import targets

_TOKENS = {"cls": "class", "shape": "shape"}


def quantities() -> Iterator[Quantity]:
    """Yield the numbers of this part of the paper."""
    yield from _shape()
    yield from _segmentation()


def _shape() -> Iterator[Quantity]:
    entry = targets()["table3"]
    for title, distilled, token, top1, bias in entry["rows"]:
        name = network(title)
        name = f"{name}_dist" if distilled else name
        shown = f"{title}, distilled" if distilled else title
        token = _TOKENS[token] if distilled else "output"
        words = f", {token} token" if distilled else ""
        accuracy = (Place("accuracy", "top1", {"token": token}),) if distilled else CLEAN
        yield Quantity(
            "table3", "Table 3", shown, f"top-1 (%){words}", top1, 0.05, entry["src"], accuracy, network=name
        )
        place = Place("shape-bias", "shape_bias", {"token": token})
        yield Quantity(
            "table3", "Table 3", shown, f"shape bias{words}", bias, 0.005, entry["src"], (place,), "cue-conflict",
            network=name,
        )  # fmt: skip
    yield from _token_cosine()
    entry = targets()["fig6_shape_bias"]
    place = Place("shape-bias", "shape_bias", {"token": "output"})
    for title in (key for key in entry if key not in ("src", "tol")):
        yield Quantity(
            "fig6_shape_bias", "Figure 6", title, "shape bias", entry[title], entry["tol"], entry["src"], (place,),
            "cue-conflict", network=network(title),
        )  # fmt: skip
    yield from _shape_references(place)


def _token_cosine() -> Iterator[Quantity]:
    entry = targets()["token_cosine"]
    names = {
        "DeiT-T-SIN": "deit_t_sin_dist",
        "DeiT-S-SIN": "deit_s_sin_dist",
        "DeiT-T-distilled": "deit_tiny_distilled",
        "DeiT-S-distilled": "deit_small_distilled",
    }
    for title, name in names.items():
        yield Quantity(
            "token_cosine", "Section 3.2", title, "cosine of class and shape (or distillation) token", entry[title],
            0.005, entry["src"], (Place("token-similarity", "cosine", {"norm": True}),), network=name,
        )  # fmt: skip


def _shape_references(place: Place) -> Iterator[Quantity]:
    """What Geirhos et al. publish of the benchmark, beside the paper."""
    entry = targets()["shape_bias_reference"]
    exact = 0.00005

    def reference(title: str, value: float, where: tuple[Place, ...], name: str | None, why_not: str = "") -> Quantity:
        return Quantity(
            "shape_bias_reference", "Geirhos et al.", title, "shape bias", value, exact, entry["src"], where,
            "cue-conflict", network=name, why_not=why_not,
        )  # fmt: skip

    yield reference("ResNet50", entry["resnet50_mean_agg"], (place,), "resnet50")
    yield reference("ResNet50-SIN", entry["resnet50_sin_mean_agg"], (place,), "resnet50_sin")
    yield reference("AlexNet", entry["alexnet_tv"]["bias"], (place,), "torchvision:alexnet")
    yield reference("VGG16", entry["vgg16_tv"]["bias"], (place,), "torchvision:vgg16")
    another = "its trials were decided by another rule than the mean over a category's classes"
    yield reference("ResNet50, raw trials", entry["resnet50_csv"]["bias"], (), None, another)
    yield reference("ResNet50-SIN, raw trials", entry["resnet50_sin_csv"]["bias"], (), None, another)
    missing = "a network of Geirhos et al. that the paper does not use"
    yield reference("ResNet50, SIN and IN", entry["resnet50_sin_in"], (), None, missing)
    yield reference("ResNet50, SIN and IN, then IN", entry["resnet50_sin_in_ft"], (), None, missing)
    people = "people, not a network"
    yield reference("10 people", entry["humans_pooled"]["bias"], (), None, people)
    for category, value in entry["human_per_class"].items():
        yield reference(f"10 people, {category}", value, (), None, people)


def _segmentation() -> Iterator[Quantity]:
    entry = targets()["jaccard_voc12"]
    for key in (key for key in entry if key != "src"):
        size = key[:6]
        untrained = key.endswith("random")
        token = "shape" if key.endswith("shape") else "class"
        name = network(f"{size}-SIN") if "SIN" in key else network(size)
        place = Place(
            "segment", "jaccard",
            {"token": token, "threshold": 0.9, "mask": "best head (oracle)", "protocol": "authors"},
            settings={"protocol": "authors"},
        )  # fmt: skip
        yield Quantity(
            "jaccard_voc12", "Table 4 (Jaccard)", key, f"Jaccard index (%), {token} token", entry[key], 0.05,
            entry["src"], (place,), "voc", untrained, f"{name}_dist" if "dist" in key else name,
        )  # fmt: skip
