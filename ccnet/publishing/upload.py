"""Upload: one commit on the Hugging Face Hub, read back and held against what was sent."""

import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TypeVar

from huggingface_hub import (
    CommitOperationAdd,
    HfApi,
    constants,
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
from ccnet.weights.hub import fetch_file, in_one_line
from ccnet.weights.pins import Pin, check_pin
from ccnet.weights.retries import FAILURES, Patience, status_of

Answer = TypeVar("Answer")


def check_account(owner: str) -> None:
    """Checks that the Hub knows this token, and that it may write to what an owner has.

    Raises:
        OSError: if the Hub cannot be asked, or refuses the token.
        ValueError: if there is no token, or it is of somebody else, or may only read.
    """
    if get_token() is None:
        raise ValueError("no token: set HF_TOKEN, or run `hf auth login`")
    with _named(constants.ENDPOINT):
        account = _patiently(constants.ENDPOINT, HfApi().whoami)
    names = [account["name"], *(one["name"] for one in account.get("orgs", []))]
    if owner not in names:
        raise ValueError(f"the token is of {' and '.join(names)}, not of {owner}")
    if account.get("auth", {}).get("accessToken", {}).get("role") == "read":
        raise ValueError("the token may only read: make one that may write")


def upload(
    files: Mapping[str, Path], repo_id: str, *, private: bool = False, progress: bool = True
) -> Pin:
    """Uploads files as one commit, and reads them back.

    A repository is created if need be. What it has already is not sent again; where that is
    everything, there is no new commit. What a busy server may do better next time is retried.

    Args:
        files: by their names in the repository, model.safetensors among them.
        repo_id: "owner/name".
        private: whether a new repository is private.
        progress: show progress bars of what is read back.

    Returns:
        The pin of the weights.

    Raises:
        OSError: if the Hub cannot be reached, refuses, or the branch moved meanwhile; in one line.
        ValueError: if the Hub gives something else than what was sent.
    """
    with _named(f"hf://{repo_id}"):
        revision = _patiently(f"hf://{repo_id}", partial(_commit, files, repo_id, private))
    pin = {
        "repo_id": repo_id,
        "revision": revision,
        "filename": SAFETENSORS_SINGLE_FILE,
        "sha256": sha256_of(files[SAFETENSORS_SINGLE_FILE]),
    }
    check_pin(pin)
    with tempfile.TemporaryDirectory() as cache:
        for name, path in files.items():
            place = f"hf://{repo_id}@{revision}/{name}"
            with _named(place):
                received = fetch_file(repo_id, name, revision, cache_dir=cache, progress=progress)
            found, sent = sha256_of(received), sha256_of(path)
            if found != sent:
                raise ValueError(
                    f"{place} is not what was uploaded: its SHA-256 is {found}, not {sent}"
                )
    return pin


def is_published(pin: Pin) -> bool:
    """Asks the Hub whether it still has the file of a pin; downloads nothing.

    Raises:
        OSError: if the Hub cannot be asked; in one line.
    """
    url = hf_hub_url(pin["repo_id"], pin["filename"], revision=pin["revision"])
    with _named(url):
        try:
            return _patiently(url, partial(get_hf_file_metadata, url)).etag == pin["sha256"]
        except (RepositoryNotFoundError, RevisionNotFoundError, RemoteEntryNotFoundError):
            return False


def _commit(files: Mapping[str, Path], repo_id: str, private: bool) -> str:
    """Makes a commit of files, unless the last one has them all; returns its name.

    Safe to be tried again after any answer: the commit may have been made all the same.
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
        raise OSError("somebody else committed meanwhile: look at it, and run this again") from (
            error
        )
    return commit.oid


def _patiently(place: str, ask: Callable[[], Answer]) -> Answer:
    """Asks again where that may help."""
    patience = Patience(place)
    while True:
        try:
            return ask()
        except FAILURES as error:
            patience.wait(error)


@contextmanager
def _named(place: str) -> Iterator[None]:
    """Makes an error of the Hub's client one of one line, which says where it was."""
    try:
        yield
    except FAILURES as error:
        cause = error.__cause__ if isinstance(error, RuntimeError) else None  # of an upload
        reasons = [in_one_line(one) for one in (error, cause) if isinstance(one, Exception)]
        raise OSError(f"{place}: {': '.join(reasons)}") from error
