"""M as an environment: dreams of a game, with the interface of the real one (paper, section 4.2).

`DreamBatch` goes on with many dreams at once, on latents alone, for training. `DreamEnv` is one dream with V's decoder,
for everybody else: neither a viewer nor an agent can tell it from the real environment.
"""

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import gymnasium
import numpy as np
import torch
from torch import Tensor

from envs.batch import Steps
from envs.errors import refuse_not_finite
from envs.games import Game
from models.dream import DreamModel
from models.vae import FRAME_SIZE, Decoder
from models.world_model import Weights, padded

NOISE_AHEAD = 50  # steps whose noise is drawn at once
MAGNIFICATION = 8  # of a frame that is rendered for viewers
GAIN_MEMORY = 0.9  # the predicted reward is smooth; what the average of some ten steps says counts as progress


class Starts(NamedTuple):
    """Where dreams begin: S moments of real rollouts, as V and M see them."""

    mu: np.ndarray  # (S, L) float32: V's posterior of the frame
    logsigma: np.ndarray  # (S, L) float32
    hidden: np.ndarray  # (S, H) float32: M's state before it; zeros where the rollout begins
    cell: np.ndarray  # (S, H) float32
    steps: np.ndarray  # (S,): how many steps into the rollout; 0: it begins there


@dataclass(frozen=True)
class DreamSettings:
    """How to dream."""

    temperature: float = 1.0  # see models.mdrnn.sample_mixture
    horizon: int | None = None  # a dream is truncated after so many steps; None: as many as the game's episodes
    dtype: torch.dtype = torch.float32  # of M's matrix products
    beginnings: float = 1.0  # share of the dreams that begin where rollouts do; the others, anywhere (there, too)


class DreamBatch:
    """Dreams that go on together. Row i of every array belongs to dream i; the first rows are those in play.

    A dream depends on its seed and the actions alone, however many others go on beside it. That `actions` and all
    tensors have a multiple of BATCH_MULTIPLE rows makes it so to the last bit.
    """

    def __init__(self, game: Game, weights: Weights, starts: Starts, settings: DreamSettings, count: int):
        self._game = game
        self._starts = starts
        self._beginnings_share = settings.beginnings
        self._horizon = settings.horizon or game.max_steps
        self.model = DreamModel(weights, settings.temperature, settings.dtype)
        sizes, count = weights.sizes, padded(count)
        self.latents = torch.zeros(count, sizes.latent)
        self.hidden = torch.zeros(count, sizes.hidden)
        self.cell = torch.zeros(count, sizes.hidden)
        self.terminal_logits = torch.zeros(count)
        self._generators = [np.random.default_rng(0)] * count
        self._noise = torch.zeros(count, NOISE_AHEAD, sum(sizes.noise))
        self._steps = np.zeros(count, int)
        self._patience = np.zeros(count, int)
        self._earned = np.zeros(count)  # above idling
        self._gain = np.zeros(count)  # the same in a step, on average
        self._stalled = np.zeros(count, int)  # steps since progress was last predicted
        groups = (np.flatnonzero(starts.steps == 0), np.arange(len(starts.steps)))
        self._beginnings, self._anywhere = groups if len(groups[0]) else (groups[1], groups[1])

    def reset(self, row: int, seed: int, patience: int = 0) -> None:
        """Begin a dream, which is ended after `patience` steps without progress (0: never)."""
        generator = np.random.default_rng(seed)
        group = self._beginnings if generator.random() < self._beginnings_share else self._anywhere
        start = group[generator.integers(len(group))]
        mu, logsigma = self._starts.mu[start], self._starts.logsigma[start]
        latent = mu + np.exp(logsigma) * generator.standard_normal(len(mu), np.float32)
        self.begin_at(row, [latent, self._starts.hidden[start], self._starts.cell[start]], generator, patience)

    def begin_at(self, row: int, state: list[np.ndarray], generator: np.random.Generator, patience: int = 0) -> None:
        """Begin a dream at a state: a latent (L,), and M's hidden and cell state (H,) before it."""
        self.latents[row], self.hidden[row], self.cell[row] = map(torch.from_numpy, state)
        self._generators[row] = generator
        self._steps[row] = self._stalled[row] = self._gain[row] = self._earned[row] = 0
        self._patience[row] = patience

    def step(self, count: int, actions: Tensor) -> Steps:
        """Take the actions (padded(N), A) in the first N dreams; those behind have no meaning. Raises UserError if one
        is not finite."""
        rows = padded(count)
        if not math.isfinite(actions.sum()):
            for action in actions.tolist():
                refuse_not_finite(action)
        ahead = self._steps[:rows] % NOISE_AHEAD
        for row in np.flatnonzero(ahead[:count] == 0).tolist():
            self._draw_noise(row)
        noise = self._noise[np.arange(rows), ahead]
        dreamed = self.model.step(actions, self.latents[:rows], self.hidden[:rows], self.cell[:rows], noise)
        self.latents[:rows], self.terminal_logits[:rows] = dreamed.latents, dreamed.terminal_logits
        predicted, earned = dreamed.rewards[:count].double().numpy(), self._game.step_reward
        rewards = predicted if earned is None else np.full(count, earned)
        self._earned[:count] += rewards - self._game.idle_reward
        ended = dreamed.terminal_logits[:count].numpy() > 0
        terminated = ended | (self._earned[:count] >= self._game.whole_gain)
        self._steps[:count] += 1
        hopeless = self._are_hopeless(rewards) & ~terminated
        left = np.where(hopeless, self._horizon - self._steps[:count], 0)
        truncated = (self._steps[:count] >= self._horizon) | hopeless
        return Steps(rewards, -self._game.idle_reward * left, terminated, truncated)

    def _draw_noise(self, row: int) -> None:
        generator, (normals, uniforms) = self._generators[row], self.model.sizes.noise
        self._noise[row, :, :normals] = torch.from_numpy(
            generator.standard_normal((NOISE_AHEAD, normals), dtype=np.float32)
        )
        self._noise[row, :, normals:] = torch.from_numpy(generator.random((NOISE_AHEAD, uniforms), dtype=np.float32))

    def _are_hopeless(self, rewards: np.ndarray) -> np.ndarray:
        """Which dreams have lost their patience in this step (N,) bool."""
        count = len(rewards)
        gain = self._gain[:count]
        gain += (1 - GAIN_MEMORY) * (rewards - self._game.idle_reward - gain)
        self._stalled[:count] = np.where(gain > self._game.least_gain, 0, self._stalled[:count] + 1)
        return (self._patience[:count] > 0) & (self._stalled[:count] >= self._patience[:count])

    def swap(self, row: int, other: int) -> None:
        """Let two dreams change places."""
        pair, reverse = [row, other], [other, row]
        for tensor in (self.latents, self.hidden, self.cell, self.terminal_logits, self._noise):
            tensor[pair] = tensor[reverse]
        for column in (self._steps, self._patience, self._earned, self._gain, self._stalled):
            column[pair] = column[reverse]
        self._generators[row], self._generators[other] = self._generators[other], self._generators[row]


