"""Hub mixin: `save_pretrained`, `push_to_hub` and `from_pretrained`, strict and silent."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from huggingface_hub import PyTorchModelHubMixin
from torch import nn

from ccnet.files import atomic_write, user_path
from ccnet.options import ANY_SIZE, check_options, options_of
from ccnet.weights.conversion import complete
from ccnet.weights.file_kinds import check_no_url
from ccnet.weights.hub import read_repository
from ccnet.weights.serialization import ModelWeights, read_weights, write_folder

Model = TypeVar("Model", bound="StrictHubMixin")

_UPLOAD_OPTIONS = [
    name for name in options_of(PyTorchModelHubMixin.push_to_hub) if name != "repo_id"
]

_HINTS = {
    "resume_download": "leave it out: only force_download=True downloads files anew",
    **dict.fromkeys(("device", "device_map", "map_location"), "move the network: model.to(device)"),
    **ANY_SIZE,
}
"""What to do in place of options that other libraries have."""


class StrictHubMixin(PyTorchModelHubMixin):
    """Strict version of huggingface_hub's model mixin.

    The original mixin loads the tensors that fit and skips the rest, builds a default model if the
    configuration is missing, falls back to a pickle and prints. Here each of these is an error. The
    public methods are overridden rather than the hooks: before the mixin calls the hooks, it
    deletes config.json, and reads it without saying which file is damaged.
    """

    config: dict[str, Any]
    """Constructor arguments as JSON-able values: config.json on the Hub."""

    card_details: dict[str, Any]
    """Facts about the weights for the model card: licence, source, metrics and so on."""

    def to_weights(self) -> ModelWeights:
        """Returns the state dict, configuration and details of this model as one value."""
        assert isinstance(self, nn.Module)
        state_dict = {
            name: tensor.detach().cpu().clone() for name, tensor in self.state_dict().items()
        }
        return ModelWeights(state_dict, dict(self.config), dict(self.card_details))

    def save_pretrained(
        self,
        save_directory: str | os.PathLike[str],
        *,
        push_to_hub: bool = False,
        repo_id: str | None = None,
        model_card_kwargs: Mapping[str, Any] | None = None,
        **push_to_hub_options: Any,
    ) -> str | None:
        """Writes model.safetensors, config.json and a model card into a folder.

        Each file is complete or untouched. Weights and configuration replace older ones; a model
        card that already exists stays.

        Args:
            save_directory: the folder, created if need be.
            push_to_hub: also upload the files.
            repo_id: where to, "owner/name"; by default the folder's name.
            model_card_kwargs: details for the card, which replace those of the model; `location` is
                where the card loads the model from, by default this folder.
            push_to_hub_options: further arguments of `push_to_hub`.

        Returns:
            The URL of the upload, or None.

        Raises:
            OSError: if a file cannot be written.
            TypeError: if options of an upload are given without one.
            ValueError: if another `config` is given.
        """
        folder = user_path(save_directory)
        if push_to_hub_options.pop("config", None) is not None:
            raise ValueError(
                "save_pretrained takes no config: config.json holds the model's own arguments"
            )
        known = dict.fromkeys([*options_of(self.save_pretrained), *_UPLOAD_OPTIONS])
        check_options("save_pretrained", push_to_hub_options, known)
        if push_to_hub_options and not push_to_hub:
            raise TypeError(f"options of an upload without one: {', '.join(push_to_hub_options)}")
        card_options = dict(model_card_kwargs or {})
        card = self.generate_model_card(**{"location": Path(save_directory), **card_options})
        write_folder(folder, self.to_weights())
        if not (folder / "README.md").exists():
            with atomic_write(folder / "README.md") as temporary:
                card.save(temporary)
        if not push_to_hub:
            return None
        return self.push_to_hub(
            repo_id or folder.name, model_card_kwargs=card_options, **push_to_hub_options
        )

    def push_to_hub(self, repo_id: str, **options: Any) -> str:
        """Uploads the files of `save_pretrained` to a repository, created if need be.

        Args:
            repo_id: "owner/name".
            options: arguments of `huggingface_hub.PyTorchModelHubMixin.push_to_hub`.

        Returns:
            The URL of the upload.
        """
        check_options("push_to_hub", options, _UPLOAD_OPTIONS)
        card = {"location": repo_id, **(options.pop("model_card_kwargs", None) or {})}
        url: str = super().push_to_hub(repo_id, model_card_kwargs=card, **options)
        return url

    @classmethod
    def from_pretrained(
        cls: type[Model],
        pretrained_model_name_or_path: str | os.PathLike[str],
        *,
        revision: str | None = None,
        force_download: bool = False,
        token: str | bool | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
        **model_kwargs: Any,
    ) -> Model:
        """Loads a model in evaluation mode from a folder or from the Hugging Face Hub.

        Args:
            pretrained_model_name_or_path: a folder that `save_pretrained` wrote, or "owner/name".
            revision: branch, tag or commit.
            force_download: download files again even if they are cached.
            token: access token for a private repository; by default that of the logged-in user.
            cache_dir: folder of downloads; by default that of huggingface_hub.
            local_files_only: do not use the network.
            model_kwargs: constructor arguments that replace those of the configuration.

        Raises:
            FileNotFoundError: if there is no such folder, or it lacks model.safetensors.
            TypeError: if an argument does not exist; names the nearest.
            ValueError: if the configuration or the weights do not fit the network.
            OSError: if the Hub cannot be reached, or a file not be kept.
            huggingface_hub.errors.HfHubHTTPError: likewise, if it lacks the files or denies access.
        """
        known = [*options_of(cls.from_pretrained), "categories", *options_of(cls)]
        check_options("from_pretrained", model_kwargs, known, _HINTS)
        location = os.fspath(pretrained_model_name_or_path)
        check_no_url(location)
        path = user_path(location)
        if path.is_dir():
            weights = read_weights(path)
        elif path.is_file():
            raise FileNotFoundError(
                f"{location} is a file: give its folder, or load it with "
                f'ccnet.build_ccnet({_backbone_of(path)}, weights="{location}")'
            )
        elif path.exists() or path.is_absolute() or len(path.parts) > 2:
            raise FileNotFoundError(
                f'no folder {location}; pass an existing one, or "owner/name" on the Hub'
            )
        else:
            weights = read_repository(
                location,
                revision,
                force_download=force_download,
                token=token,
                cache_dir=cache_dir,
                local_files_only=local_files_only,
            )
        return cls.from_weights(complete(weights), **model_kwargs)

    @classmethod
    def from_weights(cls: type[Model], weights: ModelWeights, **changes: Any) -> Model:
        """Builds the model from weights, in evaluation mode."""
        raise NotImplementedError


def _backbone_of(path: Path) -> str:
    """The backbone of the network in a file, as an argument; "BACKBONE" if it is not known."""
    try:
        return json.dumps(read_weights(path).config["backbone"])
    except (KeyError, ValueError):
        return "BACKBONE"
