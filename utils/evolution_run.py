"""C's evolution as it lies on the disk: what is saved after every generation, and restored by `resume`."""

from dataclasses import dataclass, field
from pathlib import Path

import torch

from models.controller import Architecture, Controller
from utils.checkpoints import load_checkpoint, save_checkpoint
from utils.cma_evolution import CmaEvolution
from utils.commandline import UserError
from utils.mirrored_evolution import MirroredEvolution

Evolution = MirroredEvolution | CmaEvolution


@dataclass
class EvolutionRun:
    """A search with its history and the best score of its mean."""

    folder: Path  # exp_dir/ctrl
    architecture: Architecture
    evolution: Evolution
    measure: str  # names what the mean's score is an average over; under another name it is not comparable
    history: list[dict[str, float]] = field(default_factory=list, init=False)  # one row of figures a generation
    best: float = field(default=-float("inf"), init=False)  # score of the mean in best.tar

    @property
    def episodes(self) -> int:
        """Training episodes driven so far."""
        return int(self.history[-1]["episodes"]) if self.history else 0

    @property
    def seconds(self) -> float:
        """Time taken so far, that of earlier sessions included."""
        return self.history[-1]["seconds"] if self.history else 0.0

    @property
    def standing(self) -> str:
        """The best score in words."""
        if self.best == -float("inf"):
            return "the mean has no score yet with this V and M"
        return f"best mean on the selection tracks: {self.best:.1f}"

    def resume(self) -> bool:
        """Go on from the folder's checkpoint.tar; False if there is none. Raises UserError if that cannot be.

        The best score is forgotten if it was measured otherwise: the mean that is scored next is the best then.
        """
        path = self.folder / "checkpoint.tar"
        if not path.exists():
            return False
        remedy = "use the settings it was started with, or add --noreload to start over"
        state = load_checkpoint(path, remedy)
        try:
            self.evolution.load_state_dict(state["evolution"])
            self.history = list(state["history"])
            if state.get("measure") == self.measure:
                self.best = float(state["reward"])
            else:
                print("V, M or --eval-episodes have changed: the best mean so far does not count any more")
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise UserError(f"{path}: cannot be resumed from ({error}); {remedy}") from None
        return True

    def finish_generation(self, row: dict[str, float]) -> None:
        """Count a generation with these figures, and write checkpoint.tar; best.tar, too, if the mean was just scored
        ("return/mean") better than ever, or was never scored."""
        self.history.append(row)
        score = row.get("return/mean")
        improved = score is not None and score > self.best
        self.best = score if improved else self.best
        mean = Controller.from_vector(self.architecture, torch.from_numpy(self.evolution.mean))
        state = {
            "state_dict": mean.state_dict(),
            "epoch": self.evolution.generation,
            "reward": self.best,
            "measure": self.measure,
            "evolution": self.evolution.state_dict(),
            "history": self.history,
        }
        # best.tar first: if the run dies between the two, the generation is done again and best.tar written again.
        if improved or not any("return/mean" in row for row in self.history):
            save_checkpoint(self.folder / "best.tar", state)
        save_checkpoint(self.folder / "checkpoint.tar", state)
