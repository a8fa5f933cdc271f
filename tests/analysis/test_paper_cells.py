"""Where our counterpart of a number of the paper stands: it is found there, and nothing else is taken for it."""

import importlib.metadata

import polars as pl
import pytest

import ipvit
from helpers.analysis import tables_of
from helpers.comparison import compared, manifest, occlusion_table
from ipvit.analysis.paper_numbers import PaperNumber, TableCell
from ipvit.experiments import registry
from ipvit.experiments.registry import paper_numbers
from ipvit.models.zoo.paper import NETWORKS
from ipvit.report import comparison
from ipvit.report.matching import counterpart

PROBED = [number for number in paper_numbers() if number.cells and number.cells[0].experiment == "probe"]


def head_records(model: str, head: str, tokens: str, blocks: str) -> pl.DataFrame:
    """Records of one head on four images, of which it gets three right."""
    first, _, last = blocks.partition("-")
    block = int(last or first)
    return pl.DataFrame(
        {
            "model": model,
            "weights": "0" * 32,
            "image": ["a", "b", "c", "d"],
            "label": [0, 1, 0, 1],
            "head": head,
            "tokens": tokens,
            "blocks": blocks,
            "block": block,
            "n_blocks": block - int(first) + 1,
            "norm": True,
            "fit": "" if head == "own" else "0123",
            "correct": [True, True, True, False],
            "correct5": True,
        }
    )


def probed(number: PaperNumber, protocol: str, *heads: tuple[str, str, str]) -> tuple[float | None, str]:
    """Look for a number in a table of the probe; return ours, and why there is none."""
    model = NETWORKS[str(number.network)].title
    experiment = ipvit.Probe(protocol=protocol, train=f"{number.data}:PATH/train")  # pyright: ignore[reportArgumentType]
    tables = {"probe": tables_of(experiment, pl.concat([head_records(model, *head) for head in heads]))}
    found, reason = counterpart(number, tables, [model], {"probe": experiment})
    return None if found is None else found.value, reason


def reads(number: PaperNumber) -> tuple[str, str, str]:
    conditions = number.cells[0].conditions
    return conditions["head"], conditions["tokens"], conditions["blocks"]


def test_there_are_67_numbers_of_the_probe():
    assert len(PROBED) == 67
    assert {number.key for number in PROBED} == {"fig15_blocks_6_12", "table5", "fig16_transfer"}


@pytest.mark.parametrize("number", PROBED, ids=lambda number: f"{number.where}, {number.title}, {number.what}")
def test_a_number_of_the_probe_is_found_in_its_table_and_nothing_else_is_taken_for_it(number):
    head, tokens, blocks = reads(number)
    first, _, last = blocks.partition("-")
    block = int(last or first)
    another_block = (head, tokens, str(block - 1) if first == str(block) else f"{int(first) + 1}-{last}")
    another_head = ("lbfgs", tokens, blocks)
    other_tokens = (head, "patch", blocks)
    others = (another_block, another_head, other_tokens)
    protocol = dict(number.cells[0].settings).get("protocol", "ours")
    assert probed(number, protocol, (head, tokens, blocks), *others) == (75, "")
    for other in others:
        assert probed(number, protocol, other)[0] is None, other
    if protocol == "authors":
        reason = "probe was run with protocol ours, the paper's is authors"
        assert probed(number, "ours", (head, tokens, blocks)) == (None, reason)


def test_heads_on_the_papers_data_stand_beside_its_heads():
    found = tables_of(ipvit.Probe(), head_records("DeiT-S", "adamw", "class", "8-11"))
    run = {"probe": ipvit.Probe(protocol="authors", train="cub:birds/trainval")}
    name = {"loaded": ("paper:deit_small",), "images": 4}
    about = manifest("DeiT-S", data="cub:birds/test", published="cub", **name)
    beside = compared({"probe": found}, about, **run)
    assert {where: row["ours"] for (where, _), row in beside.items()} == {"Table 5": 75, "Figure 16 (transfer)": 75}
    assert not compared({"probe": found}, manifest("DeiT-S", **name), **run)
    elsewhere = {"probe": ipvit.Probe(protocol="authors", train="flowers102:PATH/train")}
    assert not compared({"probe": found}, about, **elsewhere), "heads that were fitted on other data"
    few = {"probe": ipvit.Probe(protocol="authors", train="cub:birds/trainval", train_limit=100)}
    assert not compared({"probe": found}, about, **few)


