"""Kinds of networks: the unit is the network, and three and three are the least."""

from __future__ import annotations

import json

import pytest

import ipvit
from helpers.command_line import complaint
from helpers.small_runs import small_occlusion, told_by
from helpers.tiny import tiny_model
from ipvit.cli import main
from ipvit.metrics import holm
from ipvit.verdicts.families import read_groups


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> ipvit.Run:
    """Seven networks: the labels are what the first one says, so that it alone is right on everything."""
    return ipvit.run(
        [ipvit.Accuracy(), small_occlusion()],
        models=[tiny_model(seed, name=f"net{seed}") for seed in range(8)],
        data=told_by(tiny_model()),
        out=tmp_path_factory.mktemp("families") / "run",
        progress=False,
        workers=0,
    )


def test_groups_are_compared_by_the_means_of_their_networks(run):
    groups = {"even": ["net0", "net2", "net4", "net6"], "odd": ["net1", "net3", "net5", "net7"]}
    found = ipvit.families(run, groups)
    clean = found.table.to_dicts()[0]
    top1 = dict(run.tables["accuracy"].select("model", "top1").iter_rows())
    means = [sum(top1[model] for model in models) / 4 for models in groups.values()]
    assert (clean["question"], clean["n_a"], clean["n_b"]) == ("clean", 4, 4)
    assert [clean["mean_a"], clean["mean_b"], clean["difference"]] == pytest.approx([*means, means[0] - means[1]])
    assert clean["p"] == pytest.approx(
        ipvit.metrics.permutation_difference([top1[m] for m in groups["even"]], [top1[m] for m in groups["odd"]]).p
    )
    known = [row["p"] for row in found.table.to_dicts() if row["p"] is not None]
    assert [row["p_holm"] for row in found.table.to_dicts() if row["p"] is not None] == pytest.approx(
        holm(known).tolist()
    )


def test_networks_without_a_value_are_named_and_do_not_count(run):
    found = ipvit.families(run, {"a": ["net0", "net1", "net2"], "b": ["net3", "net4", "net5"]})
    assert any("left out, not above chance" in sentence for sentence in found.told)


def test_below_three_and_three_there_is_no_verdict(run):
    found = ipvit.families(run, {"a": ["net0", "net1"], "b": ["net2", "net3", "net4"]})
    assert found.table["p"].null_count() == found.table.height and not found.verdicts()
    assert found.table["difference"].null_count() == 0
    assert any("No verdict with fewer than 3 networks" in sentence for sentence in found.told)


def test_the_text_says_what_it_rests_on_and_what_so_few_can_show(run, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    groups = ["--group", "a=net0,net1,net2", "--group", "b=net3,net4,net5"]
    assert main(["diff", str(run.out), *groups]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "The unit is the network: a 3 networks, b 3 networks." in told
    assert "The smallest p-value that so many networks can give is 0.1" in told
    assert "nothing could be significant at 5 %" in told and "No two groups are told apart." in told
    assert main(["diff", str(run.out), *groups, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["unit"] == "network"


@pytest.mark.parametrize(
    ("groups", "said"),
    [
        (["a=net0,net1"], "one group has nothing to be compared with"),
        (["a=net0,net1", "net2,net3"], "write NAME=MODEL,MODEL,MODEL"),
        (["a=net0,net1", "a=net2,net3"], "'a' is given twice"),
        (["a=net0,net1", "b=net2,nets3"], "has no model 'nets3'; there are: net0"),
        (["a=net0,net1", "b=net1,net2"], "net1 is in the groups a and b; a network counts once"),
        (["a=net0,net0", "b=net1,net2"], "net0 is in a twice"),
    ],
)
def test_what_are_no_groups_is_one_clear_line(run, groups, said, capsys):
    assert main(["diff", str(run.out), *(part for group in groups for part in ("--group", group))]) == 2
    assert said in complaint(capsys)


def test_one_run_is_enough_with_groups_and_too_few_without(run, capsys):
    assert main(["diff", str(run.out)]) == 2
    assert "a second run is missing" in complaint(capsys)
    groups = ["--group", "a=net0", "--group", "b=net1"]
    assert main(["diff", str(run.out), "other", *groups]) == 2
    assert "leave out 'other'" in complaint(capsys)
    assert read_groups(["a=x=y,z", "b=c"]) == {"a": ["x=y", "z"], "b": ["c"]}
