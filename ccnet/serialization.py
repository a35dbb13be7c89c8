"""Weights on disk: safetensors that carry their configuration, read and written strictly."""

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from huggingface_hub import PyTorchModelHubMixin, hf_hub_download
from huggingface_hub.constants import CONFIG_NAME, SAFETENSORS_SINGLE_FILE
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from ccnet.files import atomic_write

Model = TypeVar("Model", bound="StrictHubMixin")


def save_weights(
    path: str | os.PathLike[str],
    state_dict: Mapping[str, Tensor],
    config: Mapping[str, Any],
    details: Mapping[str, Any] | None = None,
) -> None:
    """Writes a safetensors file, all or nothing.

    Args:
        path: of the file.
        state_dict: the weights.
        config: the configuration, which goes into the header.
        details: what is known of the weights, for a model card: likewise.
    """
    tensors = {name: tensor.detach().contiguous().cpu() for name, tensor in state_dict.items()}
    header = {"format": "pt", "config": json.dumps(config)}
    if details:
        header["details"] = json.dumps(details)
    with atomic_write(path) as temporary:
        save_file(tensors, temporary, metadata=header)


def read_details(path: str | os.PathLike[str]) -> dict[str, Any]:
    """What an intact safetensors file says is known of its weights, if anything."""
    with safe_open(path, framework="pt") as file:
        try:
            details = json.loads((file.metadata() or {}).get("details", "{}"))
        except json.JSONDecodeError:
            return {}
    return details if isinstance(details, dict) else {}


def read_weights(path: str | os.PathLike[str]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Reads a safetensors file.

    Returns:
        The state dict on the CPU, and the configuration: empty if the file carries none.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is no safetensors file, or a damaged one.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"no weights at {path}")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            state_dict = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        config = json.loads(metadata.get("config", "{}"))
    except (SafetensorError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} is not an intact safetensors file: {error}") from error
    if not isinstance(config, dict):
        raise ValueError(f"the configuration in {path} is no mapping but {config!r}")
    return state_dict, config


def load_strictly(
    module: nn.Module, state_dict: Mapping[str, Tensor], fresh: Iterable[str] = ()
) -> None:
    """Copies the weights into the module, whose dtypes stay, or changes nothing and raises.

    Args:
        module: what the weights are for. On the meta device it takes the tensors themselves, so
            that nothing is initialised only to be overwritten.
        state_dict: a tensor for every parameter and buffer of the module, and no other.
        fresh: prefixes of the module's names that keep their initial values. The state dict may
            have none of them.

    Raises:
        ValueError: names every missing, unexpected and misshapen tensor, and those with values
            that are not finite.
    """
    kept = tuple(fresh)
    targets = module.state_dict()
    own = {
        name: tuple(tensor.shape) for name, tensor in targets.items() if not name.startswith(kept)
    }
    given = {name: tuple(tensor.shape) for name, tensor in state_dict.items()}
    problems = [f"missing {name} {own[name]}" for name in own.keys() - given.keys()]
    problems += [f"unexpected {name} {given[name]}" for name in given.keys() - own.keys()]
    problems += [
        f"{name} has values that are not finite"
        for name, tensor in state_dict.items()
        if own.get(name) == given[name] and not tensor.isfinite().all()
    ]
    problems += [
        f"{name} is {given[name]} instead of {own[name]}"
        for name in own.keys() & given.keys()
        if own[name] != given[name]
    ]
    if problems:
        shown = "\n  ".join(sorted(problems)[:20])
        more = f"\n  and {len(problems) - 20} more" if len(problems) > 20 else ""
        raise ValueError(f"these weights are not for this network:\n  {shown}{more}")
    if all(target.is_meta for target in targets.values()):
        state_dict = {name: value.to(targets[name].dtype) for name, value in state_dict.items()}
        module.load_state_dict(state_dict, assign=True)
    else:
        module.load_state_dict(state_dict, strict=not kept)


