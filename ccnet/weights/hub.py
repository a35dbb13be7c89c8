"""Hugging Face Hub: downloads of single files, weights with their config.json."""

import time
from pathlib import Path
from typing import Any

from huggingface_hub import hf_hub_download, try_to_load_from_cache
from huggingface_hub.constants import CONFIG_NAME, SAFETENSORS_SINGLE_FILE
from huggingface_hub.errors import (
    HfHubHTTPError,
    LocalEntryNotFoundError,
    RemoteEntryNotFoundError,
)
from huggingface_hub.utils.tqdm import (
    are_progress_bars_disabled,
    disable_progress_bars,
    enable_progress_bars,
)

from ccnet.weights.serialization import ModelWeights, read_files

_TRANSIENT_STATUS = (429, 500, 502, 503, 504)
_TRIES = 3


def fetch_file(
    repo_id: str,
    filename: str,
    revision: str | None = None,
    *,
    progress: bool = True,
    **options: Any,
) -> Path:
    """Returns the cached path of a file on the Hub, downloading it if need be.

    Transient server errors are retried.

    Args:
        repo_id: "owner/name".
        filename: path of the file in the repository.
        revision: branch, tag or commit; None for the main branch.
        progress: show a progress bar.
        options: further arguments of `huggingface_hub.hf_hub_download`.

    Raises:
        OSError: any error of `hf_hub_download`, such as huggingface_hub's `HfHubHTTPError`.
        huggingface_hub.errors.HTTPError: if the connection fails or breaks off.
    """
    hide = not progress and not are_progress_bars_disabled()
    if hide:
        disable_progress_bars()
    try:
        for attempt in range(_TRIES):
            try:
                return Path(hf_hub_download(repo_id, filename, revision=revision, **options))
            except HfHubHTTPError as error:
                is_transient = error.response is not None and (
                    error.response.status_code in _TRANSIENT_STATUS
                )
                if not is_transient or attempt == _TRIES - 1:
                    raise
                time.sleep(2**attempt)
    finally:
        if hide:
            enable_progress_bars()
    raise AssertionError("the last try returns or raises")


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
