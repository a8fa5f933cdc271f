"""Every study of the paper, run to its end in small: each number that can be measured is found."""

import json

import pytest

from helpers.whole_paper import (
    one_of_each_superclass,
    shortened,
    whole_paper,
    write_checkpoints,
    write_imagenet,
    write_trees,
)
from ipvit.commands.paper_studies import find, paper_studies
from ipvit.commands.preflight import Sources
from ipvit.commands.reproduction import Reproduction
from ipvit.core.run_config import RunConfig
from ipvit.experiments.registry import paper_numbers

CONFIG = RunConfig(workers=0, batch_size=16, progress=False)


@pytest.mark.slow
def test_each_of_the_787_numbers_that_can_be_measured_is_found_where_its_study_is_run(tmp_path, capsys):
    found: dict[tuple[str, str, str], dict] = {}
    with whole_paper():
        weights, data = write_checkpoints(tmp_path / "weights"), write_trees(tmp_path / "data")
        superclasses = write_imagenet(tmp_path / "superclasses", one_of_each_superclass())
        figure_5 = find("figure-5")
        others = [study for study in paper_studies().values() if study not in figure_5]
        for studies, places in ((figure_5, data | {"imagenet": str(superclasses)}), (others, data)):
            run = Reproduction([shortened(study) for study in studies], tmp_path / f"run{len(studies)}", CONFIG)
            assert run.run(Sources(places, weights, []), partial=False, json=True) == 0
            told = json.loads(capsys.readouterr().out)
            for row in told["quantities"]:
                if row["ours"] is not None:
                    found[row["target"], row["network"], row["what"]] = row
    numbers = {(number.key, number.title, number.what): number for number in paper_numbers()}
    measurable = {key for key, number in numbers.items() if number.cells}
    assert len(numbers) == 808 and len(measurable) == 787
    assert measurable - found.keys() == set() and found.keys() <= measurable
    assert {row["verdict"] for row in found.values()} <= {"too uncertain", None}, "a few images are a part of the data"
    assert all(number.why_not for key, number in numbers.items() if key not in measurable)