def test_a_condition_that_nothing_tells_is_refused_and_the_reason_kept():
    row = {"model": "paper:deit_small", "n_images": 4, "top1": 70.0, "top1_low": 60.0, "top1_high": 80.0}
    tables = {"shuffle": {"shuffle": pl.DataFrame([row | {"cells": 4}])}}
    frame = comparison.compare(tables, manifest("paper:deit_small"), {"shuffle": ipvit.Shuffle()}, everything=True)
    refused = frame.filter(where="Figure 10", network="DeiT-S", what="top-1 (%), 4 cells shuffled")
    words = "neither a column of the table shuffle nor a parameter of shuffle says which grid it is, the paper's is 2x2"
    assert refused.select("ours", "note").rows() == [(None, f"not compared: {words}")]
    nothing = comparison.compare({}, manifest("paper:deit_base"), {}, everything=True)
    whole = comparison.joined([nothing, frame])
    assert words in whole.filter(where="Figure 10", network="DeiT-S", what="top-1 (%), 4 cells shuffled")["note"][0]
    assert whole["what"].to_list() == nothing["what"].to_list(), "in the order of the paper"


def test_without_the_experiments_parameters_only_what_the_table_tells_counts():
    tables = occlusion_table("paper:deit_small", [("random", 0.5, 0.5, 70.0)])
    assert not compared(tables, manifest("paper:deit_small"))
    table = tables["occlusion"]["occlusion"].with_columns(
        grid=pl.lit("14x14"), offset=pl.lit("0,0"), fill=pl.lit("black"), removal=pl.lit("pixels"), nested=False
    )
    assert compared({"occlusion": {"occlusion": table}}, manifest("paper:deit_small"))


def test_rows_that_say_the_same_are_one_and_rows_that_differ_are_none():
    clean = [(mode, 0.0, 0.0, 81.8) for mode in ("random", "salient", "non_salient")]
    about, run = manifest("paper:deit_base"), {"occlusion": ipvit.Occlusion()}
    found = compared(occlusion_table("paper:deit_base", clean), about, **run)
    assert found["Figure 27", "top-1 (%), clean"]["ours"] == 81.8
    clean[1] = ("salient", 0.0, 0.0, 81.7)
    tables = occlusion_table("paper:deit_base", clean)
    assert ("Figure 27", "top-1 (%), clean") not in compared(tables, about, **run)
    frame = comparison.compare(tables, about, run, everything=True)
    note = frame.filter(where="Figure 27", what="top-1 (%), clean")["note"].item()
    assert note == "not compared: 2 rows of the table occlusion fit, and differ"


def test_a_setting_that_varies_is_read_in_the_table():
    """A run of two scales has a column for them; the paper's is chosen, and no other taken for it."""
    rows = [
        {"model": "paper:deit_tiny", "place": "top-left", "scale": scale, "n_images": 9, "top1": top1}
        for scale, top1 in ((0.25, 10.0), (128 / 224, 51.0))
    ]
    where = ("Table 8", "top-1 (%), top-left")
    run = {"position": ipvit.Position(scale=0.25)}
    both = {"position": {"position": pl.DataFrame(rows)}}
    assert compared(both, manifest("paper:deit_tiny"), **run)[where]["ours"] == 51
    assert where not in compared({"position": {"position": pl.DataFrame(rows[:1])}}, manifest("paper:deit_tiny"), **run)


