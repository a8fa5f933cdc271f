"""Assertions: the grammar, the names that are checked first, what decides, the exit code, and the JUnit file."""

from __future__ import annotations

import json
from xml.etree import ElementTree

import pytest

import ipvit
from helpers.command_line import complaint
from helpers.paths import KEPT
from helpers.small_runs import Picky, photos, small_occlusion, told_by
from helpers.tiny import tiny_model
from ipvit.cli import main
from ipvit.verdicts.checking import check_planned, columns_of
from ipvit.verdicts.deciding import decide
from ipvit.verdicts.grammar import Bound, NoWorse, Quantity, Within, parse, read

OLD = KEPT / "runs"


def measure(out, model=None, experiments=None, **options) -> ipvit.Run:
    return ipvit.run(
        experiments or [ipvit.Accuracy(), small_occlusion()],
        models=model or tiny_model(),
        data=options.pop("data", None) or told_by(tiny_model()),
        out=out,
        progress=False,
        workers=0,
        **options,
    )


@pytest.fixture(scope="module")
def versions(tmp_path_factory):
    root = tmp_path_factory.mktemp("asserted")
    return measure(root / "v1"), measure(root / "v2", tiny_model(seed=3))


# --- the grammar ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "quantity", "claim"),
    [
        (
            "occlusion.top1[information_loss=0.5] >= 40",
            Quantity("occlusion", "top1", (("information_loss", "0.5"),)),
            Bound(">=", 40),
        ),
        ("accuracy.top1 no-worse-than runs/v1 by 1", Quantity("accuracy", "top1"), NoWorse("runs/v1", 1)),
        ("accuracy.top1 no-worse-than runs/by 2", Quantity("accuracy", "top1"), NoWorse("runs/by 2", 0)),
        (
            "accuracy.top1 no-worse-than my runs/a by b by .5",
            Quantity("accuracy", "top1"),
            NoWorse("my runs/a by b", 0.5),
        ),
        (
            "profile.corruptions within 2 of runs/v1:tin50:deit",
            Quantity("profile", "corruptions"),
            Within("runs/v1:tin50:deit", 2),
        ),
        (
            ' probe-gain.difference[ blocks=8-11, model = "a, b]" ]<-1e-1',
            Quantity("probe-gain", "difference", (("blocks", "8-11"), ("model", "a, b]"))),
            Bound("<", -0.1),
        ),
    ],
)
def test_an_assertion_is_a_quantity_and_a_claim(text, quantity, claim):
    found = parse(text)
    assert (found.quantity, found.claim) == (quantity, claim)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "it begins with TABLE.MEASURE"),
        ("occlusion >= 4", "it begins with TABLE.MEASURE"),
        ("occlusion.top1", "it says nothing of the quantity"),
        ("occlusion.top1 == 4", "a measured number equals none"),
        ("occlusion.top1 >= many", "is none of"),
        ("occlusion.top1[] >= 4", "there is nothing between the brackets"),
        ("occlusion.top1[mode] >= 4", "between the brackets stand COLUMN=VALUE"),
        ("occlusion.top1[mode=a,mode=b] >= 4", "'mode' stands twice"),
        ("occlusion.top1 within -2 of runs/v1", "a margin is 0 or more, not -2"),
        ("occlusion.top1 within 2 of", "is none of"),
        ("occlusion.top1 no-worse-than", "is none of"),
    ],
)
def test_what_is_no_assertion_is_said_with_what_one_looks_like(text, said):
    with pytest.raises(ipvit.InputError, match="for example 'occlusion.top1") as error:
        parse(text)
    assert said in str(error.value)


def test_a_file_has_one_assertion_a_line(tmp_path):
    file = tmp_path / "gates.txt"
    file.write_text("# what a release must keep\naccuracy.top1 >= 70  # of 100\n\nprofile.clean within 2 of runs/v1\n")
    assert [one.text for one in read([f"@{file}", "a.b > 1"])] == [
        "accuracy.top1 >= 70",
        "profile.clean within 2 of runs/v1",
        "a.b > 1",
    ]
    file.write_text("accuracy.top1 >= 70\naccuracy.top1\n")
    with pytest.raises(ipvit.InputError, match=r"gates.txt, line 2: "):
        read([f"@{file}"])
    with pytest.raises(ipvit.InputError, match="cannot be read: No such file"):
        read(["@nix.txt"])


# --- names are checked before anything is measured --------------------------------------------------------------------


