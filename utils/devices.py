"""--device: where the models run."""

import argparse

import torch

from utils.commandline import UserError


def add_device_argument(parser: argparse._ActionsContainer) -> None:
    parser.add_argument(
        "--device", choices=["auto", "cpu", "cuda"], default="auto", help="where the models run; auto: a GPU if any"
    )


def pick_device(name: str) -> torch.device:
    """The device for --device {auto,cpu,cuda}. Raises UserError for cuda where there is none."""
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda, but PyTorch sees no GPU here: use --device cpu")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)