def test_maps_of_another_network_are_not_the_papers():
    levels = [("salient", 0.3, 0.12, 70.0), ("salient", 0.5, 0.26, 52.0)]
    tables = occlusion_table("paper:deit_small", levels)
    assert compared(
        tables, manifest("paper:deit_small"), occlusion=ipvit.Occlusion(salience="paper:dino_vits16@file.pth")
    )
    assert not compared(tables, manifest("paper:deit_small"), occlusion=ipvit.Occlusion(salience_head="2"))
    table = tables["occlusion"]["occlusion"].with_columns(salience=pl.Series(["masks", "0123 block -1 head 1"]))
    assert not compared({"occlusion": {"occlusion": table}}, manifest("paper:deit_small"), occlusion=ipvit.Occlusion())


def test_a_patch_that_shows_a_class_is_not_the_papers():
    row = {"model": "paper:deit_small", "area": 0.05, "patch": "trained", "n_images": 9, "top1": 70.0}
    tables = {"attack": {"attack-patch": pl.DataFrame([row])}}
    assert compared(tables, manifest("paper:deit_small"), attack=ipvit.Attack(attacks=("patch",)))
    assert not compared(tables, manifest("paper:deit_small"), attack=ipvit.Attack(attacks=("patch",), patch_target="7"))


def test_one_answer_of_a_network_with_two_is_chosen_by_its_token():
    row = {"model": "paper:deit_small", "n_images": 9, "top1": 79.9, "top1_low": 79.0, "top1_high": 80.0}
    run = {"accuracy": ipvit.Accuracy()}
    for token, found in (("output", True), ("class", False)):
        tables = {"accuracy": {"accuracy": pl.DataFrame([row | {"model": "deit_t_no_pos", "token": token}])}}
        assert bool(compared(tables, manifest("paper:no_pos_deit_t"), **run)) is False, "another model's row"
        tables = {"accuracy": {"accuracy": pl.DataFrame([row | {"model": "paper:no_pos_deit_t", "token": token}])}}
        assert bool(compared(tables, manifest("paper:no_pos_deit_t"), **run)) is found


def test_a_drawn_row_stands_where_its_counterpart_is_looked_for():
    for number in paper_numbers():
        for name in number.drawn.keys() & number.cells[0].conditions.keys() if number.drawn else ():
            assert number.drawn[name] == number.cells[0].conditions[name], number


def test_a_package_adds_numbers_in_a_module_beside_its_experiment(tmp_path, monkeypatch):
    package = tmp_path / "published"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "paper.py").write_text(
        "from ipvit.analysis.paper_numbers import PaperNumber, TableCell\n\n\n"
        "def paper_numbers():\n"
        "    cell = TableCell('theirs', 'top1', {'level': 1})\n"
        "    yield PaperNumber('theirs', 'Table 1', 'ResNet50', 'top-1 (%)', 70.0, 0.05, 'X', (cell,),\n"
        "                      network='resnet50', drawn={'level': 1})\n"
    )
    (tmp_path / "alone.py").write_text("paper_numbers = list\n")
    monkeypatch.syspath_prepend(tmp_path)
    points = [
        importlib.metadata.EntryPoint(name, value, registry.GROUP)
        for name, value in (("theirs", "published.experiment:Theirs"), ("alone", "alone:Alone"))
    ]
    before = paper_numbers()
    monkeypatch.setattr(registry, "plugins", lambda: tuple(points))
    paper_numbers.cache_clear()
    try:
        assert paper_numbers()[:-1] == before
        assert paper_numbers()[-1].cells == (TableCell("theirs", "top1", {"level": 1}),)
        row = {"model": "paper:resnet50", "level": 1, "n_images": 9, "top1": 70.2, "top1_low": 69.5, "top1_high": 70.8}
        frame = comparison.compare({"theirs": {"theirs": pl.DataFrame([row])}}, manifest("paper:resnet50"), {})
        assert frame.select("target", "ours", "verdict").rows() == [("theirs", 70.2, "within")]
    finally:
        paper_numbers.cache_clear()
