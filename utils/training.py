"""What the training of V and of M share: the loop over epochs, random numbers by epoch, the learning rate, early
stopping, saving and resuming."""

import argparse
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau
from torchvision.utils import save_image
from tqdm import tqdm

from utils.checkpoints import file_to_resume, load_weights, save_checkpoint
from utils.commandline import UserError, add_device_argument, natural_int, uninterrupted
from utils.curves import draw_loss_curve
from utils.logs import CurveWriter

# Without the rise a high learning rate may make training diverge (docs/PERFORMANCE.md).
WARM_UP = 150  # steps
REST = 0.3  # of an epoch
PLATEAU_PATIENCE = 5  # the learning rate is halved after more epochs than this without a better test loss
STOPPING_PATIENCE = 30  # and training ends after this many


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

    @abstractmethod
    def pictures(self) -> dict[str, Tensor]:
        """Images (3, H, W) with numbers in [0, 1] that show how good the model is, by name."""


def seed_epoch(seed: int, epoch: int) -> None:
    """Seed PyTorch for one epoch. Random numbers depend on seed and epoch alone, so a run that was stopped
    and resumed draws the same ones as a run that was not, and there is no generator state to keep."""
    torch.manual_seed(seed * 1_000_003 + epoch)


def rate_factor(epoch: int, step: int, steps: int) -> float:
    """What the learning rate is multiplied by in a step of an epoch of `steps`, both counted from 0: it rises to 1 over
    the first WARM_UP steps of all, and falls over the last part of every epoch, so that the model that is tested and
    kept has come to rest."""
    return min(1, (epoch * steps + step + 1) / WARM_UP, (1 - step / steps) / REST)


@dataclass
class EarlyStopping:
    """Says when the test loss has not improved for `patience` epochs."""

    patience: int
    best: float = float("inf")
    num_bad_epochs: int = 0

    def step(self, loss: float) -> bool:
        """Take an epoch's test loss; returns whether it is the best so far."""
        improved = loss < self.best
        self.best = min(loss, self.best)
        self.num_bad_epochs = 0 if improved else self.num_bad_epochs + 1
        return improved

    @property
    def stop(self) -> bool:
        return self.num_bad_epochs >= self.patience

    def state_dict(self) -> dict[str, float]:
        return {"best": self.best, "num_bad_epochs": self.num_bad_epochs}

    def load_state_dict(self, state: dict[str, float]) -> None:
        self.best = float(state["best"])
        self.num_bad_epochs = int(state["num_bad_epochs"])


@dataclass
class TrainingRun:
    """One stage's training: what is saved after every epoch and restored by `resume`."""

    folder: Path  # exp_dir/vae or exp_dir/mdrnn
    model: nn.Module
    optimizer: Optimizer
    yardstick: str  # names what the test loss is measured on; under another name it is not comparable
    facts: dict[str, Any]  # more about the model, for its checkpoints
    scheduler: ReduceLROnPlateau = field(init=False)
    stopping: EarlyStopping = field(init=False)
    history: list[dict[str, float]] = field(default_factory=list, init=False)  # one row of figures an epoch
    epoch: int = field(default=0, init=False)  # epochs done

    def __post_init__(self) -> None:
        # PyTorch's own threshold is a share of the best loss: below 0, as M's, a worse loss would count as better.
        self.scheduler = ReduceLROnPlateau(self.optimizer, factor=0.5, patience=PLATEAU_PATIENCE, threshold=0)
        self.stopping = EarlyStopping(STOPPING_PATIENCE)

    def resume(self) -> bool:
        """Go on from the folder's checkpoint.tar, or its best.tar where that is all there is; False if training begins,
        be it at the weights found there: a shipped model has no optimizer, M of the 2018 implementation another one.
        Raises UserError if the file is damaged.

        The best test loss is forgotten if it was measured by another yardstick: the next epoch is the best then.
        """
        path = file_to_resume(self.folder)
        if path is None:
            return False
        remedy = "add --noreload to start over"
        state = load_weights(self.model, path, remedy)
        try:
            groups = state.get("optimizer", {"param_groups": [{}]})["param_groups"]
            if not self.optimizer.defaults.keys() <= groups[0].keys():
                print(f"{path}: weights without a state of this optimizer: a new training begins at them")
                return False
            self.optimizer.load_state_dict(state["optimizer"])
            # What it has seen counts, and today's constants.
            constants = {name: getattr(self.scheduler, name) for name in ("factor", "patience", "threshold")}
            self.scheduler.load_state_dict(state["scheduler"] | constants)
            self.stopping.load_state_dict(state["earlystopping"])
            self.epoch = int(state["epoch"])
            self.history = list(state.get("history", []))  # the 2018 implementation keeps none
            if state.get("yardstick", self.yardstick) != self.yardstick:
                print("the test loss is measured otherwise than before: the best so far does not count any more")
                self.stopping = EarlyStopping(self.stopping.patience)
                self.scheduler.best, self.scheduler.num_bad_epochs = float("inf"), 0
        except (LookupError, TypeError, ValueError) as error:
            raise UserError(f"{path}: cannot be resumed from ({error!r}); {remedy}") from None
        return True

    def is_complete(self, epochs: int) -> bool:
        """Whether there is nothing left to train, which it says. Raises UserError if the best model, although trained
        for so many epochs, was so for other data or another loss."""
        if self.epoch < epochs and not self.stopping.stop:
            return False
        if self.history and self.stopping.best == float("inf"):
            raise UserError(
                f"{self.folder / 'best.tar'}: trained for {self.epoch} epochs, but with other data, options or "
                "another V; give more --epochs to go on, or add --noreload to start over"
            )
        print(f"training is complete: {self.folder / 'best.tar'} (--noreload starts over)")
        return True

    def pace(self, batches: Sequence[Tensor]) -> Iterator[Tensor]:
        """The batches of an epoch, the learning rate set for each; after the last it is the scheduler's again."""
        (group,) = self.optimizer.param_groups
        rate = group["lr"]
        for step, batch in enumerate(batches):
            group["lr"] = rate * rate_factor(self.epoch, step, len(batches))
            yield batch
        group["lr"] = rate

    def finish_epoch(self, row: dict[str, float]) -> None:
        """Count an epoch with these figures; by its "loss/test" adapt the learning rate, and save."""
        loss = row["loss/test"]
        self.epoch += 1
        self.history.append(row)
        self.scheduler.step(loss)
        self.save(best=self.stopping.step(loss))

    def save(self, best: bool) -> None:
        """Write checkpoint.tar, and best.tar if the model is the best so far."""
        state = {
            "state_dict": self.model.state_dict(),
            "epoch": self.epoch,
            "precision": self.history[-1]["loss/test"] if self.history else float("inf"),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "earlystopping": self.stopping.state_dict(),
            "yardstick": self.yardstick,
            "history": self.history,
            **self.facts,
        }
        # best.tar first: if the run dies between the two, the epoch is done again and best.tar written again.
        if best:
            save_checkpoint(self.folder / "best.tar", state)
        save_checkpoint(self.folder / "checkpoint.tar", state)


