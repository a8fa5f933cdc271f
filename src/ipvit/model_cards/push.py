"""Bring a card to a repository of the hub: on request, with the user's own login, in one commit or pull request."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, cast

import yaml

from ipvit.errors import InputError, error_line
from ipvit.model_cards.card import BEGIN, END, RESULTS, ModelCard, as_yaml

if TYPE_CHECKING:
    from huggingface_hub import HfApi

README = "README.md"


def with_card(readme: str, card: ModelCard) -> str:
    """Return a README with a model's numbers in its metadata and their table in its text; all else stays.

    Numbers and a table of an earlier export are replaced.

    Raises:
        InputError: its metadata are no YAML mapping.
    """
    metadata, text = _parted(readme)
    earlier = metadata.get("model-index")
    kept = (
        [entry for entry in cast("list[Any]", earlier) if isinstance(entry, dict)] if isinstance(earlier, list) else []
    )
    name = str(kept[0].get("name") or card.model) if kept else card.model
    others = [result for entry in kept for result in entry.get("results") or [] if not _is_ours(result)]
    metadata["model-index"] = [{"name": name, "results": [*others, *card.index[0]["results"]]}]
    begin, end = text.find(BEGIN), text.find(END)
    table = card.table.rstrip("\n")
    if 0 <= begin < end:
        text = f"{text[:begin]}{table}{text[end + len(END) :]}"
    else:
        text = f"{text.rstrip()}\n\n{table}\n" if text.strip() else f"{table}\n"
    return f"---\n{as_yaml(metadata)}---\n{text}"


def push(card: ModelCard, repository: str, *, pull_request: bool = False, endpoint: str | None = None) -> str:
    """Commit a card to a repository of the hub; return the address of the commit or pull request.

    Args:
        card: what is exported.
        repository: ``OWNER/NAME``; it must be there.
        pull_request: open one instead of committing to the main branch.
        endpoint: of another hub; by default ``HF_ENDPOINT``, or the public one.

    Raises:
        InputError: nobody is logged in, there is no such repository, or it may not be written to.
    """
    from huggingface_hub import CommitOperationAdd, HfApi, get_token
    from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError

    if get_token() is None:
        raise InputError("nobody is logged in to the hub: `hf auth login`, or HF_TOKEN, then the same command again")
    api = HfApi(endpoint=endpoint or os.environ.get("HF_ENDPOINT"), library_name="ipvit")
    try:
        made = {README: with_card(_readme(api, repository), card)}
        if card.results:
            made[RESULTS] = card.files()[RESULTS]
        changes = [CommitOperationAdd(path_in_repo=name, path_or_fileobj=text.encode()) for name, text in made.items()]
        done = api.create_commit(
            repository, changes, commit_message="Numbers measured with ipvit", create_pr=pull_request
        )
    except RepositoryNotFoundError:
        raise InputError(f"the hub has no model {repository!r} that this login may see") from None
    except HfHubHTTPError as error:
        raise InputError(f"the hub did not take it: {error_line(error, 300)}") from None
    return str(done.pr_url or done.commit_url)


def _readme(api: HfApi, repository: str) -> str:
    """Return the README of a repository as it is now; empty where there is none."""
    from huggingface_hub import hf_hub_url
    from huggingface_hub.errors import EntryNotFoundError
    from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status

    response = get_session().get(hf_hub_url(repository, README, endpoint=api.endpoint), headers=build_hf_headers())
    try:
        hf_raise_for_status(response)
    except EntryNotFoundError:
        return ""
    return response.text


def _parted(readme: str) -> tuple[dict[str, Any], str]:
    """Return the metadata on top of a README, and its text."""
    lines = readme.split("\n")
    if lines[0].strip() != "---" or "---" not in (line.strip() for line in lines[1:]):
        return {}, readme
    end = next(number for number, line in enumerate(lines[1:], 1) if line.strip() == "---")
    try:
        found: object = yaml.safe_load("\n".join(lines[1:end]))
    except yaml.YAMLError as error:
        raise InputError(f"the metadata of the repository's {README} are no YAML: {error_line(error, 200)}") from None
    if found is not None and not isinstance(found, dict):
        raise InputError(f"the metadata of the repository's {README} are no mapping")
    return dict(cast("dict[str, Any]", found or {})), "\n".join(lines[end + 1 :])


def _is_ours(result: Any) -> bool:
    """Tell whether a result of a ``model-index`` was exported by us: no one else has such metrics."""
    if not isinstance(result, dict):
        return False
    dataset = cast("dict[str, Any]", result).get("dataset")
    about = cast("dict[str, Any]", dataset).get("args") if isinstance(dataset, dict) else None
    return isinstance(about, dict) and "fingerprint" in about
