"""The page says how its experiments were set, and how to run them again."""

import html
import json
import re

import pytest
import yaml

import ipvit
from helpers.pages import manifest
from helpers.small_runs import photos, small_occlusion
from helpers.tiny import tiny_model
from ipvit.analysis.looks import COLOURS, Looks
from ipvit.core.manifest import RANDOM_WEIGHTS
from ipvit.engine.study import make_study
from ipvit.report.settings import as_text, settings_of
from ipvit.results import Run


def plain(page: str) -> str:
    """The words of a page."""
    return html.unescape(re.sub(r"\s+", " ", re.sub(r"<[^>]*>", "", page)))


def test_what_departs_from_the_defaults_is_in_front():
    settings = settings_of(ipvit.Attack(patch_target="dog", attacks=("patch",)))
    departing = [setting for setting in settings if setting.departs]
    assert settings[: len(departing)] == departing and {s.name for s in departing} == {"attacks", "patch_target"}
    target = next(setting for setting in departing if setting.name == "patch_target")
    assert (target.value, target.default) == ("dog", "none")
    rest = {setting.name: setting.value for setting in settings if not setting.departs}
    assert rest["steps"] == "5" and rest["step_size"] == "0.5"


@pytest.mark.parametrize(
    "experiment", [ipvit.Occlusion, ipvit.Shuffle, ipvit.Attack, ipvit.Corruptions, ipvit.Attention]
)
def test_no_setting_departs_where_none_was_given(experiment):
    assert not [setting.name for setting in settings_of(experiment()) if setting.departs]


def test_defaults_that_nobody_knows_are_not_made_up():
    (setting,) = settings_of({"level": [0, 0.25]})
    assert setting.departs and setting.value == "0, 0.25" and setting.default is None
    assert settings_of(None) == [] and as_text({"a": True}) == "a yes"


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Run:
    models = [tiny_model(seed, name=name) for seed, name in enumerate(("b", "a"))]
    experiments = [small_occlusion(), ipvit.Shuffle(grids=("2x2", "4x4")), ipvit.Position()]
    out = tmp_path_factory.mktemp("run")
    return ipvit.run(experiments, models=models, data=photos(6), out=out, workers=0, progress=False)


@pytest.fixture(scope="module")
def page(run) -> str:
    return run.report().read_text("utf-8")


def test_every_section_has_its_settings_and_the_departures_first(run, page):
    said = re.findall(r'<p class="settings">(.*?)</p>', page, re.S)
    assert len(said) == len(run.analyses)
    occlusion = plain(said[list(run.analyses).index("occlusion")])
    assert "grid: " in occlusion and "(default 14x14)" in occlusion
    assert occlusion.index("(default 14x14)") < occlusion.index("otherwise the defaults")
    assert "fill black" in occlusion.partition("otherwise the defaults")[2]
    shuffle = said[list(run.analyses).index("shuffle")]
    assert "<strong>grids: 2x2, 4x4</strong>" in shuffle
    assert plain(said[list(run.analyses).index("position")]).startswith("Settings. The defaults")


def test_a_page_holds_the_study_that_made_it(run, page):
    (text,) = re.findall(r"<pre>(.*?)</pre>", page, re.S)
    on_page = yaml.safe_load(html.unescape(text))
    assert on_page == yaml.safe_load((run.out / "study.yaml").read_text("utf-8"))
    assert [entry.name for entry in make_study(on_page).experiments] == ["occlusion", "shuffle", "position"]


def test_the_settings_of_an_experiment_that_the_study_does_not_name_are_not_guessed(run):
    (run.out / "study.yaml").rename(run.out / "elsewhere.yaml")
    try:
        assert Run(run.out).settings_of("occlusion") == [] and Run(run.out).studies == {}
    finally:
        (run.out / "elsewhere.yaml").rename(run.out / "study.yaml")


def test_a_model_has_one_colour_in_all_figures_and_tables_of_a_page(run, page):
    looks = Looks(["b", "a"])
    for name in ("a", "b"):
        keys = set(re.findall(rf'<svg class="key"[^>]*fill="(#\w+)"[^>]*>(?:(?!</svg>).)*</svg>{name}</td>', page))
        assert keys == {looks.of(name).colour}
    found = set()
    for chart in run.figures.values():
        text = json.dumps(chart.to_dict())
        for domain, colours in re.findall(r'"domain": (\["b", "a"\]), "range": (\["#\w+", "#\w+"\])', text):
            found.add((domain, colours))
    assert found == {('["b", "a"]', json.dumps(list(COLOURS[:2])))}


def test_rows_stand_in_the_order_of_the_study(run):
    for name, table in run.tables.items():
        order = table["model"].unique(maintain_order=True).to_list()
        assert order == ["b", "a"], name


def test_random_weights_are_marked_wherever_a_number_stands(tmp_path):
    models = [ipvit.load_model("test_vit?num_classes=4", pretrained=False), tiny_model(1, size=160, name="trained")]
    images = photos(3)
    done = ipvit.run(ipvit.Position(), models=models, data=images, out=tmp_path, workers=0, progress=False, limit=3)
    marked = f"test_vit?num_classes=4{RANDOM_WEIGHTS}"
    assert [model.name for model in done.manifest.models] == [marked, "trained"]
    assert set(done.tables["position"]["model"]) == {marked, "trained"}
    page = done.report().read_text("utf-8")
    assert marked in page and not re.search(r">test_vit[^<(]*<", page)
    for kind in ("csv", "json", "md", "tex"):
        assert "(random weights)" in (tmp_path / "tables" / f"position.{kind}").read_text("utf-8")
    assert "(random weights)" in (tmp_path / "figures" / "position.svg").read_text("utf-8")
    assert all("random weights" in said for said in done.summary_of("position") if "test_vit" in said)
    assert manifest(["net"]).marked().models[0].name == "net"
