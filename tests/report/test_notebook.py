"""Runs, models and data show themselves: one line at the prompt, tables and figures in a notebook."""

import base64
import re
from xml.etree import ElementTree

import polars as pl
import pytest

import ipvit
from helpers.small_runs import photos, small_occlusion, told_by
from helpers.tiny import PatchNet, tiny_model


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    models = [tiny_model(), tiny_model(1, name="<b>second</b>")]
    out = tmp_path_factory.mktemp("shown") / "run"
    return ipvit.run(small_occlusion(), models=models, data=photos(), out=out, limit=8, workers=0, progress=False)


def test_a_run_is_one_line_at_the_prompt(run):
    assert repr(run) == f"<ipvit.Run {str(run.out)!r}: occlusion of 2 models on 8 of 30 images of memory>"


def test_a_notebook_shows_tables_figures_and_sentences_of_a_run(run):
    page = run._repr_html_()
    pictures = [base64.b64decode(part.partition('"')[0]) for part in page.split("data:image/svg+xml;base64,")[1:]]
    assert len(pictures) == len(run.figures) > 0
    for picture in pictures:  # as an image of its own: without its namespace no browser draws it
        assert ElementTree.fromstring(picture).tag == "{http://www.w3.org/2000/svg}svg"
    assert "Limited run: 8 of 30 images." in page and "top-1" in page
    assert "<b>second" not in page and "&lt;b&gt;second" in page, "names are shown and never obeyed"
    assert all(value in page for value in ("30 %", "90 %")) or "0.3" in page


def test_a_notebook_begins_with_the_profile_where_there_are_several_questions(run, tmp_path):
    assert "Profile (" not in run._repr_html_(), "one question is its own table"
    experiments = [ipvit.Accuracy(), small_occlusion()]
    model = tiny_model()
    both = ipvit.run(experiments, models=model, data=told_by(model), out=tmp_path, workers=0, progress=False)
    page = both._repr_html_()
    assert page.index("Profile (number, 95 % interval, rank)") < page.index("Occlusion: PatchDrop")
    clean = both.profile.cells().filter(question="clean").to_dicts()[0]
    assert f"<td>{clean['value']:.1f} [{clean['low']:.1f}, {clean['high']:.1f}]</td>" in page
    assert "Under a perturbation the number is what is retained" in page


def test_a_model_and_data_are_one_line_each_and_a_small_table(run):
    model, data = tiny_model(), photos()
    assert re.fullmatch(r"<ipvit\.Model 'tiny': 196 parameters, 16x16 pixels, 4 outputs; made in Python>", repr(model))
    assert repr(data) == "<MemoryDataset 'memory': 30 images, 4 classes>"
    assert "c0, c1, c2, c3" in model._repr_html_() and model.digest[:12] in model._repr_html_()
    assert "30" in data._repr_html_()


def test_how_a_model_shows_itself_is_no_part_of_its_digest(monkeypatch):
    class Inside(PatchNet):
        def __init__(self):
            super().__init__()
            self.inner = tiny_model()

    digest = ipvit.wrap(Inside(), size=16).digest
    monkeypatch.delattr(ipvit.Model, "__repr__")
    assert ipvit.wrap(Inside(), size=16).digest == digest
    assert "AdaptiveAvgPool2d" in ipvit.wrap(Inside(), size=16).architecture


def test_a_printed_table_shows_its_measure(run):
    table = run.tables["occlusion"]
    assert table.columns[:4] == ["model", "mode", "information_loss", "top1"]
    assert table.columns[-2:] == ["n_images", "n_runs"]
    assert " top1 " in str(table).splitlines()[2]


def test_records_name_the_classes_beside_their_numbers(run):
    records = run.records("occlusion")
    names = ["c0", "c1", "c2", "c3"]
    for number, name in (("label", "label_name"), ("prediction", "prediction_name")):
        assert records.columns.index(name) == records.columns.index(number) + 1
        assert records[name].to_list() == [names[value] for value in records[number]]
    again = ipvit.Run(run.out).records("occlusion")
    assert again["prediction_name"].equals(records["prediction_name"])


def test_names_are_those_of_the_answers_that_were_chosen_among(tmp_path):
    data = ipvit.MemoryDataset(photos()._images[:6], [0, 1] * 3, ["c2", "c0"])
    options = {"models": tiny_model(), "data": data, "out": tmp_path, "workers": 0, "progress": False}
    every = ipvit.run(ipvit.Accuracy(), **options).records("accuracy")
    few = ipvit.run(ipvit.Accuracy(), answers="data", **options).records("accuracy")
    assert sorted(set(every["label"])) == [0, 2] and sorted(set(few["label"])) == [0, 1]
    assert every.sort("image")["label_name"].to_list() == few.sort("image")["label_name"].to_list() == ["c2", "c0"] * 3


def test_a_label_without_a_name_has_none(tmp_path):
    data = ipvit.MemoryDataset(photos()._images[:4], [0, -1, 1, -1], ["c0", "c1"])
    run = ipvit.run(ipvit.Accuracy(), models=tiny_model(), data=data, out=tmp_path, workers=0, progress=False)
    labels = run.records("accuracy").sort("image").select("label", "label_name").rows()
    assert labels == [(0, "c0"), (-1, None), (1, "c1"), (-1, None)]


def test_pandas_is_asked_for_where_it_is_missing(run, monkeypatch):
    def lacking(self, *args, **options):
        raise ModuleNotFoundError("No module named 'pandas'", name="pandas")

    monkeypatch.setattr(pl.DataFrame, "to_pandas", lacking)
    with pytest.raises(ipvit.InputError, match=r"pandas is not installed: pip install 'ipvit\[pandas\]'"):
        run.to_pandas("occlusion")


def test_a_table_of_pandas_has_the_same_values(run):
    pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    assert run.to_pandas("occlusion")["top1"].tolist() == run.tables["occlusion"]["top1"].to_list()


def test_several_runs_show_themselves(run):
    both = ipvit.RunCollection(run.out.parent)
    assert repr(both).startswith("<ipvit.RunCollection ") and "<img " not in both._repr_html_()
