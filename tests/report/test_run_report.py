# pyright: reportAttributeAccessIssue=false, reportOperatorIssue=false, reportIncompatibleMethodOverride=false
"""What a run folder's report is made of: records read once, pictures per model, tables before drawings."""

import io
import re

import altair as alt
import numpy as np
import polars as pl
import pytest
import torch
from PIL import Image

import ipvit
from helpers.small_runs import photos, small_occlusion
from helpers.tiny import tiny_model
from ipvit.analysis.sentences import uneven
from ipvit.engine.examples import read_examples
from ipvit.engine.store import Store
from ipvit.experiments.base import ExampleImage
from ipvit.experiments.shuffle.measurement import ShuffleMeasurement
from ipvit.report import Gallery
from ipvit.report.pictures import Album
from ipvit.results import Run


class PointedMeasurement(ShuffleMeasurement):
    """Pictures and captions that depend on the model."""

    def examples(self, model, batch):
        """Yield one picture that all models share and one of the model's own."""
        shade = self.experiment.shade * (0.25 if model.name == "a" else 0.75)
        yield ExampleImage(f"{model.name} sees this", batch.images[0])
        yield ExampleImage("its own", torch.full((3, 16, 16), shade))


class Pointed(ipvit.Shuffle):
    """An experiment that brings a measurement of its own."""

    shade: float = 1.0

    def bind(self, models, data, context):
        """Return the measurement."""
        return PointedMeasurement(self, models)


def run_of(experiment, out, *names: str) -> Run:
    models = [tiny_model(seed, name=name) for seed, name in enumerate(names)]
    return ipvit.run(experiment, models=models, data=photos(12), out=out, workers=0, progress=False)


def test_records_are_read_once_for_a_whole_report(tmp_path, monkeypatch):
    run_of([small_occlusion(), ipvit.Shuffle(grids=("2x2",))], tmp_path, "a", "b")
    reads: list[tuple[str, object]] = []
    plain = Store.select

    def counted(self, experiment, where, columns=None, *, of=""):
        reads.append((experiment, columns))
        return plain(self, experiment, where, columns, of=of)

    monkeypatch.setattr(Store, "select", counted)
    run = Run(tmp_path)
    assert run.tables and run.figures and run.differences
    run.report()
    run.compare()
    assert [name for name, _ in reads] == ["occlusion", "occlusion", "shuffle", "shuffle"]  # each of two models once
    assert all("label_logit" not in columns for _, columns in reads)


def test_a_figure_that_cannot_be_drawn_is_named_and_the_page_is_written(tmp_path):
    run = run_of([small_occlusion(), ipvit.Shuffle(grids=("2x2",))], tmp_path, "a")
    sound = run.figures_of("shuffle")
    name, chart = next(iter(sound.items()))
    broken = alt.Chart(alt.InlineData(values=[{"a": 1}])).mark_bar().encode(x=alt.X(field="a", type="quantitative"))
    broken.mark = {"type": "no mark"}
    run.figures_of = {"shuffle": sound | {"broken": broken}, "occlusion": run.figures_of("occlusion")}.__getitem__
    page = run.report().read_text("utf-8")
    assert "The figure broken cannot be drawn:" in page and (tmp_path / "figures" / f"{name}.svg").exists() and chart


def test_only_rows_that_are_read_together_must_rest_on_the_same_images():
    whole = pl.DataFrame({"model": ["a", "b"], "n_images": [20, 20]})
    categories = {"model": ["a", "a", "b", "b"], "category": ["x", "y", "x", "y"]}
    alike = pl.DataFrame(categories | {"n_images": [13, 7, 13, 7]})
    assert uneven({"shape-bias": whole, "shape-bias-categories": alike}, "shape-bias") == []
    levels = pl.DataFrame({"model": ["a", "a"], "level": [0, 1], "n_images": [20, 19]})
    assert uneven({"occlusion": levels}, "occlusion") == ["Not all rows rest on the same images: n is 19 to 20."]
    of_b = pl.DataFrame(categories | {"n_images": [13, 7, 13, 6]})
    (note,) = uneven({"shape-bias": whole, "shape-bias-categories": of_b}, "shape-bias")
    assert note == "Not all rows of shape-bias-categories rest on the same images: n is 6 to 7."


def test_a_network_with_several_answers_is_no_reason_to_doubt_the_others():
    """A distilled network has a row a token and category; every category rests on the same images in all rows."""
    rows = [("a", "output", "x", 271), ("a", "output", "y", 9)]
    rows += [("b", token, category, n) for token in ("class", "mean") for category, n in (("x", 271), ("y", 9))]
    table = pl.DataFrame(rows, schema=["model", "token", "category", "n_images"], orient="row")
    whole = pl.DataFrame({"model": ["a", "b", "b"], "n_images": [1280] * 3})
    assert uneven({"shape-bias": whole, "shape-bias-categories": table}, "shape-bias") == []


