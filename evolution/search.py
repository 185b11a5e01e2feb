"""What a search for C is made of: its settings, and the search itself built from them."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from evolution.cma import CmaEvolution
from evolution.gradient import PolicyGradient
from evolution.mirrored import MirroredEvolution
from evolution.standardised import InputSpread, StandardisedEvolution
from models.controller import Controller, zero_controller
from models.sizes import Sizes
from utils.commandline import UserError
from utils.dreams import Dreams
from utils.run_folder import load_controller

Evolution = MirroredEvolution | CmaEvolution | StandardisedEvolution
Search = Evolution | PolicyGradient

CMA, CMA_DIAGONAL, MIRRORED, MIRRORED_BY_SIZE = "cma", "cma-diagonal", "mirrored", "mirrored-by-size"
GRADIENT = "gradient"  # in dreams only
SEARCHES = (CMA, CMA_DIAGONAL, MIRRORED, MIRRORED_BY_SIZE, GRADIENT)


@dataclass(frozen=True)
class SearchSettings:
    """Of the last four, only studies change what the game and the defaults say (studies/compare.py)."""

    search: str = CMA_DIAGONAL  # one of SEARCHES
    population: int = 32
    samples: int = 4  # episodes that every candidate of a generation drives
    sigma: float = 0.1  # deviation of the candidates' weights; with CMA-ES the initial one
    memory_sigma: float = 0.1  # that of the weights of M's state
    seed: int = 0
    eval_episodes: int = 64  # selection episodes that the mean is scored on
    eval_every: int = 10  # generations
    tracks: int | None = None  # how many seeds a generation has, dealt to the candidates in turn
    patience: int = 0  # end a training episode after so many steps without progress; 0: never
    weight_decay: float = 0.0  # fitness lost for a mean squared weight of 1

    @property
    def mirrored(self) -> bool:
        return self.search in (MIRRORED, MIRRORED_BY_SIZE)

    @property
    def episodes(self) -> int:
        """How many episodes a generation drives."""
        return self.population * self.samples

    @property
    def seeds(self) -> int:
        """How many seeds a generation drives: every pair its own, or with CMA-ES the same for all candidates."""
        return self.tracks or (self.episodes // 2 if self.mirrored else self.samples)

    def check(self) -> None:
        """Raises ValueError if they cannot be."""
        if self.mirrored and self.population % 2:
            raise ValueError("pairs need an even number of candidates")
        if self.seeds < self.samples or (self.mirrored and self.episodes // 2 % self.seeds):
            raise ValueError(f"{self.seeds} seeds cannot be dealt to {self.population} candidates")


def build_search(
    settings: SearchSettings, sizes: Sizes, warm_start: Path | None, spread: InputSpread | None = None
) -> Evolution:
    """The search, at its beginning: at zeros, or at the controller of another run folder; over standardised inputs if
    their spread is given. Raises UserError if the controller is missing or of other sizes."""
    start = starting_point(warm_start, sizes, settings.seed)
    start = spread.standardise(start[None])[0] if spread else start
    scales = search_scales(sizes, settings.memory_sigma / settings.sigma)
    common = (start, scales, settings.population, settings.sigma, settings.seed)
    search: MirroredEvolution | CmaEvolution
    if settings.mirrored:
        search = MirroredEvolution(*common, by_size=settings.search == MIRRORED_BY_SIZE)
    else:
        search = CmaEvolution(*common, diagonal=settings.search == CMA_DIAGONAL)
    return StandardisedEvolution(search, spread) if spread else search


def build_gradient(
    settings: SearchSettings, sizes: Sizes, warm_start: Path | None, spread: InputSpread, dreams: Dreams
) -> PolicyGradient:
    """The same for the search that learns from the moments of dreams. It has as many of them in a generation as the
    candidates of another search have episodes. Raises UserError if the game's steps do not all earn the same."""
    if dreams.game.step_reward is None:
        raise UserError(
            f"--search {GRADIENT} is for games in which every step earns the same, which {dreams.game.name} is not"
        )
    search = PolicyGradient(dreams, sizes, spread, settings.episodes, settings.sigma, settings.seed)
    if warm_start:
        search.begin_at(starting_point(warm_start, sizes, settings.seed))
    return search


def starting_point(logdir: Path | None, sizes: Sizes, seed: int) -> np.ndarray:
    """Where the search begins: the controller of a run folder; without one, a controller that puts out zeros. Raises
    UserError if it is missing or of other sizes."""
    if logdir is None:
        torch.manual_seed(seed)
        return zero_controller(sizes).to_vector().numpy()
    controller = load_controller(logdir)
    if controller.sizes != sizes:
        own = f"--inputs {controller.sizes.inputs} --hidden-units {controller.sizes.hidden_units}"
        raise UserError(
            f"{logdir / 'ctrl' / 'best.tar'}: a controller of other sizes than this run's; its own are {own}"
        )
    return controller.to_vector().numpy()


def search_scales(sizes: Sizes, memory_scale: float) -> np.ndarray:
    """How much each parameter varies (P,): 1, or `memory_scale` if it is a weight of M's state."""
    controller = Controller(sizes)
    for parameter in controller.parameters():
        torch.nn.init.ones_(parameter)
    first_layer = controller.hidden if sizes.hidden_units else controller.fc
    with torch.no_grad():
        first_layer.weight[:, sizes.latent :] = memory_scale
    return controller.to_vector().numpy().astype(np.float64)
