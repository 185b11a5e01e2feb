"""V's and M's training as it lies on the disk: what is saved after every epoch and restored by `resume`, the
learning-rate schedule, and early stopping."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau

from envs.games import CARRACING
from utils.checkpoints import all_finite, file_to_resume, fit_weights, load_checkpoint, require_best, save_checkpoint
from utils.commandline import UserError

# Without the rise a high learning rate may make training diverge (docs/PERFORMANCE.md).
WARM_UP = 150  # steps
REST = 0.3  # of an epoch
PLATEAU_PATIENCE = 5  # the learning rate is halved after more epochs than this without a better test loss
STOPPING_PATIENCE = 30  # and training ends after this many
ADAMS_OWN = "betas"  # what tells its state from those of other optimizers, in all versions of PyTorch


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
        if math.isnan(self.best):  # no loss would ever be better
            raise ValueError("its best loss is NaN")
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

    @property
    def learning_rate(self) -> float:
        """The one that training begins with."""
        return float(self.optimizer.defaults["lr"])

    def resume(self) -> bool:
        """Go on from the folder's checkpoint.tar, or its best.tar where that is all there is; False if training begins,
        be it at the weights found there: a shipped model has no optimizer, M of the 2018 implementation another one.
        Raises UserError if the file is damaged, or of another game.

        The best test loss is forgotten if it was measured by another yardstick: the next epoch is the best then. The
        learning rate begins anew then, and if the training began with another one.
        """
        path = file_to_resume(self.folder)
        if path is None:
            return False
        remedy = "add --noreload to start over"
        state = load_checkpoint(path, remedy)
        game, wanted = (facts.get("game", CARRACING.name) for facts in (state, self.facts))
        if game != wanted:
            raise UserError(f"{path}: of {game}, not of {wanted}; choose another --logdir, or {remedy}")
        fit_weights(self.model, state, path, remedy)
        try:
            groups = state.get("optimizer", {"param_groups": [{}]})["param_groups"]
            if ADAMS_OWN not in groups[0]:
                print(f"{path}: weights without a state of this optimizer: a new training begins at them")
                return False
            self.optimizer.load_state_dict(state["optimizer"])
            # What it has seen counts, and today's constants.
            constants = {name: getattr(self.scheduler, name) for name in ("factor", "patience", "threshold")}
            self.scheduler.load_state_dict(state["scheduler"] | constants)
            self.stopping.load_state_dict(state["earlystopping"])
            self.epoch = int(state["epoch"])
            self.history = list(state.get("history", []))  # the 2018 implementation keeps none
            measured_otherwise = state.get("yardstick", self.yardstick) != self.yardstick
            if measured_otherwise:
                print("the test loss is measured otherwise than before: the best so far does not count any more")
                self.stopping = EarlyStopping(self.stopping.patience)
                self.scheduler.best, self.scheduler.num_bad_epochs = float("inf"), 0
            if measured_otherwise or state.get("learning_rate", self.learning_rate) != self.learning_rate:
                self.optimizer.param_groups[0]["lr"] = self.learning_rate
        except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
            raise UserError(f"{path}: cannot be resumed from ({error!r}); {remedy}") from None
        return True

    def is_complete(self, epochs: int) -> bool:
        """Whether there is nothing left to train, which it says. Raises UserError if the best model, although trained
        for so many epochs, was so for other data or another loss, or is missing."""
        if self.epoch < epochs and not self.stopping.stop:
            return False
        if self.history and self.stopping.best == float("inf"):
            raise UserError(
                f"{self.folder / 'best.tar'}: trained for {self.epoch} epochs, but with other data, options or "
                "another V; give more --epochs to go on, or add --noreload to start over"
            )
        require_best(self.folder)
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

    def finish_epoch(self, row: dict[str, float], extras: Callable[[], dict[str, Any]] = dict) -> None:
        """Count an epoch with these figures; by its "loss/test" adapt the learning rate, and save. The extras go into
        best.tar. Raises UserError, and saves nothing, if training has diverged."""
        if not all_finite(self.model) or not all(map(math.isfinite, (row.get("loss/train", 0.0), row["loss/test"]))):
            raise UserError(
                f"{self.folder}: training has diverged in epoch {self.epoch + 1} (test loss {row['loss/test']}); what "
                "was saved before is kept: give the same command with a smaller --learning-rate"
            )
        loss = row["loss/test"]
        self.epoch += 1
        self.history.append(row)
        self.scheduler.step(loss)
        self.save(best=self.stopping.step(loss), extras=extras)

    def save(self, best: bool, extras: Callable[[], dict[str, Any]] = dict) -> None:
        """Write checkpoint.tar, and best.tar if the model is the best so far."""
        state = {
            "state_dict": self.model.state_dict(),
            "epoch": self.epoch,
            "precision": self.history[-1]["loss/test"] if self.history else float("inf"),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "earlystopping": self.stopping.state_dict(),
            "yardstick": self.yardstick,
            "learning_rate": self.learning_rate,
            "history": self.history,
            **self.facts,
        }
        # best.tar first: if the run dies between the two, the epoch is done again and best.tar written again.
        if best:
            save_checkpoint(self.folder / "best.tar", state | extras())
        save_checkpoint(self.folder / "checkpoint.tar", state)
