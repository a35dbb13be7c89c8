"""Prediction: one image or several of them, by a network that has preprocessing and classes."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import fields
from functools import partial
from typing import Any, cast, overload

import numpy as np
from torch import Tensor, nn

from ccnet.classes import LabelSet
from ccnet.images import FileLike, ImageLike, images_of
from ccnet.inference.footprint import Footprint
from ccnet.inference.memory import DEFAULT_LIMIT, batch_within_limit
from ccnet.inference.protocol import InferenceProtocol, Size
from ccnet.inference.result import Segmentation
from ccnet.inference.segment import segment, segment_together
from ccnet.options import check_options
from ccnet.schema import Rule, check, integer, several
from ccnet.transforms import Preprocessing

_OPTIONS = [field.name for field in fields(InferenceProtocol) if field.init]
_OPTIONS += ["protocol", "return_probabilities", "memory_limit"]

_HINTS = {
    "device": "move the network: model.to(device)",
    "batch_size": "images go through the network one by one, windows in batches of window_batch",
}


_INTEGER = integer(1, 2**16)
_SIDE = Rule(
    lambda side: _INTEGER.accepts(int(side) if isinstance(side, np.integer) else side),
    _INTEGER.expected,
)

TRAINING_SIZE = several(2, 2, _SIDE).or_none()
"""What `training_size` may be."""


class PredictionMixin:
    """Gives a network `predict`."""

    config: dict[str, Any]
    preprocessing: Preprocessing
    label_set: LabelSet

    @property
    def training_size(self) -> Size | None:
        """Height and width of the images that the network learnt from, in pixels; None: unknown.

        It is part of the configuration, and can be set: a pair of integers, or None.
        """
        size = self.config.get("training_size")
        return None if size is None else (size[0], size[1])

    @training_size.setter
    def training_size(self, size: Sequence[int] | None) -> None:
        check({"training_size": size}, {"training_size": TRAINING_SIZE})
        self.config["training_size"] = None if size is None else [int(side) for side in size]

    @property
    def default_protocol(self) -> InferenceProtocol:
        """The options of `predict` that are not given.

        The network sees the whole image as large as it fits into `training_size`, lying or
        standing; at its own size if that is unknown.
        """
        if self.training_size is None:
            return InferenceProtocol()
        return InferenceProtocol(fit=self.training_size, antialias=True)

    def _footprint(self) -> Footprint:
        """Returns what a forward pass takes."""
        raise NotImplementedError

    @overload
    def predict(
        self,
        image: FileLike,
        protocol: InferenceProtocol | None = None,
        *,
        return_probabilities: bool = False,
        memory_limit: float | None = DEFAULT_LIMIT,
        **options: Any,
    ) -> Segmentation: ...

    @overload
    def predict(
        self,
        image: "Tensor | np.ndarray[Any, Any]",  # whose type has no number of axes
        protocol: InferenceProtocol | None = None,
        *,
        return_probabilities: bool = False,
        memory_limit: float | None = DEFAULT_LIMIT,
        **options: Any,
    ) -> Any: ...

    @overload
    def predict(
        self,
        image: Iterable[ImageLike],
        protocol: InferenceProtocol | None = None,
        *,
        return_probabilities: bool = False,
        memory_limit: float | None = DEFAULT_LIMIT,
        **options: Any,
    ) -> list[Segmentation]: ...

    def predict(
        self,
        image: ImageLike | Iterable[ImageLike],
        protocol: InferenceProtocol | None = None,
        *,
        return_probabilities: bool = False,
        memory_limit: float | None = DEFAULT_LIMIT,
        **options: Any,
    ) -> Any:
        """Segments one image, or each of several.

        Results have the size of their images. At which size the network sees an image is another
        matter: unless told otherwise as large as it fits into `training_size`, since objects that
        are many times larger or smaller than those that it learnt are not recognised. `fit=None` is
        the image's own size.

        Several images go through the network one by one: each result is that of the image alone,
        and sizes may differ. Of an iterator no image is taken before the one ahead is segmented.

        Args:
            image: anything that `images.decode_image` accepts: a path or a file: URL, the bytes of
                a file, a file opened in binary mode, a PIL image, an array (H, W, 3) or a tensor
                (3, H, W): RGB or grey, with or without opacity; uint8 in 0..255, uint16 in 0..65535
                or floating point in 0..1. Or a list, a tuple or an iterator of such; an array
                (N, H, W, 3); or a tensor (N, 3, H, W). For a network of other channels see
                `images.decode_channels`.
            protocol: the inference options, taken as they are; None for `default_protocol`.
            return_probabilities: also return the class probabilities (K, H, W), float32.
            memory_limit: GiB that each image may take, estimated from sizes, so that all machines
                agree; beyond, windows are used instead, with a warning. None for no limit. Networks
                in float64 take up to three times the estimate.
            options: fields of `inference.InferenceProtocol`, which replace those of `protocol`:
                `fit` (the size at which the network sees the image, as long and short side; None
                for the image's own), `scales` (factors on that size), `mode` ("whole", or "slide"
                for sliding windows, which lie on the image at that size), `crop`, `stride`,
                `overlap`, `flip`, `average`, `window_batch`, `precision`, `antialias`.

        Returns:
            A `Segmentation`: the label map, with `colorize()`, `overlay()` and `save(path)`. For
            several images a list of them, in their order; for N of 1 too, and for none an empty
            one. To a type checker the result for arrays and tensors is `Any`, since their types
            do not tell how many axes they have.

        Raises:
            FileNotFoundError: if there is no file at the path.
            TypeError: if an option does not exist.
            ValueError: if the image cannot be read or is no image, an option is invalid, or the
                memory does not suffice. Both of these begin with images[INDEX] for one of several.

        Example:
            >>> model.predict("street.jpg").overlay().save("overlay.png")
            >>> model.predict("street.jpg", mode="slide", crop=769, flip=True).save("labels.png")
            >>> first, second = model.predict(["street.jpg", "square.jpg"])
        """
        if not isinstance(protocol, InferenceProtocol | None):
            raise TypeError(
                f"protocol must be an InferenceProtocol, not {protocol!r}; "
                'options are keyword arguments, as in mode="slide"'
            )
        check_options("predict", options, _OPTIONS, _HINTS)
        segment_one = partial(
            self._segment,
            protocol=(protocol or self.default_protocol).replace(**options),
            return_probabilities=return_probabilities,
            memory_limit=memory_limit,
        )
        images = images_of(image)
        if images is None:
            return segment_one(cast(ImageLike, image))
        return of_each(segment_one, images)

    def _segment(self, image: ImageLike, **options: Any) -> Segmentation:
        """Segments one image; the options are those of `segment`."""
        assert isinstance(self, nn.Module)
        return segment(
            self,
            image,
            preprocessing=self.preprocessing,
            label_set=self.label_set,
            count=self._footprint,
            **options,
        )

    def _batch_size(
        self, size: Size, protocol: InferenceProtocol, memory_limit: float, most: int
    ) -> int:
        """Returns how many images of a size go through the network together, at most `most`."""
        assert isinstance(self, nn.Module)
        return batch_within_limit(
            protocol,
            size,
            memory_limit,
            most,
            classes=len(self.label_set),
            count=self._footprint,
            item_size=next(self.parameters()).element_size(),
        )

    def _segment_together(
        self, images: Sequence[Tensor], batch_size: int, protocol: InferenceProtocol
    ) -> list[Segmentation | ValueError]:
        """Segments decoded images as `segment_together` does."""
        assert isinstance(self, nn.Module)
        return segment_together(
            self, images, batch_size, self.preprocessing, self.label_set, protocol
        )


def of_each(
    segment_one: Callable[[Any], Segmentation], images: Iterable[Any]
) -> list[Segmentation]:
    """Segments images one by one; errors say which of them they are of."""
    results = []
    for index, image in enumerate(images):
        try:
            results.append(segment_one(image))
        except (FileNotFoundError, ValueError) as error:
            kind = FileNotFoundError if isinstance(error, FileNotFoundError) else ValueError
            raise kind(f"images[{index}]: {error}") from error
    return results