def test_a_subclass_gets_all_columns(tmp_path):
    class Sure(ipvit.Shuffle):
        """Looks at a column that its parent does not."""

        def analysis(self):
            """Return one that averages the confidence."""
            return ipvit.Analysis.of(self, {"confidence": ipvit.Column(average="mean")})

    run = run_of(Sure(grids=("2x2",)), tmp_path, "a")
    assert run.tables["shuffle"]["confidence"].null_count() == 0


def test_a_method_that_nobody_would_ask_is_refused(tmp_path):
    class Deaf(ipvit.Shuffle):
        """Overrides what belongs to the measurement."""

        def examples(self, model, batch):
            """Yield nothing."""
            yield from ()

    with pytest.raises(ipvit.InputError, match="Deaf overrides 'examples', .* in a subclass of ShuffleMeasurement"):
        run_of(Deaf(grids=("2x2",)), tmp_path, "a")


def test_the_differences_of_a_run_are_those_of_its_records(tmp_path):
    run = run_of(small_occlusion(), tmp_path, "a", "b")
    frame = run.differences["occlusion"].filter(pl.col("information_loss") == 0.5)
    rows = run.records("occlusion").filter(pl.col("information_loss") == 0.5)
    means = dict(rows.group_by("model").agg(pl.col("correct").mean()).iter_rows())
    assert frame["difference"][0] == pytest.approx(100 * (means["a"] - means["b"]))


def test_pictures_are_kept_per_model_and_equal_ones_share_a_file(tmp_path):
    run = run_of(Pointed(grids=("2x2",)), tmp_path, "a", "b")
    found = read_examples(tmp_path, "shuffle")
    assert [picture.caption for picture in found["b"]] == ["b sees this", "its own"]
    assert found["a"][0].path == found["b"][0].path and found["a"][1].path != found["b"][1].path
    page = run.report().read_text("utf-8")
    assert "a sees this" in page and "The same for b" in page and "b sees this" in page


def test_pictures_follow_the_parameters(tmp_path):
    run_of(Pointed(grids=("2x2",)), tmp_path, "a")
    (before,) = {picture.path for picture in read_examples(tmp_path, "shuffle")["a"][1:]}
    run_of(Pointed(grids=("2x2", "4x4"), shade=0.5), tmp_path, "a")
    (after,) = {picture.path for picture in read_examples(tmp_path, "shuffle")["a"][1:]}
    shades = [np.asarray(Image.open(path))[0, 0, 0] for path in (before, after)]
    assert shades == [64, 32]


class _Shown:
    def __init__(self, caption, path):
        self.caption, self.path = caption, path


def test_models_with_equal_pictures_share_them_and_large_ones_become_small(tmp_path):
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (600, 500, 3), dtype=np.uint8)).save(tmp_path / "large.png")
    Image.fromarray(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(tmp_path / "small.png")
    names = ("large.png", "small.png")
    pictures = {m: [_Shown(f"{name} for {m}", tmp_path / name) for name in names] for m in ("a", "b")}
    pictures["c"] = [_Shown("alone", tmp_path / "small.png")]
    first, second = Album().galleries(pictures)
    assert first.models == ("a", "b") and second == Gallery(("c",), second.examples)
    assert first.examples[0].caption == "large.png for a\nlarge.png for b"
    with Image.open(io.BytesIO(first.examples[0].data)) as picture:
        assert max(picture.size) == 336 and picture.format == "WEBP"
    assert first.examples[1].data == (tmp_path / "small.png").read_bytes() == second.examples[0].data


def test_a_page_has_room_for_so_many_pictures(tmp_path):
    for i in range(3):
        Image.fromarray(np.full((100, 100, 3), 10 * i, np.uint8)).save(tmp_path / f"{i}.png")
    galleries = Album(room=100).galleries({f"m{i}": [_Shown("x", tmp_path / f"{i}.png")] for i in range(3)})
    assert [(gallery.models, len(gallery.examples)) for gallery in galleries] == [(("m0",), 1), (("m1", "m2"), 0)]


def test_tables_are_printed_where_there_is_no_room_for_the_report(tmp_path, capsys, monkeypatch):
    from ipvit.commands.measure import tell

    run = run_of(small_occlusion(), tmp_path, "a")

    def fail(self):
        raise OSError("no room for drawings")

    monkeypatch.setattr(Run, "report", fail)
    with pytest.raises(OSError, match="no room"):
        tell(run, json=False)
    assert "of the patches dropped at random" in capsys.readouterr().out


def test_the_report_names_every_file_beside_it(tmp_path):
    run = run_of(small_occlusion(), tmp_path, "a", "b")
    page = run.report().read_text("utf-8")
    for path in (
        "figures/occlusion-random.svg",
        "figures/occlusion-random.pdf",
        "tables/occlusion.tex",
        "tables/occlusion.csv",
        "tables/occlusion.md",
        "tables/occlusion.json",
    ):
        assert (tmp_path / path).stat().st_size > 0
    assert re.search(r"Files: figures/occlusion-random\.svg, \.pdf", page)
    assert "lies significantly above" in page or "do not differ significantly" in page
    assert "Paired differences between the models" in page
