"""Models whose weights take fewer bytes, for where they have to travel: a web page (export_dream.py).

The arithmetic stays float32. Matrices of a million numbers and more, which are V's first deconvolution and the LSTM of
Take Cover's M, are rounded to few bits; everything else to half precision.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

BLOCK = 64  # numbers that share a scale
FEWEST_BITS = 4


def bits_of(count: int) -> int:
    """How many bits a number of a matrix of so many numbers takes."""
    return 16 if count < 1_000_000 else 8 if count < 2_000_000 else FEWEST_BITS


class Half(nn.Module):
    """A weight in half precision; `forward` gives it back."""

    numbers: Tensor

    def __init__(self, weight: Tensor):
        super().__init__()
        self.register_buffer("numbers", weight.half())

    def forward(self) -> Tensor:
        return self.numbers.float()


class Blocks(nn.Module):
    """A weight as integers of 4 or 8 bits, with a scale for each block of them; `forward` gives it back, rounded."""

    numbers: Tensor  # (B, BLOCK * bits / 8) uint8
    scales: Tensor  # (B, 1) float16

    def __init__(self, weight: Tensor, bits: int):
        super().__init__()
        self.shape, self.count, self.bits = weight.shape, weight.numel(), bits
        numbers = F.pad(weight.flatten(), (0, -self.count % BLOCK)).unflatten(0, (-1, BLOCK))
        largest = 2 ** (bits - 1) - 1
        scales = (numbers.abs().amax(dim=1, keepdim=True) / largest).half()
        # From 0, so that a byte of them needs no sign. Of two, the second half of a block has the upper bits.
        integers = (numbers / scales.float().clamp(min=1e-8)).round().clamp(-largest, largest) + largest
        parts = integers.to(torch.uint8).chunk(8 // bits, dim=1)
        self.register_buffer("numbers", sum(part << bits * place for place, part in enumerate(parts)))
        self.register_buffer("scales", scales)

    def forward(self) -> Tensor:
        left = self.numbers.float()
        parts = []
        for _ in range(8 // self.bits):  # in floating point, which every ONNX runtime can do
            upper = (left / 2**self.bits).floor()
            parts.append(left - upper * 2**self.bits)
            left = upper
        integers = torch.cat(parts, dim=1) - (2 ** (self.bits - 1) - 1)
        return (integers * self.scales.float()).flatten()[: self.count].view(self.shape)


class Packed(nn.Module):
    """A model that unpacks its weights for each call; else it is the same."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self._model = (model.eval(),)  # in a tuple: its weights are not this module's
        self._names = list(dict(model.named_parameters()))
        self.weights = nn.ModuleList(pack(weight.detach()) for weight in model.parameters())

    def forward(self, *inputs: Tensor) -> Any:
        weights = {name: weight() for name, weight in zip(self._names, self.weights, strict=True)}
        return functional_call(self._model[0], weights, inputs)


def pack(weight: Tensor) -> nn.Module:
    """A weight of any shape in fewer bytes."""
    bits = bits_of(weight.numel())
    return Half(weight) if bits == 16 else Blocks(weight, bits)
