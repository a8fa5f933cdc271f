"""A profile: one row a model, one column a question; ranks are what paired tests leave."""

from __future__ import annotations

import json

import altair as alt
import numpy as np
import pytest

import ipvit
from helpers.by_hand import attacked, corners, made_of, occluded, right, shuffled
from helpers.comparison import among_the_datas_classes, manifest
from helpers.small_runs import small_occlusion, told_by
from helpers.tiny import tiny_model
from ipvit.analysis.paper_numbers import targets
from ipvit.analysis.profile import Question, Ranked, Score, _shown, ranked
from ipvit.cli import main
from ipvit.experiments.feature_drop.analysis import COLUMNS
from ipvit.metrics import Pair, holm, retained_difference
from ipvit.report.figures import without_nan
from ipvit.report.profile import Column, Neighbour, Profile, _apart, profile_of
from ipvit.report.profile_picture import _panel, draw


def question_of(cells, experiment=None) -> Ranked:
    (found,) = made_of(experiment or ipvit.Occlusion(), cells).profile
    return found


def test_the_number_is_the_area_under_what_is_retained():
    made = made_of(ipvit.Occlusion(), {"a": occluded(l0=right(58), l50=right(30), l90=right(8))})
    (found,) = made.profile
    (score,) = found.question.scores
    (area,) = made.tables["occlusion-area"].to_dicts()
    assert (score.value, score.low, score.high) == pytest.approx(
        (area["area_retained"], area["area_retained_low"], area["area_retained_high"])
    )
    assert found.question.key == "occlusion-random" and found.question.title == "occlusion, random"
    assert found.ranks == {}, "one model has no rank"


def test_ranks_are_the_places_that_paired_tests_leave():
    """Of three models two are alike: they share the first two places, the third is last."""
    cells = {m: occluded(l0=right(58), l50=right(n)) for m, n in (("a", 50), ("b", 49), ("c", 8))}
    found = question_of(cells)
    assert found.ranks == {"a": (1, 2), "b": (1, 2), "c": (3, 3)}
    expected = []
    for one, other in (("a", "b"), ("a", "c"), ("b", "c")):
        clean = np.array(right(58), dtype=float)
        pairs = [Pair(clean, (clean + np.array(cells[m][1][1], dtype=float)) / 2, 0.1) for m in (one, other)]
        expected.append(retained_difference(pairs[0], pairs[1]).p)
    assert [c.p_holm for c in found.comparisons] == pytest.approx(holm(expected).tolist())


def test_equal_models_share_all_places():
    found = question_of({m: occluded(l0=right(58), l50=right(30)) for m in ("a", "b", "c")})
    assert set(found.ranks.values()) == {(1, 3)}


def test_models_at_other_levels_have_no_rank_beside_each_other():
    found = question_of({"a": occluded(l0=right(58), l50=right(50)), "b": occluded(l0=right(58), l90=right(3))})
    assert found.ranks == {} and found.comparisons == ()
    assert len({score.protocol for score in found.question.scores}) == 2


def test_what_was_measured_otherwise_is_said_by_what_differs():
    assert (
        _shown([(0, 0.25), (0, 0.5), (2, 0.25), (2, 0.5)], ("block", "rate"), COLUMNS)
        == "block 0, 2 and rate 25 %, 50 %"
    )
    assert _shown([(0, 0.25), (2, 0.5)], ("block", "rate"), COLUMNS) == "0 0.25, 2 0.5"
    apart = _apart({"a; 6 blocks; guessing gives 10 %": ["x"], "b; 5 stages; guessing gives 10 %": ["y", "z"]})
    assert apart == "x (a, 6 blocks); y, z (b, 5 stages)"


def test_a_model_at_chance_has_no_number_and_says_why():
    found = question_of({"a": occluded(l0=right(58), l50=right(50)), "b": occluded(l0=right(6), l50=right(3))})
    of_b = found.question.scores[1]
    assert np.isnan(of_b.value) and of_b.note == "not above chance (10.0 %) on images as they are (10.0 %)"
    assert found.ranks == {}


