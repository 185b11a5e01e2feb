"""C's evolution as it lies on the disk: what is saved after every generation, and restored by `resume`."""

import math
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from envs.games import Game
from evolution.gradient import PolicyGradient
from evolution.search import GRADIENT, Search, SearchSettings, build_gradient, build_search
from evolution.standardised import StandardisedEvolution, input_spread
from models.controller import Controller
from models.sizes import Sizes
from utils.checkpoints import file_to_resume, load_checkpoint, save_checkpoint
from utils.commandline import UserError, first_line
from utils.dreams import Dreams
from utils.run_folder import controller_sizes, fingerprint, load_starts


@dataclass
class EvolutionRun:
    """A search with its history and the best score of its mean."""

    folder: Path  # exp_dir/ctrl
    game: str
    sizes: Sizes
    evolution: Search
    measure: str  # names what the mean's score is an average over; under another name it is not comparable
    keeps_best: bool = False  # best.tar is an earlier controller, which stays there until a mean is scored
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
        return f"{'last' if self.keeps_last else 'best'} mean on the selection episodes: {self.best:.1f}"

    @property
    def keeps_last(self) -> bool:
        """Whether the mean that was scored last is in best.tar, and not the one that scored best: where C learns by a
        gradient, nearly all dreams last to their end, so that their score tells less than how long it has learned."""
        return isinstance(self.evolution, PolicyGradient)

    def resume(self) -> bool:
        """Go on from the folder's checkpoint.tar, or its best.tar where that is all there is; False if no search is in
        it. Raises UserError if that cannot be.

        The best score is forgotten if it was measured otherwise: the mean that is scored next is the best then.
        """
        path = file_to_resume(self.folder)
        if path is None:
            return False
        remedy = "use the settings it was started with, or add --noreload to start over"
        state = load_checkpoint(path, remedy)
        if "evolution" not in state and path.name == "best.tar":  # a controller that came without its search
            return False
        try:
            if controller_sizes(state, path, remedy) != self.sizes:
                raise ValueError("the saved evolution is of another kind of controller")
            standardised = isinstance(self.evolution, StandardisedEvolution | PolicyGradient)
            if "input_mean" in state["evolution"] and not standardised:
                raise ValueError("its inputs were standardised: by another --search, or moments that M no longer has")
            self.evolution.load_state_dict(state["evolution"])
            self.history = [{name: float(figure) for name, figure in row.items()} for row in state["history"]]
            if not all({"episodes", "seconds"} <= row.keys() for row in self.history):
                raise ValueError("its history is damaged")
            self.keeps_best = bool(state.get("keeps_best", False))
            if state.get("measure") == self.measure:
                self.best = float(state["reward"])
                if math.isnan(self.best):  # no score would ever be better
                    raise ValueError("its best score is NaN")
            else:
                print(
                    "what the mean is scored in has changed (V, M, --env, ...): the best so far does not count any more"
                )
        except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RuntimeError) as error:
            raise UserError(f"{path}: cannot be resumed from ({first_line(error)}); {remedy}") from None
        return True

    def finish_generation(self, row: dict[str, float]) -> None:
        """Count a generation with these figures, and write checkpoint.tar; best.tar, too, if the mean was just scored
        ("return/mean") better than ever, or was never scored and there is nothing better.

        Raises UserError, and writes nothing, if the mean is not finite.
        """
        if not np.isfinite(self.evolution.mean).all():
            raise UserError(
                f"{self.folder}: the search has diverged in generation {self.evolution.generation}; what was saved "
                "before is kept: give the same command with a smaller --sigma"
            )
        self.history.append(row)
        score = row.get("return/mean")
        improved = score is not None and (score > self.best or self.keeps_last)
        if score is not None and improved:
            self.best = score
        mean = Controller.from_vector(self.sizes, torch.from_numpy(self.evolution.mean))
        state = {
            "state_dict": mean.state_dict(),
            "game": self.game,
            "sizes": self.sizes.to_dict(),
            "epoch": self.evolution.generation,
            "reward": self.best,
            "measure": self.measure,
            "evolution": self.evolution.state_dict(),
            "history": self.history,
            "keeps_best": self.keeps_best,
        }
        # best.tar first: if the run dies between the two, the generation is done again and best.tar written again.
        never_scored = not any("return/mean" in row for row in self.history)
        if improved or (never_scored and not self.keeps_best):
            save_checkpoint(self.folder / "best.tar", state)
        save_checkpoint(self.folder / "checkpoint.tar", state)


def open_run(
    logdir: Path,
    game: Game,
    kind: str,
    sizes: Sizes,
    settings: SearchSettings,
    warm_start: Path | None,
    reload: bool,
    dreams: Dreams | None = None,
) -> EvolutionRun:
    """C's evolution in a run folder: resumed, or at its beginning. Raises UserError if that cannot be.

    A linear C that sees M's cell state is searched for over standardised inputs. The search by gradient needs dreams.
    """
    folder = logdir / "ctrl"
    # A controller that may have come without its search, as those of the 2018 implementation do.
    found = reload and file_to_resume(folder) == folder / "best.tar"
    begin = warm_start or (logdir if found else None)
    evolution: Search
    if settings.search == GRADIENT:
        assert dreams is not None
        evolution = build_gradient(settings, sizes, begin, input_spread(dreams.starts, sizes), dreams)
    else:
        starts = load_starts(logdir) if "c" in sizes.inputs and not sizes.hidden_units else None
        evolution = build_search(settings, sizes, begin, input_spread(starts, sizes) if starts else None)
    measure = f"{settings.eval_episodes} tracks ({kind}) with {fingerprint(logdir, 'vae', 'mdrnn')}"
    run = EvolutionRun(folder, game.name, sizes, evolution, measure, keeps_best=found)
    if reload and run.resume():
        print(f"continuing after generation {evolution.generation}, step size {evolution.sigma:.4g}; {run.standing}")
        if warm_start:
            print("--warm-start does not count: the search has begun (--noreload starts over)")
    elif found and not warm_start:
        print(f"a new search begins at {folder / 'best.tar'}, which stays until a mean is scored")
    return run
