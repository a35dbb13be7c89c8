"""Hugging Face Hub: downloads of single files, weights with their config.json."""

import logging
import re
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from huggingface_hub import (
    constants,
    get_token,
    hf_hub_download,
    hf_hub_url,
    try_to_load_from_cache,
)
from huggingface_hub.constants import CONFIG_NAME, SAFETENSORS_SINGLE_FILE
from huggingface_hub.errors import (  # type: ignore[attr-defined] # HTTPError is its client's
    HFValidationError,
    HTTPError,
    LocalEntryNotFoundError,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils.tqdm import (
    are_progress_bars_disabled,
    disable_progress_bars,
    enable_progress_bars,
)

from ccnet.weights.retries import FAILURES, TRANSIENT_STATUS, Patience, reason, status_of
from ccnet.weights.serialization import ModelWeights, read_files
from ccnet.weights.timed_requests import request

logger = logging.getLogger(__name__)

_AWAY = (
    "Without a network give the path of a file or folder, or, for what is downloaded already, set "
    "HF_HUB_OFFLINE=1; HF_ENDPOINT names a mirror of the Hub."
)
_OFFLINE = "Give the path of a file or folder, or unset HF_HUB_OFFLINE to download it."

_COMMIT = re.compile("[0-9a-f]{40}")
"""A revision whose files never change."""


def fetch_file(
    repo_id: str,
    filename: str,
    revision: str | None = None,
    *,
    progress: bool = True,
    **options: Any,
) -> Path:
    """Returns the cached path of a file on the Hub, downloading it if need be.

    What a server that answers may do better next time is retried, with what a connection that
    broke off has left; where nothing answers, the cached file is taken, or the error comes soon.

    Args:
        repo_id: "owner/name".
        filename: path of the file in the repository.
        revision: branch, tag or commit; None for the main branch.
        progress: show a progress bar.
        options: further arguments of `huggingface_hub.hf_hub_download`.

    Raises:
        OSError: if the file cannot be had, such as huggingface_hub's `HfHubHTTPError` where the
            Hub refuses it, and `LocalEntryNotFoundError` where the Hub cannot be reached.
        huggingface_hub.errors.HFValidationError: if the repository cannot have this name.
    """
    url = hf_hub_url(repo_id, filename, revision=revision)
    patience = Patience(url)
    offline = "HF_HUB_OFFLINE" if constants.HF_HUB_OFFLINE else "local_files_only"
    is_wanted = not (constants.HF_HUB_OFFLINE or options.get("local_files_only"))
    try:
        with _progress_bars(progress):
            while True:
                try:
                    if is_wanted and not _answers(url, repo_id, filename, revision, options):
                        options["local_files_only"] = True
                    return Path(hf_hub_download(repo_id, filename, revision=revision, **options))
                except FAILURES as error:
                    if _is_begun_wrong(error) and not options.get("force_download"):
                        options["force_download"] = True
                    else:
                        patience.wait(error)
    except LocalEntryNotFoundError as error:
        if not is_wanted:
            raise LocalEntryNotFoundError(f"{url}: skipped, because {offline} is set") from error
        cause = error.__cause__
        if isinstance(cause, HTTPError):  # what was answered says more than that nothing is cached
            raise LocalEntryNotFoundError(f"{url}: {reason(cause)}") from error
        raise
    except TimeoutError as error:
        raise LocalEntryNotFoundError(f"{url}: {reason(error)}") from error
    except (OSError, HFValidationError):
        raise
    except Exception as error:  # of the HTTP client, or of what reads the Hub's answers
        raise LocalEntryNotFoundError(f"{url}: {reason(error)}") from error


def is_cached(
    repo_id: str,
    filename: str,
    revision: str | None = None,
    *,
    cache_dir: str | Path | None = None,
    force_download: bool = False,
    **_: Any,
) -> bool:
    """Tells whether `fetch_file` needs no download, by the same arguments."""
    found = try_to_load_from_cache(repo_id, filename, cache_dir, revision)
    return isinstance(found, str) and not force_download


def in_one_line(error: Exception) -> str:
    """Says what the Hub's answer means, or else what went wrong, in one line."""
    if isinstance(error, RepositoryNotFoundError):
        return "no such repository, or a private one, which needs HF_TOKEN or `hf auth login`"
    if isinstance(error, RevisionNotFoundError):
        return "the repository does not have this revision, or no longer"
    if isinstance(error, RemoteEntryNotFoundError):
        return "the repository does not have this file at this revision"
    said = getattr(error, "server_message", None)
    return f"{reason(error)}: {' '.join(said.split())}" if said else reason(error)


def _answers(
    url: str, repo_id: str, filename: str, revision: str | None, options: Mapping[str, Any]
) -> bool:
    """Asks whether the Hub answers, since its client would wait for that for long.

    Returns:
        False if it does not, but the file is cached, or known not to be there. That of a commit
        is not asked for then.

    Raises:
        Exception: the error of a server that is away or busy.
    """
    found = try_to_load_from_cache(repo_id, filename, options.get("cache_dir"), revision)
    is_known = found is not None and not options.get("force_download")
    if is_known and _COMMIT.fullmatch(revision or ""):
        return True
    headers = _authorization(options.get("token"))
    timeout = constants.HF_HUB_ETAG_TIMEOUT
    try:
        with closing(
            request("HEAD", url, headers=headers, timeout=timeout, follow_redirects=False)
        ) as parts:
            response = next(parts)
        if response.status_code in TRANSIENT_STATUS:
            response.raise_for_status()
    except FAILURES as error:
        if not is_known:
            raise
        logger.warning("%s: %s; what was downloaded before is taken", url, reason(error))
        return False
    return True


def _authorization(token: str | bool | None) -> dict[str, str]:
    """What a request sends of an access token; the Hub's own function for this asks a server."""
    if token is False or (token is None and constants.HF_HUB_DISABLE_IMPLICIT_TOKEN):
        return {}
    found = token if isinstance(token, str) else get_token()
    return {"Authorization": f"Bearer {found}"} if found else {}


def _is_begun_wrong(error: Exception) -> bool:
    """Whether the Hub's client has kept the beginning of a file that nothing can complete."""
    return status_of(error) == 416 or (type(error) is OSError and error.errno is None)


@contextmanager
def _progress_bars(shown: bool) -> Iterator[None]:
    """Hides the client's progress bars if asked to, but never shows those that are hidden."""
    if shown or are_progress_bars_disabled():
        yield
        return
    disable_progress_bars()
    try:
        yield
    finally:
        enable_progress_bars()


def read_repository(
    repo_id: str, revision: str | None = None, *, progress: bool = True, **options: Any
) -> ModelWeights:
    """Reads model.safetensors, and config.json if there is one, from a repository.

    Args:
        repo_id: "owner/name".
        revision: branch, tag or commit; None for the main branch.
        progress: show a progress bar.
        options: further arguments of `huggingface_hub.hf_hub_download`.

    Raises:
        OSError: if the Hub does not have the weights or cannot be reached.
        ValueError: if a file is damaged.
    """
    try:
        return _read_repository(repo_id, revision, progress=progress, **options)
    except LocalEntryNotFoundError as error:
        raise LocalEntryNotFoundError(f"{error}\n{cure_of(error)}") from error


def cure_of(error: OSError) -> str:
    """Says what to do about an error of `fetch_file`."""
    if isinstance(error, LocalEntryNotFoundError):
        return _OFFLINE if constants.HF_HUB_OFFLINE else _AWAY
    return "Check the name and the revision."


def _read_repository(
    repo_id: str, revision: str | None, *, progress: bool, **options: Any
) -> ModelWeights:
    config_path = None
    try:
        config_path = fetch_file(repo_id, CONFIG_NAME, revision, progress=progress, **options)
    except RemoteEntryNotFoundError:
        pass
    except LocalEntryNotFoundError:
        cache_dir = options.get("cache_dir")
        cached = try_to_load_from_cache(repo_id, CONFIG_NAME, cache_dir, revision)
        if cached is None:  # unknown; a file known to be absent gives a sentinel object
            raise
    weights_path = fetch_file(
        repo_id, SAFETENSORS_SINGLE_FILE, revision, progress=progress, **options
    )
    return read_files(weights_path, config_path, f"hf://{repo_id}@{revision or 'main'}")