def test_every_attack_is_a_question_of_its_own_and_corners_are_one():
    made = made_of(ipvit.Attack(), {"a": attacked(right(58), fgsm_4=right(20), pgd_4=right(0))})
    assert [found.question.title for found in made.profile] == ["attack, FGSM", "attack, PGD"]
    places = {name: right(9 + 6 * n) for n, name in enumerate(("top_left", "top_right", "bottom_left", "bottom_right"))}
    (found,) = made_of(ipvit.Position(), {"a": corners(right(58), **places)}).profile
    mean = np.mean([9, 15, 21, 27]) / 60
    assert found.question.scores[0].value == pytest.approx(100 * (mean - 0.1) / (58 / 60 - 0.1))


def test_without_values_of_images_numbers_are_compared_by_their_intervals():
    scores = (Score("a", 50.0, 45.0, 55.0, 100), Score("b", 30.0, 25.0, 35.0, 100), Score("c", 49.0, 44.0, 54.0, 100))
    found = ranked(Question("x", "x", "x", scores))
    assert found.ranks == {"a": (1, 2), "b": (3, 3), "c": (1, 2)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("profile")
    models = [tiny_model(0, name="a"), tiny_model(0, name="twin"), tiny_model(1, name="b")]
    experiments = [ipvit.Accuracy(), small_occlusion(), ipvit.Position()]
    ipvit.run(experiments, models=models[::2], data=told_by(models[0]), out=out, workers=0, progress=False).report()
    return out


@pytest.mark.slow
def test_the_command_shows_it_and_writes_table_and_picture(folder, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    for path in (*folder.glob("tables/profile.*"), *folder.glob("figures/profile.*")):
        path.unlink()
    assert main(["profile", str(folder)]) == 0
    printed = capsys.readouterr().out
    assert "Profile" in printed and "corner" in printed and "not above chance" in printed
    assert max(len(line) for line in printed.splitlines() if not line.startswith("picture:")) <= 80
    assert {path.suffix for path in folder.glob("tables/profile.*")} == {".csv", ".json", ".md", ".tex"}
    assert (folder / "figures" / "profile.svg").read_text().startswith("<svg")
    assert (folder / "figures" / "profile.pdf").read_bytes().startswith(b"%PDF")


def test_programs_get_json_and_nothing_else(folder, capsys):
    assert main(["profile", str(folder), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [question["key"] for question in found["questions"]] == ["clean", "occlusion-random", "position"]
    run = ipvit.Run(folder)
    (area,) = run.tables["occlusion-area"].filter(model="a").to_dicts()
    (cell,) = [c for c in found["cells"] if c["model"] == "a" and c["question"] == "occlusion-random"]
    assert cell["value"] == pytest.approx(area["area_retained"]) and cell["source"] == "measured"
    (of_b,) = [c for c in found["cells"] if c["model"] == "b" and c["question"] == "occlusion-random"]
    assert of_b["value"] is None and of_b["note"]


def test_it_stands_on_top_of_the_page(folder):
    page = (folder / "report.html").read_text("utf-8")
    assert page.index('id="profile"') < page.index('id="occlusion"')
    assert "figures/profile.svg" in page


def test_a_folder_without_numbers_is_one_line(tmp_path, capsys):
    assert main(["profile", str(tmp_path)]) == 2
    assert "is not a run folder" in capsys.readouterr().err


def test_networks_of_the_paper_stand_below_without_interval_or_rank():
    scores = (Score("a", 50.0, 45.0, 55.0, 100), Score("b", 30.0, 25.0, 35.0, 100))
    found = ranked(Question("x", "random", "x", scores))
    asked = Profile(("a", "b"), (Column("occlusion", found, (Neighbour("DeiT-S", 60.0, "Figure 3"),)),))
    heads, rows = asked.for_people()
    assert heads == ["model", "random"]
    assert rows[-1] == [("DeiT-S (paper)", "", ""), ("60.0", "", "")]
    assert rows[0][1] == ("50.0", "[45.0, 55.0]", "1")
    last = asked.cells().row(-1, named=True)
    assert last["source"] == "Figure 3" and last["low"] is None and last["rank_first"] is None
    assert "DeiT-S (paper)" in json.dumps(draw(asked))


def test_its_picture_is_what_altair_makes_of_the_panels(folder):
    """Of the panels put together, which takes Altair far longer."""
    asked = ipvit.Run(folder).profile
    assert asked is not None
    together = alt.vconcat(
        *(
            alt.hconcat(
                *(_panel(column, list(asked.models), asked, first=place == 0) for place, column in enumerate(line)),
                spacing=14,
            )
            for line in (asked.columns[start : start + 4] for start in range(0, len(asked.columns), 4))
        ),
        spacing=16,
    )
    theirs, ours = without_nan(together.to_dict()), draw(asked)
    assert theirs["vconcat"] == ours["vconcat"] and theirs["datasets"] == ours["datasets"]
    assert len(ours["datasets"]) > 1 and theirs["$schema"] == ours["$schema"]


def profiled(experiment, cells, about=None, answers: int = 1000) -> Profile:
    """The profile of one network on ImageNet, from records made by hand."""
    made = made_of(experiment, {"deit_small_patch16_224": cells}, answers)
    name = experiment.name
    return profile_of(
        {name: made.profile}, {name: made.tables}, about or manifest("deit_small_patch16_224"), {name: experiment}
    )


GRIDS = ("2x2", "2x4", "4x4", "4x8", "8x8", "14x14", "16x16")


def of_grids(*grids: str) -> list:
    return shuffled(right(58), **{f"g{grid}": right(30) for grid in grids})


def test_the_papers_networks_are_neighbours_at_the_same_levels_alone():
    (column,) = profiled(ipvit.Shuffle(), of_grids(*GRIDS)).columns
    near = {neighbour.network: neighbour.value for neighbour in column.neighbours if neighbour.where == "Figure 10"}
    entry = targets()["fig10_shuffle"]
    cells, top1 = [max(n, 1) for n in entry["cells"]], np.array(entry["y"]["DeiT-S"])
    mean = np.trapezoid(top1, np.log(cells)) / (np.log(cells[-1]) - np.log(cells[0]))
    assert near["DeiT-S"] == pytest.approx(100 * (mean - 0.1) / (top1[0] - 0.1)), "of ours too: over the logarithm"
    (other,) = profiled(ipvit.Shuffle(), of_grids("2x2", "7x7")).columns
    assert other.neighbours == (), "7 x 7 cells are not the paper's"


@pytest.mark.parametrize(
    ("experiment", "about", "answers"),
    [
        (ipvit.Shuffle(), manifest("deit_small_patch16_224", published=""), 1000),
        (ipvit.Shuffle(), among_the_datas_classes(manifest("deit_small_patch16_224"), "shuffle"), 50),
        (ipvit.Shuffle(), manifest("deit_small_patch16_224"), 50),
    ],
    ids=["other images", "among the data's classes", "another chance"],
)
def test_what_was_measured_otherwise_has_no_neighbours(experiment, about, answers):
    (column,) = profiled(experiment, of_grids(*GRIDS), about, answers).columns
    assert column.neighbours == ()


def test_another_protocol_has_no_neighbours():
    levels = {f"l{10 * i}": right(58 - 5 * i) for i in range(10)}
    cells = [(condition | {"grid": "14x14"}, answers) for condition, answers in occluded(**levels)]
    (column,) = profiled(ipvit.Occlusion(), cells).columns
    assert {"DeiT-S", "ResNet50"} <= {near.network for near in column.neighbours}
    (column,) = profiled(ipvit.Occlusion(fill="mean"), cells).columns
    assert column.neighbours == ()


def test_a_part_of_the_set_says_so():
    about = manifest("deit_small_patch16_224").model_copy(update={"images_used": 100})
    notes = profiled(ipvit.Shuffle(), of_grids(*GRIDS), about).notes
    assert "The paper's numbers are for the whole set, this run used a part of it." in notes
