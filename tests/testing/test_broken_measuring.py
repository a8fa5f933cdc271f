"""An experiment that measures a batch, or tells of its records, otherwise than it promised is caught."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

import ipvit
from helpers.plain_loops import photos
from helpers.sound import Sound, broken, models
from ipvit.analysis.reduction import Reduction
from ipvit.testing import check_experiment

# --- one batch -------------------------------------------------------------------------------------------------------


class Raw(Sound):
    def measure(self, model, batch):
        yield {"correct": torch.ones(len(batch))}


class Half(Sound):
    def measure(self, model, batch):
        yield from list(super().measure(model, batch))[:1]


class All(Sound):
    """Measures its conditions whatever was asked for."""

    def measure(self, model, batch):
        for condition in self.conditions(model):
            yield ipvit.Records(condition, self.columns(model, batch, batch.images))


class Wordless(Sound):
    def columns(self, model, batch, images):
        return {}


class Overlapping(Sound):
    def columns(self, model, batch, images):
        return super().columns(model, batch, images) | {"amount": torch.ones(len(images))}


class Short(Sound):
    def columns(self, model, batch, images):
        return super().columns(model, batch, images) | {"brightness": images.mean()}


class Objects(Sound):
    def columns(self, model, batch, images):
        return super().columns(model, batch, images) | {"what": np.array([object() for _ in images])}


class Complex(Sound):
    def columns(self, model, batch, images):
        return super().columns(model, batch, images) | {"what": np.zeros(len(images), np.complex64)}


class Mixed(Sound):
    def columns(self, model, batch, images):
        mixed = np.array([1, "two", None, b"4", 5.0, []], dtype=object)
        return super().columns(model, batch, images) | {"what": mixed[: len(images)]}


class Darkening(Sound):
    def columns(self, model, batch, images):
        batch.images.mul_(0.5)
        return super().columns(model, batch, images)


class TorchRandom(Sound):
    def columns(self, model, batch, images):
        return super().columns(model, batch, images + torch.rand(1))


class NumpyRandom(Sound):
    def keys(self, batch):
        return np.random.randint(0, 2**30, len(batch))


class PythonRandom(Sound):
    def keys(self, batch):
        return [random.randrange(2**30) for _ in batch.ids]


class Unseeded(Sound):
    def keys(self, batch):
        return np.random.default_rng().integers(0, 2**30, len(batch))


class Ordinal(Sound):
    """What it measures under a condition depends on the conditions before it."""

    def measure(self, model, batch):
        for number, records in enumerate(super().measure(model, batch)):
            columns = {"confidence": records.columns["confidence"] + number}
            yield ipvit.Records(records.condition, dict(records.columns) | columns)


class Training(Sound):
    def columns(self, model, batch, images):
        model.train()
        return super().columns(model, batch, images)


class Hooking(Sound):
    def columns(self, model, batch, images):
        model.backbone.head.register_forward_hook(lambda *_: None)
        return super().columns(model, batch, images)


class Teaching(Sound):
    def columns(self, model, batch, images):
        model.backbone.head.weight.data.mul_(1.01)
        return super().columns(model, batch, images)


class Gradients(Sound):
    requirements = property(lambda self: ipvit.Requirements(frozenset({"logits", "gradients"})))

    def columns(self, model, batch, images):
        model(images).sum().backward()
        return super().columns(model, batch, images)


class Failing(Sound):
    def columns(self, model, batch, images):
        raise RuntimeError("no idea")


class RandomlyPrepared(Sound):
    def prepare(self, model, context):
        return torch.rand(1)


class Captionless(Sound):
    def examples(self, model, batch):
        yield ipvit.ExampleImage("", batch.images[0])


class Glaring(Sound):
    def examples(self, model, batch):
        yield ipvit.ExampleImage("too bright", batch.images[0] + 1)


class Untyped(Sound):
    def examples(self, model, batch):
        yield batch.images[0]


def blown_up(pixels, image_id, seed):
    raise ValueError("no such lens")


class Transformed(Sound):
    def image_transform(self, condition):
        return blown_up


class Masked(Sound):
    """Uses masks and does not say so."""

    def columns(self, model, batch, images):
        return super().columns(model, batch, images * batch.masks[:, None])


MEASURED = [
    (Raw, "Raw: measure on one yields dict; it must yield ipvit.Records"),
    (Half, r"yields records of Noise\(amount=0.5\) 0 times; it must do once"),
    (All, r"asked for Noise\(amount=0.0\) alone, yields records of Noise\(amount=0.5\), which is not among"),
    (Wordless, "measures nothing under"),
    (Overlapping, "returns a column 'amount', which the records have already"),
    (Short, r"returns the column 'brightness' of shape \(\); it must have one value for each of the 6 items"),
    (Objects, "returns the column 'what' of object; records hold numbers"),
    (Complex, "returns the column 'what' of complex64"),
    (Mixed, "returns the column 'what' of object"),
    (Darkening, "measure on one changes batch.images"),
    (TorchRandom, "measure on one changes the global random state of torch"),
    (NumpyRandom, "measure on one changes the global random state of numpy.random"),
    (PythonRandom, "measure on one changes the global random state of random;"),
    (Unseeded, "gives another '.*' when the same batch is measured twice"),
    (Ordinal, r"asked for Noise\(amount=0.5\) alone, gives another 'confidence' than with all conditions"),
    (Training, r"leaves another mode \(training or evaluation\) on the network"),
    (Hooking, "leaves a forward hook on backbone.head"),
    (Teaching, "changes the weight backbone.head.weight"),
    (Gradients, "leaves a gradient on the weight backbone.head.weight; take gradients by torch.autograd.grad"),
    (Failing, "Failing: measure on one raises RuntimeError: no idea"),
    (Masked, "Masked: measure on one raises TypeError"),
    (RandomlyPrepared, "prepare on one changes the global random state of torch"),
    (Captionless, "yields a picture without a caption"),
    (Glaring, r"yields a picture \(3, 16, 16\) of torch.float32; it must be \(3, H, W\) in \[0, 1\]"),
    (Untyped, "examples on one yields Tensor, no ipvit.ExampleImage"),
    (Transformed, "its image transform fails: .*no such lens"),
]


@pytest.mark.parametrize(("experiment", "words"), MEASURED, ids=[kind.__name__ for kind, _ in MEASURED])
def test_what_is_measured_on_a_batch(experiment, words):
    broken(experiment, f"(?s){words}")


# --- what follows from the records -----------------------------------------------------------------------------------


class Undescribed(Sound):
    def columns(self, model, batch, images):
        return super().columns(model, batch, images) | {"brightness": images.mean(dim=(1, 2, 3))}


class Bright(Undescribed):
    def columns(self, model, batch, images):
        return {"brightness": images.mean(dim=(1, 2, 3))}

    def analysis(self):
        return ipvit.Analysis.of(self, {"brightness": ipvit.Column(average="mean")})


class Endless(Sound):
    """The amount of the clean image is a number that JSON does not have."""

    amounts: tuple[float, ...] = (0.5, float("inf"))

    def measure(self, model, batch):
        for condition in batch.conditions:
            images = batch.images if condition.amount > 1 else batch.images * 0
            yield ipvit.Records(condition, self.columns(model, batch, images))

    def analysis(self):
        return ipvit.Analysis.of(self, {"amount": ipvit.Column(level=True)}, clean={"amount": float("inf")})


class Own(ipvit.Analysis):
    """An analysis that a test breaks in one place."""


def analysed(**methods: Any) -> type[Sound]:
    """Return an experiment whose analysis has other methods."""
    kind = type("Own", (Own,), {"__module__": __name__, **methods})
    return type("Analysed", (Sound,), {"__module__": __name__, "analysis": lambda self: kind.of(self)})


def with_text(self, tables):
    return {"sound": ipvit.Analysis.tables(self, tables)["sound"].with_columns(cells=[[1, 2]])}


def mixed(self, reductions):
    tables = ipvit.Analysis.tables(self, reductions)
    return {
        name: table.with_columns(pl.col("top1") - pl.col("top1").mean() + len(reductions))
        for name, table in tables.items()
    }


class Counts(ipvit.Analysis):
    def reduce(self, records):
        table = records.group_by("model").agg(pl.len().alias("n_images"))
        return self.reduced(records, {self.name: table}, keys=())


class Described(Sound):
    """Says that a text is averaged, which only its own code knows how to do."""

    def columns(self, model, batch, images):
        return super().columns(model, batch, images) | {"told": np.full(len(images), "one")}

    def analysis(self):
        return Counts.of(self, {"told": ipvit.Column(average="mean")})


ANALYSED = [
    (Undescribed, "the column 'brightness' is measured and nothing says what it means"),
    (Bright, "models are compared by 'correct', which is no column of the records"),
    (Endless, "what the run folder keeps of the analysis makes other tables or sentences"),
    (Described, "making tables from what the run folder keeps of the analysis raises"),
    (analysed(reduce=lambda self, records: records), "reduce on one returns no Reduction of that model"),
    (analysed(reduce=lambda self, records: Reduction("all", "", {})), "reduce on one returns no Reduction of that"),
    (analysed(reduce=lambda self, records: 1 / 0), "the analysis' reduce on one raises ZeroDivisionError"),
    (analysed(tables=lambda self, reductions: []), "tables returns no dict of polars frames by name"),
    (
        analysed(tables=lambda self, reductions: {"other": pl.DataFrame()}),
        "the table 'other' must be called 'sound', or 'sound-' and",
    ),
    (analysed(tables=lambda self, reductions: {"sound": pl.DataFrame()}), "the first table, 'sound', has no rows with"),
    (analysed(tables=mixed), "the table 'sound' says something else of one alone than beside other models"),
    (analysed(tables=with_text), "writing the table 'sound' raises"),
    (analysed(tables=lambda self, reductions: {}), "tables returns no table; there are records"),
    (analysed(figures=lambda self, tables: {"other": None}), "the figure 'other' must be called 'sound'"),
    (analysed(figures=lambda self, tables: []), "figures returns list; it must be a dict by name"),
    (analysed(figures=lambda self, tables: {"sound": "a curve"}), "drawing the figure 'sound' raises AttributeError"),
    (analysed(summary=lambda self, tables: "it falls"), "summary returns 'it falls'; it must be a list of sentences"),
    (analysed(answer=lambda self, tables: ["it falls"]), "answer returns .* it must be a dict from the models' names"),
    (analysed(answer=lambda self, tables: {"nobody": "falls"}), "answer returns .* it must be a dict from the models'"),
    (analysed(sentences=lambda self, tables: 1 / 0), "the analysis' summary and answer raises ZeroDivisionError"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("experiment", "words"), ANALYSED, ids=[words for _, words in ANALYSED])
def test_what_follows_from_the_records(experiment, words):
    broken(experiment, words)


def test_an_analysis_that_cannot_be_kept_is_a_broken_promise_too():
    class Unkept(Sound):
        def analysis(self):
            return ipvit.Analysis.of(self, clean={"amount": OBJECT})

    broken(Unkept, "Unkept: a run raises PydanticSerializationError")


OBJECT = object()


@pytest.mark.slow
def test_numbers_may_be_off_by_the_rounding_that_is_stated():
    class Rounded(Sound):
        def columns(self, model, batch, images):
            found = super().columns(model, batch, images)
            return found | {"confidence": found["confidence"] + 1e-3 / len(batch)}

    broken(Rounded, "the records depend on the batch size: confidence of image")
    check_experiment(Rounded, models=models(), data=photos(6, 16), rounding=1e-2)
