"""What the training of V and of M share: their options, and the loop over epochs."""

import argparse
import functools
import time
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor
from torchvision.utils import save_image
from tqdm import tqdm

from utils.checkpoints import file_to_resume
from utils.commandline import natural_int, positive_float, positive_int, uninterrupted
from utils.curves import draw_loss_curve
from utils.devices import add_device_argument
from utils.files import write_atomically
from utils.logs import CurveWriter
from utils.provenance import recorded
from utils.training_run import TrainingRun


class TrainingSet(Protocol):
    """The items of a tensor of indices (B,) are a batch."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: Tensor, /) -> Any: ...

    def refill(self, seed: int, epoch: int) -> None:
        """Make ready what an epoch trains on; called after PyTorch was seeded for it."""


class Objective(ABC):
    """What is learned: how V's training and M's differ."""

    title: str  # of the curve
    items: str  # what the items of the training set are called
    batch_size: int
    gradient_limit: float | None = None  # of the gradient's norm
    terms: tuple[str, ...]  # of the loss

    @abstractmethod
    def measure(self, batch: Any) -> Tensor:
        """The terms of the loss (K,) of a batch, each a mean over it."""

    @abstractmethod
    def loss(self, terms: Tensor) -> Tensor:
        """The loss that the terms (K,) make."""

    def extras(self) -> dict[str, Any]:
        """What goes with the weights of the best model into its checkpoint."""
        return {}

    @abstractmethod
    def pictures(self) -> dict[str, Tensor]:
        """Images (3, H, W) with numbers in [0, 1] that show how good the model is, by name."""


def seed_epoch(seed: int, epoch: int) -> None:
    """Seed PyTorch for one epoch. Random numbers depend on seed and epoch alone, so a run that was stopped
    and resumed draws the same ones as a run that was not, and there is no generator state to keep."""
    torch.manual_seed(seed * 1_000_003 + epoch)


def add_training_arguments(
    parser: argparse.ArgumentParser, stage: str, items: str, batch_size: int, learning_rate: float
) -> None:
    """The options that V's and M's training have in common, two of them with the stage's own defaults."""
    option = parser.add_argument
    option("--logdir", type=Path, required=True, help=f"run folder; the results are in its folder {stage}")
    option("--dataset", type=Path, default=Path("datasets/carracing"), help="folder of the rollouts")
    option("--epochs", type=natural_int, default=20, help="epochs in all; 0: leave the model untrained")
    option("--batch-size", type=positive_int, default=batch_size, help=f"{items} a step")
    option("--learning-rate", type=positive_float, default=learning_rate, help="at first; halved when it stalls")
    option("--nosamples", action="store_true", help="make no pictures")
    option("--seed", type=natural_int, default=0, help="decides weights, order and noise")
    option("--noreload", action="store_true", help="start over instead of going on from checkpoint.tar")
    option("--float32", action="store_true", help="compute in float32 even where bfloat16 is faster")
    add_device_argument(parser)


def has_work(run: TrainingRun, args: argparse.Namespace) -> bool:
    """Resume the run, if it is to be; False if there is nothing left to train. With --epochs 0 an untrained model is
    saved, if there is none. Raises UserError as `TrainingRun.resume` and `is_complete` do."""
    begins = args.noreload or file_to_resume(run.folder) is None
    if not begins and run.resume():
        print(f"going on after epoch {run.epoch} (best test loss {run.stopping.best:.4f})")
    if begins and args.epochs == 0:
        run.save(best=True)
    return not run.is_complete(args.epochs)


def train(
    run: TrainingRun, objective: Objective, train_set: TrainingSet, test_set: TrainingSet, args: argparse.Namespace
) -> None:
    """Train up to --epochs in all, or until the test loss has stalled; the command is kept in the stage's folder."""
    with recorded(run.folder, args), CurveWriter(run.folder, run.history) as curves:
        while run.epoch < args.epochs and not run.stopping.stop:
            epoch = run.epoch + 1
            seed_epoch(args.seed, epoch)
            train_set.refill(args.seed, epoch)
            start = time.monotonic()
            rate = run.optimizer.param_groups[0]["lr"]
            train_terms = train_epoch(run, objective, train_set)
            speed = len(train_set) / (time.monotonic() - start)
            row = {"learning_rate": rate} | figures(objective, "train", train_terms)
            row |= figures(objective, "test", test_epoch(run, objective, test_set))
            with uninterrupted():
                curves.add_figures(row, epoch)
                run.finish_epoch(row, objective.extras)
                print(
                    f"epoch {epoch}: train loss {row['loss/train']:.4f}, test loss {row['loss/test']:.4f}, "
                    f"{len(train_set)} {objective.items} at {speed:.0f} a second"
                )
                draw_loss_curve(run.history, run.folder / "curve.png", objective.title)
                if not args.nosamples:
                    save_pictures(objective, run.folder / "samples", curves, epoch)


def train_epoch(run: TrainingRun, objective: Objective, train_set: TrainingSet) -> Tensor:
    """One pass over the training set; returns the mean of the loss's terms (K,)."""
    run.model.train()
    total = torch.zeros(len(objective.terms))
    batches = torch.randperm(len(train_set)).split(objective.batch_size)
    paced = run.pace(batches)
    for batch in tqdm(paced, f"epoch {run.epoch + 1}", len(batches), leave=False, disable=None):
        terms = objective.measure(train_set[batch])
        run.optimizer.zero_grad()
        objective.loss(terms).backward()
        if objective.gradient_limit is not None:
            torch.nn.utils.clip_grad_norm_(run.model.parameters(), objective.gradient_limit)
        run.optimizer.step()
        total = total.to(terms.device) + terms.detach() * len(batch)
    return total.cpu() / len(train_set)


@torch.no_grad()
def test_epoch(run: TrainingRun, objective: Objective, test_set: TrainingSet) -> Tensor:
    """The mean of the loss's terms (K,) over the batches of the test set, weighted by their numbers of items."""
    run.model.eval()
    total = torch.zeros(len(objective.terms))
    for batch in torch.arange(len(test_set)).split(objective.batch_size):
        terms = objective.measure(test_set[batch])
        total = total.to(terms.device) + terms * len(batch)
    return total.cpu() / len(test_set)


def figures(objective: Objective, side: str, terms: Tensor) -> dict[str, float]:
    """What the curves show of the terms (K,) on the `side` ("train", "test") of the data."""
    return {f"loss/{side}": objective.loss(terms).item()} | {
        f"loss/{name}_{side}": value for name, value in zip(objective.terms, terms.tolist(), strict=True)
    }


def save_pictures(objective: Objective, folder: Path, curves: CurveWriter, epoch: int) -> None:
    folder.mkdir(exist_ok=True)
    with torch.no_grad():
        for name, picture in objective.pictures().items():
            path = folder / f"{name}_{epoch}.png"
            write_atomically(path, functools.partial(save_image, picture, format="png"))
            curves.add_image(name, picture.numpy(), epoch)