def test_every_column_of_every_table_may_be_named_before_it_is_made():
    run = ipvit.Run(OLD / "all-experiments")
    for name, experiment in run.experiments.items():
        for key, table in run.tables_of(name).items():
            numeric = [column for column in table.columns if table.schema[column].is_numeric()]
            check_planned([parse(f"{key}.{column} >= 0") for column in numeric], [experiment])
            known = columns_of(experiment.analysis(), key) | {"model"}
            assert set(table.columns) <= known, (key, set(table.columns) - known)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "accurracy.top1 >= 4",
            "this study makes no table 'accurracy'; there are: accuracy, occlusion. Did you mean 'accuracy'?",
        ),
        (
            "occlusion-areas.top1 >= 4",
            "occlusion makes no table 'occlusion-areas'; there are: occlusion, occlusion-area.",
        ),
        ("occlusion.topl >= 4", "occlusion has no measure 'topl'"),
        ("occlusion.top1[inform=0.5] >= 4", "occlusion has no column 'inform'"),
        ("profile.corruption within 2 of {v1}", "the profile of this study has no question 'corruption'"),
        ("accuracy.top1 no-worse-than nix by 1", "'nix' is not a run folder"),
        ("accuracy.top1 no-worse-than {v1}:other by 1", "has no model 'other'; there are: tiny."),
        (
            "accuracy.top5 no-worse-than {v1} by 1",
            "accuracy.top5 is not compared image by image; compared are accuracy.top1",
        ),
    ],
)
def test_a_wrong_name_is_told_before_anything_is_measured(here, versions, text, said, capsys):
    study = "{models: ['net.py:make'], data: images, workers: 0, experiments: {accuracy: {}, occlusion: {grid: 4x4}}}"
    (here / "study.yaml").write_text(study)
    text = text.format(v1=versions[0].out)
    assert main(["run", "study.yaml", "--out", "run", "--quiet", "--assert", text]) == 2
    assert said in complaint(capsys)
    assert not (here / "run").exists()


def test_a_shard_is_not_judged(here, capsys):
    command = ["accuracy", "-m", "net.py:make", "-d", "images", "--out", "run", "--shard", "1/2"]
    assert main([*command, "--assert", "accuracy.top1 >= 1"]) == 2
    assert "--assert is for whole runs" in complaint(capsys)


# --- what decides -----------------------------------------------------------------------------------------------------


def holds(text: str, run: ipvit.Run) -> bool:
    (found,) = decide([parse(text)], run)
    return found.holds


def test_at_least_is_decided_by_the_lower_end_of_the_interval(versions):
    row = versions[0].tables["occlusion"].to_dicts()[2]
    assert row["information_loss"] == 0.5
    where = "occlusion.top1[information_loss=.5]"
    assert holds(f"{where} >= {row['top1_low'] - 0.01}", versions[0])
    assert not holds(f"{where} >= {row['top1']}", versions[0])
    assert holds(f"{where} <= {row['top1_high'] + 0.01}", versions[0])
    assert not holds(f"{where} <= {row['top1']}", versions[0])


def test_every_row_that_is_meant_must_hold(versions):
    lows = versions[0].tables["occlusion"]["top1_low"].to_list()
    assert holds(f"occlusion.top1 >= {min(lows) - 0.01}", versions[0])
    (found,) = decide([parse(f"occlusion.top1 >= {sorted(lows)[1] + 0.01}")], versions[0])
    assert not found.holds and len(found.rows) == 2 and "2 of 4 rows do not hold" in found.why


def test_a_column_that_all_rows_share_may_be_named(versions):
    assert holds("occlusion.top1[mode=random,grid=4x4,model=tiny] >= 0", versions[0])
    with pytest.raises(ipvit.InputError, match="no row of occlusion has grid=8x8; there are: 4x4"):
        holds("occlusion.top1[grid=8x8] >= 0", versions[0])
    with pytest.raises(ipvit.InputError, match=r"no row of occlusion has information_loss=0.6; there are: 0.0, 0.3"):
        holds("occlusion.top1[information_loss=0.6] >= 0", versions[0])


def test_a_count_has_no_interval_and_is_itself_compared(versions):
    assert holds("accuracy.n_images >= 30", versions[0]) and not holds("accuracy.n_images > 30", versions[0])


def test_no_worse_is_decided_by_the_lower_end_of_the_paired_interval(versions):
    old, new = versions
    low = ipvit.diff(old, new).tables["accuracy"]["difference_low"][0]
    assert low < 0
    assert holds(f"accuracy.top1 no-worse-than {old.out} by {-low + 0.1}", new)
    assert not holds(f"accuracy.top1 no-worse-than {old.out} by {-low - 0.1}", new)
    assert not holds(f"accuracy.top1 no-worse-than {old.out}", new)


def test_within_needs_the_whole_paired_interval(versions):
    old, new = versions
    row = ipvit.diff(old, new).profile.to_dicts()[0]
    far = max(-row["difference_low"], row["difference_high"])
    assert holds(f"profile.clean within {far + 0.1} of {old.out}", new)
    assert not holds(f"profile.clean within {far - 0.1} of {old.out}", new)


