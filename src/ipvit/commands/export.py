"""``ipvit export``: a model card's metadata and table of a run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ipvit.commands.options import Flag
from ipvit.core.files import path_component, write_atomic
from ipvit.core.links import refuse_links
from ipvit.core.terminal import Terminal, print_json
from ipvit.errors import InputError

if TYPE_CHECKING:
    from ipvit.model_cards.card import ModelCard

FOLDER = "hub"


def export(
    folder: Path,
    /,
    *,
    hub: Flag = False,
    model: str | None = None,
    dataset: str = "",
    source_url: str = "",
    push: str | None = None,
    pull_request: Flag = False,
    json: Flag = False,
) -> int:
    """Write what a run says of its models as model cards of the Hugging Face hub have it.

    One folder a model, hub/MODEL in the run folder: model-index.yaml for the metadata of its card, card.md with a table
    for its text, and .eval_results/ipvit.yaml. Nothing leaves this computer without --push.

    Parameters
    ----------
    folder
        A run folder.
    hub
        For the Hugging Face hub; there is no other format yet.
    model
        This model of the run alone, by its name in the tables. [default: all]
    dataset
        OWNER/NAME of the data set on the hub. [default: ILSVRC/imagenet-1k for ImageNet's validation images, else none]
    source_url
        Where the numbers can be looked up, for example the address of the report.
    push
        OWNER/NAME of the model's repository: commit the numbers there, with your own login (hf auth login).
    pull_request
        With --push: open a pull request instead of committing.
    json
        Print what was written as JSON on standard output, nothing else.
    """
    from ipvit.model_cards.card import Source, card_of
    from ipvit.results import Run

    if not hub:
        raise InputError("export for what? --hub writes model cards of the Hugging Face hub")
    if pull_request and push is None:
        raise InputError("--pull-request goes with --push OWNER/NAME")
    for option, name in (("--dataset", dataset), ("--push", push or "")):
        if name and (name.count("/") != 1 or not all(name.split("/")) or ":" in name):
            raise InputError(f"{option} is OWNER/NAME on the hub, not {name!r}")
    if source_url and not source_url.startswith(("https://", "http://")):
        raise InputError(f"--source-url is a web address, not {source_url!r}")
    run = Run(folder)
    names = [used.name for used in run.manifest.models] if model is None else [model]
    if push is not None and len(names) != 1:
        raise InputError(f"--push takes one model: choose one of {', '.join(names)} with --model")
    cards: list[ModelCard] = []
    left_out: list[str] = []
    for name in names:
        try:
            cards.append(card_of(run, name, Source(source_url, dataset)))
        except InputError as error:
            if len(names) == 1:
                raise
            left_out.append(str(error))
    if not cards:
        raise InputError(left_out[0])
    written = {card.model: _write(card, folder) for card in cards}
    address = None
    if push is not None:
        from ipvit.model_cards.push import push as push_card

        address = push_card(cards[0], push, pull_request=pull_request)
    missing = [*dict.fromkeys(card.missing for card in cards if card.missing)]
    if json:
        files = {name: [str(path) for path in paths] for name, paths in written.items()}
        return print_json({"files": files, "left_out": left_out, "missing": missing, "pushed": address})
    console = Terminal(soft_wrap=True, highlight=False)
    for name, paths in written.items():
        console.print(f"{name}: {', '.join(str(path) for path in paths)}")
    for sentence in (*missing, *(f"left out: {text}" for text in left_out)):
        console.print(sentence, style="yellow")
    if address is not None:
        console.print(f"pushed: {address}")
    return 0


def _write(card: ModelCard, folder: Path) -> list[Path]:
    root = folder / FOLDER / path_component(card.model)
    paths: list[Path] = []
    for name, text in card.files().items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        refuse_links(folder / FOLDER)
        write_atomic(path, text.encode())
        paths.append(path)
    return paths
