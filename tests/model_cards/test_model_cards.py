"""Model cards of the hub: what stands in them, what is refused, and that nothing is pushed but on request."""

import json

import pytest
import yaml

import ipvit
from helpers.hub_stand_in import REPOSITORY, hub
from helpers.small_runs import small_occlusion, told_by
from helpers.tiny import tiny_model
from ipvit.cli import main
from ipvit.model_cards.card import BEGIN, END, Source, card_of
from ipvit.model_cards.push import with_card

DATASET = "me/photos"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    models = [tiny_model(), tiny_model(1, name="second")]
    out = tmp_path_factory.mktemp("cards") / "run"
    experiments = [ipvit.Accuracy(), small_occlusion()]
    ipvit.run(experiments, models=models, data=told_by(models[0]), out=out, workers=0, limit=20, progress=False)
    return ipvit.Run(out)


@pytest.fixture
def card(run):
    return card_of(run, "tiny", Source("https://example.org/report", DATASET))


def cell(run, question):
    return next(row for row in run.profile.cells().to_dicts() if (row["model"], row["question"]) == ("tiny", question))


def test_the_metadata_are_the_numbers_of_the_profile_as_the_hubs_own_library_reads_them(run, card):
    from huggingface_hub.repocard_data import model_index_to_eval_results

    name, results = model_index_to_eval_results(card.index)
    assert name == "tiny" and {result.metric_type for result in results} == {"accuracy", "ipvit-occlusion-random"}
    for result in results:
        row = cell(run, "clean" if result.metric_type == "accuracy" else "occlusion-random")
        assert result.metric_value == pytest.approx(row["value"], abs=1e-4)
        assert result.metric_args["images"] == row["n_images"] == 20
        assert result.metric_args["interval_95"] == pytest.approx([row["low"], row["high"]], abs=1e-4)
        assert result.metric_args["protocol"] == row["protocol"] and result.metric_args["answers_among"] == "4 classes"
        assert result.dataset_type == DATASET and result.source_url == "https://example.org/report"
        assert result.dataset_args["note"] == "limited run: 20 of 30 images"


def test_the_entries_are_what_the_hubs_own_library_writes(run, card):
    helpers = pytest.importorskip("huggingface_hub", minversion="1.3")
    entries = helpers.parse_eval_result_entries(card.results)
    assert helpers.eval_result_entries_to_yaml(entries) == card.results
    (clean,) = [entry for entry in entries if entry.task_id == "clean"]
    assert clean.dataset_id == DATASET and clean.value == pytest.approx(cell(run, "clean")["value"], abs=1e-4)
    assert clean.date == run.manifest.finished
    for words in ("95 % interval [", "20 images", "among 4 classes", "limited run: 20 of 30 images", "guessing gives"):
        assert words in clean.notes


def test_the_table_has_protocol_answers_and_interval_of_every_number(run, card):
    lines = [line for line in card.table.splitlines() if line.startswith("| ")]
    assert lines[0] == "| question | number | 95 % interval | images | answers among | protocol |"
    row = cell(run, "clean")
    ends = f"[{row['low']:.1f}, {row['high']:.1f}]"
    assert f"| clean | {row['value']:.1f} % | {ends} | 20 | 4 classes | guessing gives 25.00 % |" in lines
    assert "Limited run: 20 of 30 images." in card.table
    assert card.table.startswith(BEGIN) and card.table.rstrip().endswith(END)


def test_a_readme_keeps_what_is_its_own_and_an_earlier_export_is_replaced(card):
    theirs = {"task": {"type": "image-classification"}, "dataset": {"type": "x", "name": "X"}, "metrics": []}
    metadata = {"license": "mit", "model-index": [{"name": "Net", "results": [theirs]}]}
    readme = f"---\n{yaml.safe_dump(metadata)}---\n# Net\n\nWords.\n"
    once = with_card(readme, card)
    head, text = once.split("---\n", 2)[1:]
    content = yaml.safe_load(head)
    assert content["license"] == "mit" and content["model-index"][0]["name"] == "Net"
    assert content["model-index"][0]["results"] == [theirs, *card.index[0]["results"]]
    assert text.startswith("# Net\n\nWords.\n\n") and card.table.strip() in text
    assert with_card(once, card) == once
    assert with_card("", card).endswith(card.table)


