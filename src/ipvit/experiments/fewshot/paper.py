"""Figure 16, right: few-shot learning."""

from __future__ import annotations

from collections.abc import Iterator

from ipvit.analysis.data_names import PAPER_NAMES, scheme_of
from ipvit.analysis.paper_numbers import PaperNumber, TableCell, measured, network, targets
from ipvit.data.published.meta_dataset import META_DATASET, classes_for_tests

_FREE = frozenset({"episodes", "count", "queries", "classifiers", "blocks", "penalty", "features", "store"})


def paper_numbers() -> Iterator[PaperNumber]:
    """Yield the numbers of the paper that this experiment measures."""
    key = "fig16_fewshot"
    entry = targets()[key]
    for name, values in measured(entry).items():
        title = name.removesuffix("-ens")
        episodes = {"kind": "meta-dataset", "classifier": "logistic", "blocks": 4 if name.endswith("-ens") else 1}
        for printed, share in zip(entry["cols"], values, strict=True):
            data = scheme_of(printed)
            some = data in classes_for_tests()  # of the other sets all classes are drawn from
            cell = TableCell(
                "fewshot",
                "accuracy",
                episodes | {"patches": False, "weight": 1.0},
                settings={"patches": False, "strength": 1.0} | ({"only": (META_DATASET,)} if some else {}),
                free=_FREE if some else _FREE | {"only"},
            )
            yield PaperNumber(
                key,
                "Figure 16 (few-shot)",
                name,
                f"accuracy (%), {printed}",
                round(100 * share, 1),
                100 * entry["tol"],
                entry["src"],
                (cell,),
                data,
                network=network(title),
                drawn={"model": title, "data_set": PAPER_NAMES[data], **episodes},
            )
