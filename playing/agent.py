"""The agent in one episode: V sees, C acts, and M remembers, also while somebody else drives."""

from typing import NamedTuple

import numpy as np
import torch

from models.mdrnn import MDRNN
from models.vae import FRAME_SIZE
from models.world_model import WorldModel, padded


class Moment(NamedTuple):
    """What V and M know at a moment: a dream can begin there (envs.dream.DreamEnv)."""

    latent: np.ndarray  # (L,) float32
    hidden: np.ndarray  # (H,) float32: M's state before the moment
    cell: np.ndarray  # (H,) float32


class Agent:
    """Acts as in the drive loop (utils.rollouts), bit for bit.

    In every moment: `see`; then `act`, or not; then `remember` the action that was taken.
    """

    def __init__(self, world: WorldModel, controller: np.ndarray | None, mdrnn: MDRNN | None = None):
        """controller (P,): None if there is no C; world: on the CPU; mdrnn: M, if it has learned to predict rewards."""
        rows, sizes = padded(1), world.sizes
        self.can_drive = controller is not None
        self._world = world
        self._mdrnn = mdrnn
        # The first row is the agent; the others are there for the sake of the bits (models.world_model.BATCH_MULTIPLE).
        self._controllers = torch.zeros(rows, sizes.controller)
        if controller is not None:
            self._controllers[0] = torch.from_numpy(controller)
        self._frames = torch.zeros(rows, FRAME_SIZE, FRAME_SIZE, 3, dtype=torch.uint8)
        self._latents = torch.zeros(rows, sizes.latent)
        self._hidden = torch.zeros(rows, sizes.hidden)
        self._cell = torch.zeros(rows, sizes.hidden)
        self._noise = torch.zeros(rows, sizes.action)

    def begin(self, moment: Moment | None = None) -> None:
        """Forget all, or all after the moment."""
        self._hidden[:] = 0 if moment is None else torch.from_numpy(moment.hidden)
        self._cell[:] = 0 if moment is None else torch.from_numpy(moment.cell)

    def see(self, frame: np.ndarray) -> None:
        """The next frame (64, 64, 3) uint8."""
        self._frames[0] = torch.from_numpy(frame)
        self._latents = self._world.encode(self._frames)

    def act(self) -> np.ndarray:
        """C's action (A,)."""
        actions = self._world.act(self._latents, self._controllers, self._hidden, self._cell, self._noise)
        return actions[0].numpy()

    def remember(self, action: np.ndarray) -> None:
        """The action (A,) was taken, by whom ever."""
        actions = torch.from_numpy(action).expand(padded(1), -1)
        self._world.remember(actions, self._latents, self._hidden, self._cell)

    @property
    def moment(self) -> Moment:
        """The present one, as copies."""
        return Moment(*(rows[0].numpy().copy() for rows in (self._latents, self._hidden, self._cell)))

    @torch.inference_mode()
    def predicted_reward(self) -> float | None:
        """M's prediction for the action that was last remembered; None if M predicts no rewards."""
        return None if self._mdrnn is None else float(self._mdrnn.predict(self._hidden[0]).reward)
