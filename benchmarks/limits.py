"""What bounds a rate on this machine.

Of driving: Box2D's step of the world, and the drawing of the frame. Of the models: their multiplications, at the speed
of one large matrix product, on one core.
"""

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.reference import PlainVAE
from envs.fast_carracing import FastCarRacing
from envs.games import CARRACING
from models.mdrnn import MDRNN
from models.sizes import Sizes
from models.vae import FRAME_SIZE, vae_loss

LARGE = 1024  # rows and columns of the matrices
PRODUCTS = 20
TRAINING = 3  # times the work of a prediction: for every product forward two backward


class ClockedCarRacing(FastCarRacing):
    """Adds up how long Box2D and the drawing take, in all environments together."""

    seconds: ClassVar[float] = 0.0

    def _move_world(self) -> None:
        start = time.perf_counter()
        super()._move_world()
        ClockedCarRacing.seconds += time.perf_counter() - start

    def _render(self, mode: str) -> Any:
        start = time.perf_counter()
        frame = super()._render(mode)
        ClockedCarRacing.seconds += time.perf_counter() - start
        return frame


CLOCKED = replace(CARRACING, kinds={"fast": ClockedCarRacing})


def world_rate(drive: Callable[[], int]) -> float:
    """Steps a second, if nothing else took time than Box2D, what it calls at contacts included, and the drawing. drive:
    takes steps in environments of CLOCKED; returns their number."""
    ClockedCarRacing.seconds = 0.0
    steps = drive()
    return steps / ClockedCarRacing.seconds


def both(one: float, other: float) -> float:
    """The rate of doing one thing and then the other, given the rate of each."""
    return 1 / (1 / one + 1 / other)


def peak(dtype: torch.dtype) -> float:
    """Floating-point operations a second of a large matrix product; a multiplication and an addition are two."""
    one, other = torch.randn(2, LARGE, LARGE).to(dtype)
    one @ other  # it is prepared at the first time
    start = time.perf_counter()
    for _ in range(PRODUCTS):
        one @ other
    return PRODUCTS * 2 * LARGE**3 / (time.perf_counter() - start)


def encoding(sizes: Sizes) -> int:
    """Operations of V's encoder on a frame."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        PlainVAE(sizes).encoder(torch.zeros(1, 3, FRAME_SIZE, FRAME_SIZE))
    return counter.get_total_flops()


def vae_training(sizes: Sizes) -> int:
    """Operations of V's training on a frame."""
    image = torch.zeros(1, 3, FRAME_SIZE, FRAME_SIZE)
    with FlopCounterMode(display=False) as counter:
        reconstruction, mu, logsigma = PlainVAE(sizes)(image)
        torch.stack(vae_loss(reconstruction, image, mu, logsigma)).sum().backward()
    return counter.get_total_flops()


def remembering(sizes: Sizes) -> int:
    """Operations of M's LSTM in a moment."""
    return 2 * sum(weight.numel() for weight in MDRNN(sizes).rnn.parameters() if weight.dim() == 2)


def predicting(sizes: Sizes) -> int:
    """Operations of M in a moment, with the mixture."""
    return remembering(sizes) + 2 * MDRNN(sizes).gmm_linear.weight.numel()