class DreamEnv(gymnasium.Env):
    """One dream of a game: observations (64, 64, 3) uint8, actions in the game's box, truncated at the horizon.

    The info of `reset` and `step` has "latent" (L,), what is decoded to the observation; that of `step` also "reward",
    M's prediction where the game's rewards differ, and "terminal", the probability of an end that it predicts.

    `reset` takes options: "latent" (L,), "hidden" and "cell" (H,) begin the dream at that state.
    """

    metadata = {"render_modes": ["rgb_array"]}

    def __init__(
        self,
        game: Game,
        weights: Weights,
        starts: Starts,
        decoder: Decoder,
        settings: DreamSettings = DreamSettings(),
        render_mode: str | None = None,
    ):
        sizes = weights.sizes
        low, high = (np.array(bound, np.float32) for bound in (sizes.lowest_action, sizes.highest_action))
        self.observation_space = gymnasium.spaces.Box(0, 255, (FRAME_SIZE, FRAME_SIZE, 3), np.uint8)
        self.action_space = gymnasium.spaces.Box(low, high)
        self.metadata = self.metadata | {"render_fps": game.frames_per_second}
        self.render_mode = render_mode
        self._dreams = DreamBatch(game, weights, starts, settings, 1)
        self._decoder = decoder.eval()

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        """Begin the dream of a seed; without one, any."""
        super().reset(seed=seed)
        if seed is None:
            seed = int(self.np_random.integers(2**31))
        if options:
            state = [np.asarray(options[name], np.float32) for name in ("latent", "hidden", "cell")]
            self._dreams.begin_at(0, state, np.random.default_rng(seed))
        else:
            self._dreams.reset(0, seed)
        return self._decode(), {"latent": self.latent}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        """Take the action (A,): M's next latent is drawn. Raises UserError if the action is not finite."""
        steps = self._dreams.step(1, torch.as_tensor(np.asarray(action, np.float32)).expand(padded(1), -1))
        reward = float(steps.rewards[0])
        terminal = float(self._dreams.terminal_logits[0].sigmoid())
        info = {"latent": self.latent, "reward": reward, "terminal": terminal}
        return self._decode(), reward, bool(steps.terminated[0]), bool(steps.truncated[0]), info

    @property
    def latent(self) -> np.ndarray:
        """The dream's latent (L,), a copy."""
        return self._dreams.latents[0].numpy().copy()

    @property
    def temperature(self) -> float:
        """Of the steps to come; it may be changed within a dream."""
        return self._dreams.model.temperature

    @temperature.setter
    def temperature(self, temperature: float) -> None:
        self._dreams.model.temperature = temperature

    def render(self) -> np.ndarray | None:
        """The frame enlarged without blur, (512, 512, 3); None without a render mode."""
        if self.render_mode is None:
            return None
        return self._frame.repeat(MAGNIFICATION, axis=0).repeat(MAGNIFICATION, axis=1)

    @torch.inference_mode()
    def decode(self, latent: np.ndarray) -> np.ndarray:
        """What V makes of any latent (L,): a frame (64, 64, 3) uint8."""
        image = self._decoder(torch.from_numpy(latent)[None])[0]
        return (image * 255).round().byte().permute(1, 2, 0).contiguous().numpy()

    def _decode(self) -> np.ndarray:
        self._frame = self.decode(self.latent)
        return self._frame.copy()
