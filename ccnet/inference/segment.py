"""Inference on one image: decoding, preprocessing, windows, averaging, labels."""

import os
from collections.abc import Callable, Iterator, Sequence
from functools import reduce

import torch
from torch import Tensor, nn

from ccnet.classes import LabelSet
from ccnet.images import ImageLike
from ccnet.inference.footprint import Footprint
from ccnet.inference.forward import Network, Part, parts_of, views_of
from ccnet.inference.memory import refused_without_memory, within_limit
from ccnet.inference.protocol import InferenceProtocol, Size
from ccnet.inference.result import Segmentation
from ccnet.inference.windows import whole
from ccnet.schema import check, flag
from ccnet.transforms import Preprocessing


@torch.inference_mode(False)  # results are ordinary tensors, for callers in inference mode too
@torch.no_grad()
def segment(
    model: nn.Module,
    image: ImageLike,
    preprocessing: Preprocessing,
    label_set: LabelSet,
    protocol: InferenceProtocol | None = None,
    *,
    return_probabilities: bool = False,
    memory_limit: float | None = None,
    count: Callable[[], Footprint] | None = None,
    name: str | None = None,
) -> Segmentation:
    """Segments one image on the device of the model; the result has the size of the image.

    A replica in evaluation mode runs: the model stays as it is at every moment, so that threads may
    share it. In mode "slide" the memory is bounded by the sum of the image and its labels (together
    4 bytes per pixel), one batch of windows, and a band of logits as high as a window and as wide
    as the image (about 13 K bytes per pixel of the band, times the sum of the scales, twice that
    with flip). In mode "whole" the logits of all feature maps exist at once, and are brought to the
    pixels in bands of columns; the probabilities of all pixels exist if requested.

    To the size of each scale and of `fit`, the image is resized bilinearly (as in the published
    protocols without a low-pass filter, unless `antialias` asks for one), and the logits are
    resized back.

    Args:
        model: maps (N, C, H, W) to a mapping with "out", the logits (N, K, H, W).
        image: anything that `preprocessing.decode` accepts.
        preprocessing: that the model was trained with.
        label_set: the K classes.
        protocol: the options of inference; None for one forward pass of the whole image.
        return_probabilities: keep the probabilities, 4 K bytes per pixel: the softmax of the
            averaged logits, or the average of the softmaxes, according to `protocol.average`.
        memory_limit: GiB that the estimate for the whole image may reach; beyond, windows are taken
            instead, and a warning in the log says so. None for no limit.
        count: gives the footprint of the model; without it nothing is estimated.
        name: of the image, for messages; by default its path, if it is one.

    Raises:
        FileNotFoundError: if there is no file at the path.
        ValueError: if the image cannot be read or is not one image, the model has no values, a
            part of it cannot be put in evaluation mode (see `evaluation_replica`), or the memory
            does not suffice, or the network gives values that are not finite.
    """
    check({"return_probabilities": return_probabilities}, {"return_probabilities": flag()})
    if next(model.parameters()).is_meta:
        raise ValueError(
            "the network has no values (it is on the meta device): "
            'call to_empty(device="cpu") and load weights first'
        )
    protocol = protocol or InferenceProtocol()
    pixels = preprocessing.decode(image)
    if isinstance(image, Tensor) or not pixels.is_contiguous():
        pixels = pixels.clone(memory_format=torch.contiguous_format)
    height, width = pixels.shape[1:]
    if name is None:
        name = os.fspath(image) if isinstance(image, str | os.PathLike) else "an image"
    if memory_limit is not None and count is not None:
        protocol = within_limit(
            protocol,
            (height, width),
            memory_limit,
            classes=len(label_set),
            count=count,
            item_size=next(model.parameters()).element_size(),
            with_probabilities=return_probabilities,
            name=name,
        )
    with refused_without_memory(f"{name}: {width} x {height} pixels ({protocol})"):
        network = Network.of(model, preprocessing, protocol.precision)
        views = views_of(pixels, network.prepare, protocol)
        parts = parts_of(network, views, protocol, (height, width))
        labels, probabilities = _classify(
            parts, (height, width), label_set, protocol, network.dtype, return_probabilities
        )
    seen = protocol.view_size((height, width))
    return Segmentation(labels, label_set, pixels.cpu(), probabilities, seen)


@torch.inference_mode(False)
@torch.no_grad()
def segment_together(
    model: nn.Module,
    images: Sequence[Tensor],
    batch_size: int,
    preprocessing: Preprocessing,
    label_set: LabelSet,
    protocol: InferenceProtocol,
) -> list[Segmentation | ValueError]:
    """Segments whole images with one forward pass for each scale and flip of all.

    To every pass `batch_size` images are given, the last one several times if there are fewer: what
    the network gives for one of a batch may depend on the size of the batch, in the last bits, but
    on no other image.

    Args:
        model: as for `segment`.
        images: (C, H, W), uint8, of which the views of each scale have one size; as many as the
            batch, or fewer.
        batch_size: N.
        preprocessing: that the model was trained with.
        label_set: the K classes.
        protocol: the options of inference, of mode "whole".

    Returns:
        The result of each, or why it has none.

    Raises:
        ValueError: if the memory does not suffice.
    """
    network = Network.of(model, preprocessing, protocol.precision)
    results: list[Segmentation | ValueError] = []
    with refused_without_memory(f"{batch_size} images together ({protocol})"):
        views = [views_of(pixels, network.prepare, protocol) for pixels in images]
        filled = [*views, *[views[-1]] * (batch_size - len(views))]
        maps = [
            network.classify(torch.stack([view.read_whole() for view in same]))
            for same in zip(*filled, strict=True)
        ]
        for index, pixels in enumerate(images):
            height, width = pixels.shape[1:]
            own = (logits[index : index + 1] for logits in maps)
            parts = whole(views[index], own, network.resize, (height, width))
            try:
                labels, _ = _classify(
                    parts, (height, width), label_set, protocol, network.dtype, False
                )
            except ValueError as error:
                results.append(error)
                continue
            seen = protocol.view_size((height, width))
            results.append(Segmentation(labels, label_set, pixels.cpu(), None, seen))
    return results


def _classify(
    parts: Iterator[Part],
    size: Size,
    label_set: LabelSet,
    protocol: InferenceProtocol,
    dtype: torch.dtype,
    return_probabilities: bool,
) -> tuple[Tensor, Tensor | None]:
    """Computes labels (H, W), uint8, and probabilities (K, H, W), float32, if asked for."""
    average_probabilities = protocol.average == "probabilities"
    labels = torch.empty(size, dtype=torch.uint8, device="cpu")
    probabilities = None
    if return_probabilities:
        shape = len(label_set), *size
        probabilities = torch.empty(shape, dtype=torch.float32, device="cpu")
    for (rows, columns), views in parts:
        terms = (logits.softmax(0) for logits in views) if average_probabilities else views
        scores: Tensor = reduce(torch.add, terms)
        best = scores.max(dim=0)  # faster than argmax
        if not best.values.isfinite().all():
            raise ValueError(
                f"the network of {str(dtype).removeprefix('torch.')} gives values that are not "
                f"finite ({protocol}): its weights are damaged, or need another precision"
            )
        labels[rows, columns] = best.indices.to(torch.uint8)
        if probabilities is not None:
            scores = scores / len(views)
            part = scores if average_probabilities else scores.softmax(0)
            probabilities[:, rows, columns] = part
            del part
        del views, terms, scores, best  # so that they are freed before the next ones are made
    return labels, probabilities