def test_files_are_written_and_nothing_is_pushed(run, tmp_path, capsys):
    with hub() as remote:
        assert main(["export", str(run.out), "--hub", "--model", "tiny", "--dataset", DATASET, "--json"]) == 0
        assert not remote.commits
    files = json.loads(capsys.readouterr().out)["files"]["tiny"]
    assert [path.removeprefix(f"{run.out}/hub/tiny/") for path in files] == [
        "model-index.yaml",
        "card.md",
        ".eval_results/ipvit.yaml",
    ]
    assert (
        yaml.safe_load((run.out / "hub" / "tiny" / "model-index.yaml").read_text())["model-index"][0]["name"] == "tiny"
    )


@pytest.mark.parametrize("pull_request", [False, True])
def test_a_push_is_one_commit_with_the_users_own_login(run, monkeypatch, capsys, pull_request, tmp_path):
    monkeypatch.setenv("HF_TOKEN", "hf_mine")
    with hub("---\nlicense: mit\n---\n# Net\n") as remote:
        monkeypatch.setenv("HF_ENDPOINT", remote.address)
        arguments = ["export", str(run.out), "--hub", "--model", "tiny", "--dataset", DATASET, "--push", REPOSITORY]
        assert main([*arguments, *(["--pull-request"] if pull_request else [])]) == 0
    (files,) = remote.commits
    assert set(files) == {"README.md", ".eval_results/ipvit.yaml"}
    assert files["README.md"].startswith("---\nlicense: mit\nmodel-index:") and "# Net\n" in files["README.md"]
    assert remote.tokens == {"Bearer hf_mine"} and remote.pull_requests == int(pull_request)
    assert ("discussions/1" if pull_request else "commit/1") in capsys.readouterr().out


def test_a_push_without_login_or_to_nowhere_is_refused_in_one_line(run, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    arguments = ["export", str(run.out), "--hub", "--model", "tiny", "--push"]
    assert main([*arguments, REPOSITORY]) == 2
    assert "nobody is logged in to the hub: `hf auth login`" in capsys.readouterr().err
    monkeypatch.setattr("huggingface_hub.get_token", lambda: "hf_mine")
    with hub("") as remote:
        monkeypatch.setenv("HF_ENDPOINT", remote.address)
        assert main([*arguments, "me/other"]) == 2
    assert "the hub has no model 'me/other' that this login may see" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ([], "export for what? --hub"),
        (["--hub", "--model", "third"], "has no model 'third'; it has tiny, second"),
        (["--hub", "--dataset", "photos"], "--dataset is OWNER/NAME on the hub, not 'photos'"),
        (["--hub", "--push", "https://hub/me/net"], "--push is OWNER/NAME"),
        (["--hub", "--push", REPOSITORY], "--push takes one model: choose one of tiny, second with --model"),
        (["--hub", "--pull-request"], "--pull-request goes with --push"),
        (["--hub", "--source-url", "report.html"], "--source-url is a web address"),
    ],
)
def test_a_mistake_is_one_line(run, capsys, more, words):
    assert main(["export", str(run.out), *more]) == 2
    said = capsys.readouterr().err
    assert words in said and said.count("\n") == 1


def test_numbers_that_say_nothing_are_not_for_a_card(tmp_path, capsys):
    model = ipvit.load_model("demo:resnet_micro", pretrained=False)
    data = ipvit.load_dataset("demo:trifeature")
    ipvit.run(ipvit.Accuracy(), models=model, data=data, out=tmp_path, limit=8, workers=0, progress=False)
    assert main(["export", str(tmp_path), "--hub"]) == 2
    assert "has random weights: its numbers say nothing. They are not for a model card" in capsys.readouterr().err
