"""Effects of cameras and of light on training images: gamma, blur and noise."""

import math
from typing import Any

import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2


def camera_effects(gamma: float = 0.0, blur: float = 0.0, noise: float = 0.0) -> list[v2.Transform]:
    """Random effects on images of uint8, in the order in which they come about; masks pass.

    Args:
        gamma: the largest gamma less 1; gammas and their inverses are as frequent.
        blur: largest standard deviation of a Gaussian, in pixels; of every second image.
        noise: largest standard deviation of Gaussian noise, in grey steps; of every second image.

    Returns:
        A transform for each that is not 0.
    """
    steps: list[v2.Transform] = []
    if gamma:
        steps.append(RandomGamma(gamma))
    if blur:
        kernel = 2 * math.ceil(blur_radius(blur)) + 1
        steps.append(v2.RandomApply([v2.GaussianBlur(kernel, (0.1 * blur, blur))]))
    if noise:
        steps.append(v2.RandomApply([RandomNoise(noise)]))
    return steps


def blur_radius(blur: float) -> float:
    """Returns how far a Gaussian reaches, in pixels: images must have more on both sides."""
    return 3 * blur


class RandomGamma(v2.Transform):
    """Random gamma g of an image, 255 * (v / 255) ** g: log-uniform in 1 / (1 + gamma)..1 + gamma.

    Args:
        gamma: the largest g less 1, above 0.
    """

    _transformed_types = (tv_tensors.Image,)

    def __init__(self, gamma: float) -> None:
        super().__init__()
        self.gamma = gamma

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Draws the exponent."""
        reach = math.log1p(self.gamma)
        return {"gamma": math.exp(torch.empty(()).uniform_(-reach, reach).item())}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Changes an image (C, H, W), uint8."""
        table = (torch.arange(256) / 255).pow(params["gamma"]).mul(255).round().to(torch.uint8)
        return tv_tensors.wrap(table[inpt.as_subclass(Tensor).long()], like=inpt)


class RandomNoise(v2.Transform):
    """Gaussian noise of a random standard deviation, the same for all pixels of an image.

    Args:
        sigma: the largest standard deviation, in grey steps.
    """

    _transformed_types = (tv_tensors.Image,)

    def __init__(self, sigma: float) -> None:
        super().__init__()
        self.sigma = sigma

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Draws the standard deviation."""
        return {"sigma": torch.empty(()).uniform_(0, self.sigma).item()}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Changes an image (C, H, W), uint8."""
        noise = torch.randn(inpt.shape).mul_(params["sigma"])
        noisy = noise.add_(inpt.as_subclass(Tensor)).round_().clamp_(0, 255)
        return tv_tensors.wrap(noisy.to(torch.uint8), like=inpt)