def test_a_difference_without_an_interval_does_not_hold(tmp_path):
    """All images share one mask: nobody knows how sure the difference is."""
    runs = [
        measure(tmp_path / name, tiny_model(seed), [small_occlusion(mask_scope="batch", levels=(0, 0.5))])
        for name, seed in (("a", 0), ("b", 1))
    ]
    assert not holds(f"occlusion.top1[information_loss=0.5] within 100 of {runs[0].out}", runs[1])


def test_a_model_is_compared_with_the_one_that_is_named(tmp_path, versions):
    both = measure(tmp_path / "both", [tiny_model(name="one"), tiny_model(3, name="two")])
    reference = f"{versions[0].out}:tiny"
    same, other = (
        decide([parse(f"accuracy.top1[model={name}] within 20 of {reference}")], both)[0] for name in ("one", "two")
    )
    assert same.holds and not other.holds


def test_more_of_what_is_neither_better_nor_worse_is_not_asserted():
    run = ipvit.Run(OLD / "all-experiments")
    with pytest.raises(ipvit.InputError, match="neither better nor worse; write 'within NUMBER of RUN'"):
        holds(f"profile.shape-bias[model=deit] no-worse-than {OLD / 'all-experiments'}:resnet by 1", run)


def test_rows_of_a_part_that_failed_do_not_hold(tmp_path):
    run = measure(tmp_path / "run", experiments=[Picky(bad=(3,))], data=photos(8))
    assert not holds("picky.correct >= 0", run)
    assert not holds("picky.correct[number=3] >= 0", run)
    (found,) = decide([parse("picky.correct[number=3] >= 0")], run)
    assert found.why.startswith("picky (number=3) failed on tiny: RuntimeError")


# --- on the command line ----------------------------------------------------------------------------------------------


def command(*more: str) -> list[str]:
    return ["accuracy", "-m", "net.py:make", "-d", "images", "--workers", "0", "--out", "run", *more]


def test_exit_code_3_says_that_an_assertion_does_not_hold_and_what_decided(here, capsys):
    assert main(command("--assert", "accuracy.top1 >= 0", "--junit", "junit.xml")) == 0
    assert "holds: accuracy.top1 >= 0: " in capsys.readouterr().out
    gates = ("--assert", "accuracy.top1 >= 100", "--assert", "accuracy.n_images >= 20", "--junit", "junit.xml")
    assert main(command(*gates)) == 3
    assert "does not hold: accuracy.top1 >= 100: " in capsys.readouterr().out
    suites = ElementTree.parse(here / "junit.xml").getroot()
    assert suites.attrib["tests"] == "2" and suites.attrib["failures"] == "1"
    cases = suites.findall("testsuite/testcase")
    assert [case.attrib["name"] for case in cases] == ["accuracy.top1 >= 100", "accuracy.n_images >= 20"]
    assert [case.find("failure") is not None for case in cases] == [True, False]
    assert (here / "run" / "report.html").is_file(), "what was measured is there"
    assert main(["report", "run", "--assert", "accuracy.top1 >= 100"]) == 3
    assert main(["report", "run", "--assert", "accuracy.top1 <= 100"]) == 0


def test_json_has_what_was_decided_and_standard_output_nothing_else(here, capsys):
    assert main(command("--json", "--assert", "accuracy.top1 >= 100")) == 3
    captured = capsys.readouterr()
    (found,) = json.loads(captured.out)["assertions"]
    assert found["assertion"] == "accuracy.top1 >= 100" and not found["holds"]
    assert "does not hold: " in captured.err


def test_an_assertion_that_does_not_hold_goes_before_a_failure(here):
    broken = ["accuracy", "-m", "net.py:make", "-m", "net.py:broken", "-d", "images", "--workers", "0", "--quiet"]
    assert main([*broken, "--out", "one"]) == 1
    assert main([*broken, "--out", "two", "--assert", "accuracy.top1 >= 0"]) == 3, "a row is missing"
    assert main([*broken, "--out", "two", "--assert", "accuracy.top1[model=net.py:make] >= 0"]) == 1


def test_diff_asserts_of_the_second_run(versions, capsys):
    old, new = (str(run.out) for run in versions)
    assert main(["diff", old, new, "--assert", f"accuracy.top1 no-worse-than {old} by 1", "--json"]) == 3
    found = json.loads(capsys.readouterr().out)
    assert [one["holds"] for one in found["assertions"]] == [False]
    assert main(["diff", old, new, "--assert", f"accuracy.top1 no-worse-than {old} by 99"]) == 0


def test_a_value_that_no_row_has_is_told_after_the_tables_were(here, capsys):
    assert main(command("--assert", "accuracy.top1[model=other] >= 1")) == 2
    captured = capsys.readouterr()
    assert "top-1" in captured.out and "no row of accuracy has model=other; there are: net.py:make" in captured.err