def add_training_arguments(parser: argparse.ArgumentParser, stage: str) -> None:
    """The options that V's and M's training have in common."""
    option = parser.add_argument
    option("--logdir", type=Path, required=True, help=f"run folder; the results are in its folder {stage}")
    option("--dataset", type=Path, default=Path("datasets/carracing"), help="folder of the rollouts")
    option("--epochs", type=natural_int, default=20, help="epochs in all; 0: leave the model untrained")
    option("--nosamples", action="store_true", help="make no pictures")
    option("--seed", type=natural_int, default=0, help="decides weights, order and noise")
    option("--noreload", action="store_true", help="start over instead of going on from checkpoint.tar")
    option("--float32", action="store_true", help="compute in float32 even where bfloat16 is faster")
    add_device_argument(parser)


def has_work(run: TrainingRun, epochs: int, reload: bool) -> bool:
    """Resume the run, if it is to be; False if there is nothing left to train. With `epochs` 0 an untrained model is
    saved. Raises UserError as `TrainingRun.resume` and `is_complete` do."""
    if reload and run.resume():
        print(f"going on after epoch {run.epoch} (best test loss {run.stopping.best:.4f})")
    if run.epoch == epochs == 0:
        run.save(best=True)
    return not run.is_complete(epochs)


def train(
    run: TrainingRun,
    objective: Objective,
    train_set: TrainingSet,
    test_set: TrainingSet,
    epochs: int,
    seed: int,
    pictures: bool,
) -> None:
    """Train up to so many epochs in all, or until the test loss has stalled."""
    with CurveWriter(run.folder, run.history) as curves:
        while run.epoch < epochs and not run.stopping.stop:
            epoch = run.epoch + 1
            seed_epoch(seed, epoch)
            train_set.refill(seed, epoch)
            start = time.monotonic()
            rate = run.optimizer.param_groups[0]["lr"]
            train_terms = train_epoch(run, objective, train_set)
            speed = len(train_set) / (time.monotonic() - start)
            row = {"learning_rate": rate} | figures(objective, "train", train_terms)
            row |= figures(objective, "test", test_epoch(run, objective, test_set))
            with uninterrupted():
                curves.add_figures(row, epoch)
                run.finish_epoch(row)
                print(
                    f"epoch {epoch}: train loss {row['loss/train']:.4f}, test loss {row['loss/test']:.4f}, "
                    f"{len(train_set)} {objective.items} at {speed:.0f} a second"
                )
                draw_loss_curve(run.history, run.folder / "curve.png", objective.title)
                if pictures:
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
    """The mean of the loss's terms (K,) over the test set."""
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
            save_image(picture, folder / f"{name}_{epoch}.png")
            curves.add_image(name, picture.numpy(), epoch)
