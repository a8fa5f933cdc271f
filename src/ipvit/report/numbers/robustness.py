"""Section 3.4: corruptions and attacks."""

from __future__ import annotations

from collections.abc import Iterator

from ipvit.report.numbers.quantity import Place, Quantity, network
from ipvit.report.paper import targets


def quantities() -> Iterator[Quantity]:
    """Yield the numbers of this part of the paper."""
    yield from _corruptions()
    yield from _attacks()


def _corruptions() -> Iterator[Quantity]:
    files = {"made": "ImageNet-C files"}
    entry = targets()["mce"]
    for title in (key for key in entry if key != "src"):
        place = Place("corruptions", "mce", {**files, "reference": "AlexNet"}, "corruptions-mce")
        yield Quantity(
            "mce", "Table 4 (mCE)", title, "mCE (%)", entry[title], 0.05, entry["src"], (place,), "imagenet-c",
            network=network(title),
        )  # fmt: skip
    entry = targets()["resnet50_ce_examples"]
    for corruption, (accuracy, error) in entry["acc_ce"].items():
        for words, measure, value in (
            ("mean error (%)", "mean_error", 100 - accuracy), ("corruption error (%)", "ce", error),
        ):  # fmt: skip
            place = Place("corruptions", measure, {**files, "corruption": corruption}, "corruptions-ce")
            yield Quantity(
                "resnet50_ce_examples", "Rusak et al.", "ResNet50", f"{words}, {corruption}", round(value, 2), 0.005,
                entry["src"], (place,), "imagenet-c", network="resnet50",
            )  # fmt: skip
    entry = targets()["alexnet_err"]
    for corruption in (key for key in entry if key != "src"):
        for severity, error in enumerate(entry[corruption], start=1):
            place = Place("corruptions", "top1", {**files, "corruption": corruption, "severity": severity})
            yield Quantity(
                "alexnet_err", "Hendrycks et al.", "AlexNet", f"top-1 (%), {corruption}, severity {severity}",
                round(100 - 100 * error, 3), 0.0005, entry["src"], (place,), "imagenet-c",
                network="torchvision:alexnet",
            )  # fmt: skip


def _attacks() -> Iterator[Quantity]:
    """Figures 12 and 13; their right halves, of the networks trained on stylised images, are drawn larger."""
    for key, attack, words, left, right in (
        ("fig13_fgsm", "fgsm", "FGSM", 0.7, 0.1), ("fig13_pgd5", "pgd", "PGD, 5 steps", 0.3, 0.03),
    ):  # fmt: skip
        entry = targets()[key]
        for title, values in entry["y"].items():
            for epsilon, top1 in zip(entry["eps"], values, strict=True):
                asked = {"attack": attack, "epsilon": float(epsilon)}
                steps = {"steps": 5} if attack == "pgd" else {}
                yield Quantity(
                    key, "Figure 13", title, f"top-1 (%), {words}, epsilon {epsilon}/255", top1,
                    right if title.endswith("SIN") else left, entry["src"],
                    (Place("attack", "top1", asked | steps, settings=steps),), network=network(title),
                )  # fmt: skip
    entry = targets()["fig12_patch"]
    for title, values in entry["y"].items():
        for percent, top1 in zip(entry["sizes"], values, strict=True):
            place = Place("attack", "top1", {"area": percent / 100, "patch": "trained", "target": ""}, "attack-patch")
            yield Quantity(
                "fig12_patch", "Figure 12", title, f"top-1 (%), patch of {percent} %", top1,
                0.3 if title.endswith("SIN") else 1.5, entry["src"], (place,), network=network(title),
            )  # fmt: skip
