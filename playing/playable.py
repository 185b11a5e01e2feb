"""What there is to play with in a run folder."""

from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import gymnasium
import numpy as np
import torch

from envs.dream import DreamEnv
from envs.games import Game
from models.mdrnn import MDRNN
from models.world_model import WorldModel
from playing.agent import Agent
from utils.commandline import UserError, pick_kind
from utils.precision import fast_dtype
from utils.run_folder import is_trained, load_controller, load_game, load_mdrnn, load_world_weights, open_dream


class Playable(NamedTuple):
    game: Game
    environment: gymnasium.Env  # the real one
    world: WorldModel
    controller: np.ndarray | None  # C's parameters (P,), if there is one
    mdrnn: MDRNN | None  # if it can dream, and has learned to predict rewards for it
    dreamer: DreamEnv | None  # the environment that it is then
    why_no_dream: str = ""

    def agent(self) -> Agent:
        """An agent for one episode."""
        return Agent(self.world, self.controller, self.mdrnn)


def load_playable(logdir: Path, kind: str | None = None, temperature: float = 1.0) -> Playable:
    """The game of a run folder in an environment of this kind (None: the fastest), its V, and M and C if there are any,
    on the CPU. Raises UserError if V is missing, or something is damaged or does not fit the rest."""
    game, sizes = load_game(logdir)
    environment = game.make(pick_kind(kind, game.training_kind, game))
    controller = load_controller(logdir) if is_trained(logdir, "ctrl") else None
    sizes = controller.sizes if controller else replace(sizes, inputs="z", hidden_units=0)
    weights = load_world_weights(logdir, sizes, memory=is_trained(logdir, "mdrnn"))
    device = torch.device("cpu")
    parameters = controller.to_vector().numpy() if controller else None
    playable = Playable(game, environment, WorldModel(weights, device, fast_dtype(device)), parameters, None, None)
    try:
        dreamer = open_dream(logdir, temperature=temperature)
    except UserError as error:
        return playable._replace(why_no_dream=str(error))
    mdrnn = load_mdrnn(logdir).eval() if game.step_reward is None else None
    return playable._replace(mdrnn=mdrnn, dreamer=dreamer)
