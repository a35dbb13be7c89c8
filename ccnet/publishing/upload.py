"""Upload: one commit on the Hugging Face Hub, read back and held against what was sent."""

import tempfile
from collections.abc import Mapping
from pathlib import Path

from huggingface_hub import (
    CommitOperationAdd,
    HfApi,
    get_hf_file_metadata,
    get_token,
    hf_hub_url,
)
from huggingface_hub.constants import SAFETENSORS_SINGLE_FILE
from huggingface_hub.errors import (
    HfHubHTTPError,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from ccnet.files import sha256_of
from ccnet.weights.hub import fetch_file
from ccnet.weights.pins import Pin, check_pin
from ccnet.weights.retries import status_of


def check_account(owner: str) -> None:
    """Checks that the Hub knows this token, and that it belongs to an owner of repositories.

    Raises:
        OSError: if the Hub cannot be asked, or refuses the token.
        ValueError: if there is no token, or it is of somebody else.
    """
    if get_token() is None:
        raise ValueError("no token: set HF_TOKEN, or run `hf auth login`")
    account = HfApi().whoami()
    names = [account["name"], *(one["name"] for one in account.get("orgs", []))]
    if owner.lower() not in map(str.lower, names):
        raise ValueError(f"the token is of {' and '.join(names)}, not of {owner}")


def upload(
    files: Mapping[str, Path], repo_id: str, *, private: bool = False, progress: bool = True
) -> Pin:
    """Uploads files as one commit, and reads them back.

    A repository is created if need be. What it has already is not sent again; where that is
    everything, there is no new commit.

    Args:
        files: by their names in the repository, model.safetensors among them.
        repo_id: "owner/name".
        private: whether a new repository is private.
        progress: show progress bars of what is read back.

    Returns:
        The pin of the weights.

    Raises:
        OSError: if the Hub cannot be reached, refuses, or the branch moved meanwhile.
        ValueError: if the Hub gives something else than what was sent.
    """
    api = HfApi()
    api.create_repo(repo_id, exist_ok=True, private=private or None)
    head = api.repo_info(repo_id).sha
    try:
        commit = api.create_commit(
            repo_id,
            [CommitOperationAdd(name, path) for name, path in files.items()],
            commit_message="Weights, configuration and card",
            parent_commit=head,
        )
    except HfHubHTTPError as error:
        if status_of(error) != 412:
            raise
        raise OSError(
            f"somebody else committed to {repo_id} meanwhile: look at it, and run this again"
        ) from error
    pin = {
        "repo_id": repo_id,
        "revision": commit.oid,
        "filename": SAFETENSORS_SINGLE_FILE,
        "sha256": sha256_of(files[SAFETENSORS_SINGLE_FILE]),
    }
    check_pin(pin)
    with tempfile.TemporaryDirectory() as cache:
        for name, path in files.items():
            received = fetch_file(repo_id, name, commit.oid, cache_dir=cache, progress=progress)
            found, sent = sha256_of(received), sha256_of(path)
            if found != sent:
                raise ValueError(
                    f"hf://{repo_id}@{commit.oid}/{name} is not what was uploaded: "
                    f"its SHA-256 is {found}, not {sent}"
                )
    return pin


def is_published(pin: Pin) -> bool:
    """Asks the Hub whether it still has the file of a pin; downloads nothing.

    Raises:
        OSError: if the Hub cannot be asked.
    """
    url = hf_hub_url(pin["repo_id"], pin["filename"], revision=pin["revision"])
    try:
        return get_hf_file_metadata(url).etag == pin["sha256"]
    except (RepositoryNotFoundError, RevisionNotFoundError, RemoteEntryNotFoundError):
        return False
