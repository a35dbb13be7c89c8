"""Exported files read back: `predict` as a network has it, without PyTorch's network."""

import logging
import os
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from ccnet.classes import LabelSet
from ccnet.deployment.exported.contract import Contract
from ccnet.deployment.exported.formats import format_of, open_file
from ccnet.deployment.exported.formats.onnx_files import has_openvino
from ccnet.files import user_path
from ccnet.images import ImageLike, images_of
from ccnet.inference.footprint import Footprint
from ccnet.inference.prediction import PredictionMixin, of_each
from ccnet.inference.protocol import InferenceProtocol
from ccnet.inference.result import Segmentation
from ccnet.options import check_options, named_options
from ccnet.transforms import Preprocessing, check_batch

logger = logging.getLogger(__name__)


class ExportedNetwork(PredictionMixin, nn.Module):
    """A file that gives logits, with the `predict` of `CCNet`, all of its options included.

    Threads may share it.

    Attributes:
        contract: what the file takes and gives, and of what it was made.
        label_set: the K classes.
        preprocessing: of an image to the file's input.
    """

    def __init__(self, run: Callable[[Tensor], Tensor], contract: Contract) -> None:
        super().__init__()
        self.contract = contract
        self.label_set: LabelSet = contract.label_set
        self.preprocessing: Preprocessing = contract.preprocessing
        self.config = {"training_size": contract.training_size}
        self._run = run
        self._place = nn.Parameter(torch.empty(0), requires_grad=False)  # device and dtype of input
        self.eval()

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Computes the logits: as `CCNet.forward` in evaluation mode, without gradients.

        Raises:
            ValueError: if x is not such a batch, or the file does not take its size.
        """
        check_batch(x, self.preprocessing.channels)
        self.contract.check_size(x.shape[0], *x.shape[-2:])
        return {"out": self._run(x.detach().float().contiguous())}

    def transforms(self) -> Preprocessing:
        """Returns the preprocessing of an image to the input (N, C, H, W)."""
        return self.preprocessing

    def _footprint(self) -> Footprint:
        return Footprint(self.contract.numbers_per_pixel)


class ExportedSegmenter:
    """A file that takes pictures and gives labels.

    Threads may share it.

    Attributes:
        contract: what the file takes and gives, and of what it was made.
        label_set: the K classes.
        preprocessing: that is part of the file.
    """

    def __init__(self, run: Callable[[Tensor], Tensor], contract: Contract) -> None:
        self.contract, self.label_set = contract, contract.label_set
        self.preprocessing = contract.preprocessing
        self._run = run

    def predict(self, image: ImageLike | Iterable[ImageLike], **options: Any) -> Any:
        """Segments one image or several: `CCNet.predict` with `fit=None`, which it takes.

        Where the network learnt from images of another size, a warning in the log says so.

        Raises:
            FileNotFoundError: if there is no file at the path.
            TypeError: if there are other options: they need logits.
            ValueError: if the image cannot be read or is no image, or the file does not take its
                size.
        """
        if options != {"fit": None}:
            hint = "this file gives labels at the image's own size: export logits for options"
            check_options("predict", options, [], dict.fromkeys(options, hint))
        segment_one = partial(self._segment, warns="fit" not in options)
        images = images_of(image)
        if images is not None:
            return of_each(segment_one, images)
        return segment_one(cast(ImageLike, image))

    def _segment(self, image: ImageLike, warns: bool) -> Segmentation:
        pixels = self.preprocessing.decode(image).cpu().contiguous()
        height, width = pixels.shape[1:]
        self.contract.check_size(1, height, width)
        if (learnt := self.contract.training_size) is not None and warns:
            seen = InferenceProtocol(fit=learnt).view_size((height, width))
            if seen != (height, width):
                logger.warning(
                    "the file sees the image at its own size, %d x %d, and the network learnt from "
                    "images like %d x %d: resize it, or export logits, or pass fit=None",
                    *(width, height, seen[1], seen[0]),
                )
        labels = self._run(pixels.movedim(0, -1).contiguous()[None])[0]
        return Segmentation(labels, self.label_set, pixels.clone(), None, (height, width))


@named_options(device="it runs on the CPU; run the file with its own runtime elsewhere")
def load_exported(
    path: str | os.PathLike[str], *, trusted: bool = False
) -> ExportedNetwork | ExportedSegmenter:
    """Opens a file that `export_network` or `ccnet export` wrote, on the CPU.

    Args:
        path: of the file.
        trusted: whether you trust who made the file. To read an ONNX file runs nothing in it;
            PyTorch's own files, .pt2, can hold code that runs when they are read.

    Returns:
        A network with `predict`, as that of `CCNet`. Of a file with preprocessing, `predict` takes
        no options.

    Raises:
        FileNotFoundError: if there is no file.
        ValueError: if the file is damaged, no export of this package, or not trusted, or the
            packages that run it are missing.
    """
    location: Path = user_path(path)
    form = format_of(location)
    if form.runs_code and not trusted:
        raise ValueError(
            f"{path} can run code when it is read, as PyTorch reads .pt2 files: if you trust who "
            "made it, load_exported(path, trusted=True); ONNX files run none"
        )
    run, contract = open_file(location, form)
    if contract.is_in_integers and not has_openvino():
        logger.warning(
            "onnxruntime may compute in 8-bit integers more slowly than in floating point: "
            "pip install 'ccnet-pytorch[int8]' brings OpenVINO, which is faster"
        )
    if contract.takes_pictures:
        return ExportedSegmenter(run, contract)
    return ExportedNetwork(run, contract)