class StrictHubMixin(PyTorchModelHubMixin):
    """huggingface_hub's model mixin, made strict.

    As it comes, the mixin loads what fits and skips the rest, makes a default model where the
    configuration is missing, falls back to a pickle and prints. Here each of these is an error.
    """

    config: dict[str, Any]
    """The constructor's arguments as JSON-able values: config.json on the Hub."""

    card_details: dict[str, Any]
    """What is known of the weights."""

    def save_pretrained(
        self, save_directory: str | os.PathLike[str], **push_to_hub_options: Any
    ) -> str | None:
        """Writes model.safetensors, config.json and a model card into a folder.

        Each file is complete or untouched; weights and configuration replace older ones, a model
        card that is already there stays.

        Args:
            save_directory: the folder, made if need be.
            push_to_hub_options: with `push_to_hub=True`, also uploads to `repo_id` (default: the
                folder's name); the rest goes to `push_to_hub`.

        Returns:
            The address of the upload, or None.
        """
        folder = Path(save_directory)
        assert isinstance(self, nn.Module)
        save_weights(
            folder / SAFETENSORS_SINGLE_FILE, self.state_dict(), self.config, self.card_details
        )
        with atomic_write(folder / CONFIG_NAME) as temporary:
            temporary.write_text(json.dumps(self.config, indent=2) + "\n")
        if push_to_hub_options.pop("config", None) is not None:
            raise ValueError("config.json holds the model's own arguments and takes no others")
        card_options = push_to_hub_options.pop("model_card_kwargs", None) or {}
        if not (folder / "README.md").exists():
            with atomic_write(folder / "README.md") as temporary:
                self.generate_model_card(**card_options).save(temporary)
        if push_to_hub_options.pop("push_to_hub", False):
            repo_id = push_to_hub_options.pop("repo_id", None) or folder.name
            url: str = self.push_to_hub(
                repo_id=repo_id, model_card_kwargs=card_options, **push_to_hub_options
            )
            return url
        return None

    def push_to_hub(self, repo_id: str, **options: Any) -> str:
        """Uploads what `save_pretrained` writes to "owner/name", which is made if need be.

        Args:
            repo_id: "owner/name".
            options: those of `huggingface_hub.PyTorchModelHubMixin.push_to_hub`.

        Returns:
            The address of the upload.
        """
        card = {"location": repo_id, **(options.pop("model_card_kwargs", None) or {})}
        url: str = super().push_to_hub(repo_id, model_card_kwargs=card, **options)
        return url

    @classmethod
    def from_pretrained(
        cls: type[Model],
        pretrained_model_name_or_path: str | os.PathLike[str],
        *,
        force_download: bool = False,
        token: str | bool | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
        revision: str | None = None,
        **model_kwargs: Any,
    ) -> Model:
        """Loads a model in evaluation mode from a folder or from the Hugging Face Hub.

        Args:
            pretrained_model_name_or_path: a folder that `save_pretrained` wrote, or "owner/name".
            force_download: fetch again what is cached.
            token: for a private repository; by default the one that is logged in.
            cache_dir: where downloads are kept; by default where huggingface_hub keeps its own.
            local_files_only: do not use the network.
            revision: branch, tag or commit.
            model_kwargs: constructor arguments that replace those of the configuration.

        Raises:
            FileNotFoundError: if there is no such folder, or it lacks config.json or
                model.safetensors.
            ValueError: if the configuration or the weights do not fit the network.
            huggingface_hub.errors.HfHubHTTPError: if the Hub does not have or give the files.
        """
        location = os.fspath(pretrained_model_name_or_path)
        path = Path(location)
        if not path.is_dir() and (path.exists() or path.is_absolute() or len(path.parts) > 2):
            raise FileNotFoundError(f'no folder {location}; give one, or "owner/name" on the Hub')

        def locate(filename: str) -> Path:
            if not Path(location).is_dir():
                return Path(
                    hf_hub_download(
                        location,
                        filename,
                        force_download=force_download,
                        token=token,
                        cache_dir=cache_dir,
                        local_files_only=local_files_only,
                        revision=revision,
                    )
                )
            path = Path(location, filename)
            if not path.is_file():
                raise FileNotFoundError(f"no {filename} in {location}; a saved model has one")
            return path

        config_path = locate(CONFIG_NAME)
        try:
            config = json.loads(config_path.read_text())
        except ValueError as error:
            raise ValueError(f"{config_path} is not JSON: {error}") from error
        try:
            with torch.device("meta"):
                model = cls(**{**config, **model_kwargs})
        except TypeError as error:
            raise ValueError(
                f"{config_path} does not describe a {cls.__name__}: {error}"
            ) from error
        weights_path = locate(SAFETENSORS_SINGLE_FILE)
        state_dict, _ = read_weights(weights_path)
        assert isinstance(model, nn.Module)
        load_strictly(model, state_dict)
        model.card_details = read_details(weights_path)
        return model.eval()
