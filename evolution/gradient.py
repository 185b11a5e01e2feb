"""A policy gradient in M's dream: C learns from each dreamed moment, and not from the returns of whole episodes.

It is PPO (Schulman et al. 2017) with generalised advantages (Schulman et al. 2016). What only a dream has makes it
cheap: M says how likely an end is, so that C need not die to learn from one.
"""

import math
from collections.abc import Callable, Iterable
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import vector_to_parameters

from envs.dream import DreamBatch
from evolution.standardised import InputSpread
from models.controller import bound_actions, controller_inputs, zero_controller
from models.sizes import Sizes
from models.world_model import padded
from utils.dreams import Dreams

ACTION_STEPS = 4  # an action is held for so many: noise that changes with every step leads nowhere
DECISIONS = 48  # of a dream in a generation, so that it does not get far from the real moment where it began
DISCOUNT = 0.97  # of a decision: what is 140 steps ahead counts for a third
TRACE = 0.95  # lambda of the advantages: how far they look before they ask the critic
PASSES = 3  # over the decisions of a generation
BATCH = 2048
CLIP = 0.2  # how far the probability of a decision may move in a generation
LEARNING_RATE = 3e-4
LARGEST_GRADIENT = 0.5  # of actor and critic each, its norm
CRITIC_UNITS = (128, 64)


class Decisions(NamedTuple):
    """The T decisions of N dreams. An action is held for ACTION_STEPS."""

    inputs: Tensor  # (T, N, I): what C sees, standardised
    outputs: Tensor  # (T, N, A): C's, with noise, before they are bounded
    rewards: Tensor  # (T, N): of a step, times the chance to be alive after it
    survival: Tensor  # (T, N): the chance to be alive after the decision
    values: Tensor  # (T, N): the critic's, before it
    next_values: Tensor  # (T, N): after it
    broken: Tensor  # (T, N) bool: another dream begins after it


class PolicyGradient:
    """C, and a critic of the moments that it comes to. Both learn in at least `count` dreams a generation, in which C's
    outputs vary by `sigma` before they are bounded.

    C is searched for as one of standardised inputs. Towards its user this speaks of controllers as they are. A
    generation depends on the seed, its number, and what was learned before it.
    """

    def __init__(self, dreams: Dreams, sizes: Sizes, spread: InputSpread, count: int, sigma: float, seed: int):
        self.generation = 0  # how many generations are done
        self.sigma = sigma
        self._seed = seed
        self._count = padded(count)
        self._batch = DreamBatch(*dreams, self._count)
        before, last = dreams.game.end_weights
        self._end_bias = math.log(last / before)  # what the weight of the end in M's loss adds to its logits
        self._sizes = sizes
        self._spread = spread
        torch.manual_seed(seed)
        self._actor = zero_controller(sizes)
        widths = [len(spread.mean), *CRITIC_UNITS]
        hidden = [layer for a, b in pairwise(widths) for layer in (nn.Linear(a, b), nn.Tanh())]
        self._critic = nn.Sequential(*hidden, nn.Linear(widths[-1], 1))
        learners = [*self._actor.parameters(), *self._critic.parameters()]
        self._optimizer = torch.optim.Adam(learners, LEARNING_RATE, eps=1e-5)

    @property
    def mean(self) -> np.ndarray:
        """C's parameters (size,) float32."""
        return self._change_first_layer(self._spread.restore, self._actor.to_vector().numpy())

    def begin_at(self, controller: np.ndarray) -> None:
        """Begin with a controller (size,)."""
        standardised = self._change_first_layer(self._spread.standardise, controller)
        vector_to_parameters(torch.from_numpy(standardised), self._actor.parameters())

    def _change_first_layer(self, change: Callable[[np.ndarray], np.ndarray], controller: np.ndarray) -> np.ndarray:
        """The controller (size,) float32 with its first layer changed: the inputs are that layer's alone."""
        inputs, outputs = self._sizes.layers[0]
        first, others = np.split(controller, [(inputs + 1) * outputs])
        return np.concatenate([change(first[None])[0], others]).astype(np.float32)

    def practise(self) -> dict[str, float]:
        """A generation: dream, and learn from it. Returns its figures: the reward of a step, and the ends in it, as M
        expects them."""
        random = np.random.default_rng([self._seed, self.generation])
        decisions = self._dream(random)
        self._learn(decisions, random)
        self.generation += 1
        ends = (1 - decisions.survival).mean() / ACTION_STEPS
        return {
            "episodes": float(self._count),
            "dream/reward": decisions.rewards.mean().item(),
            "dream/ends": ends.item(),
        }

    @torch.no_grad()
    def _dream(self, random: np.random.Generator) -> Decisions:
        """Begin dreams, and take DECISIONS in each row of them."""
        self._begin(range(self._count), random)
        rows: list[tuple[Tensor, ...]] = []
        inputs = self._see()
        for _ in range(DECISIONS):
            outputs = self._actor.outputs(inputs)
            outputs += self.sigma * torch.from_numpy(random.standard_normal(outputs.shape, np.float32))
            rewards, survival = self._hold(bound_actions(outputs, self._sizes))
            seen, inputs = inputs, self._see()
            broken = torch.from_numpy(random.random(self._count, np.float32)) > survival
            values = (self._critic(moments)[:, 0] for moments in (seen, inputs))
            rows.append((seen, outputs, rewards, survival, *values, broken))
            if broken.any():
                self._begin(broken.nonzero()[:, 0].tolist(), random)
                inputs = self._see()
        return Decisions(*(torch.stack(column) for column in zip(*rows, strict=True)))

    def _begin(self, rows: Iterable[int], random: np.random.Generator) -> None:
        for row in rows:
            self._batch.reset(row, int(random.integers(2**31)))

    def _see(self) -> Tensor:
        """What C sees in each dream, standardised (N, I)."""
        inputs = controller_inputs(self._sizes, self._batch.latents, self._batch.hidden, self._batch.cell)
        mean, deviation = (torch.from_numpy(column).float() for column in self._spread)
        return (inputs - mean) / deviation

    def _hold(self, actions: Tensor) -> tuple[Tensor, Tensor]:
        """Hold actions (N, A): the reward of a step (N,), and the chance to be alive after it (N,)."""
        survival, rewards = torch.ones(self._count), torch.zeros(self._count)
        for _ in range(ACTION_STEPS):
            steps = self._batch.step(self._count, actions)
            survival = survival * torch.sigmoid(self._end_bias - self._batch.terminal_logits)
            rewards += survival * torch.from_numpy(steps.rewards).float() / ACTION_STEPS
        return rewards, survival

    def _learn(self, decisions: Decisions, random: np.random.Generator) -> None:
        """Move C towards decisions that were better than the critic expected, and the critic towards what came."""
        advantages = advantages_of(decisions)
        targets = (advantages + decisions.values).flatten()
        advantages = ((advantages - advantages.mean()) / (advantages.std() + 1e-8)).flatten()
        inputs, outputs = decisions.inputs.flatten(0, 1), decisions.outputs.flatten(0, 1)
        with torch.no_grad():
            before = self._log_probability(inputs, outputs)
        for _ in range(PASSES):
            for batch in torch.from_numpy(random.permutation(len(inputs))).split(BATCH):
                ratio = (self._log_probability(inputs[batch], outputs[batch]) - before[batch]).exp()
                gain = torch.minimum(ratio * advantages[batch], ratio.clamp(1 - CLIP, 1 + CLIP) * advantages[batch])
                error = F.mse_loss(self._critic(inputs[batch])[:, 0], targets[batch])
                self._optimizer.zero_grad()
                (error - gain.mean()).backward()
                for learner in (self._actor, self._critic):
                    nn.utils.clip_grad_norm_(learner.parameters(), LARGEST_GRADIENT)
                self._optimizer.step()

    def _log_probability(self, inputs: Tensor, outputs: Tensor) -> Tensor:
        """Of outputs (B, A) where C sees inputs (B, I), but for a constant."""
        return -(outputs - self._actor.outputs(inputs)).square().sum(dim=1) / (2 * self.sigma * self.sigma)

    def state_dict(self) -> dict[str, Any]:
        """All that `load_state_dict` needs."""
        return {
            "actor": self._actor.state_dict(),
            "critic": self._critic.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "practised": self.generation,
            "seed": self._seed,
        } | self._spread.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where a saved search stood, with the spread that it began with. Raises ValueError, KeyError or
        RuntimeError if it was another search, or of another kind of controller, or is damaged."""
        if "critic" not in state:
            raise ValueError("the saved evolution was another --search")
        if state["seed"] != self._seed:
            raise ValueError("the saved evolution has another seed")
        if not all(weight.isfinite().all() for name in ("actor", "critic") for weight in state[name].values()):
            raise ValueError("the saved evolution has diverged")
        self._spread = self._spread.saved_in(state)
        self._actor.load_state_dict(state["actor"])
        self._critic.load_state_dict(state["critic"])
        optimizer = self._optimizer.state_dict()  # its settings are not the file's to choose
        self._optimizer.load_state_dict(optimizer | {"state": state["optimizer"]["state"]})
        for parameter, moments in self._optimizer.state.items():
            shapes = {moments[name].shape for name in ("exp_avg", "exp_avg_sq")}
            if shapes != {parameter.shape} or not moments["step"] >= 1:
                raise ValueError("the saved evolution is damaged")
        self.generation = int(state["practised"])
        if self.generation < 0:
            raise ValueError("the saved evolution is damaged")


def advantages_of(decisions: Decisions) -> Tensor:
    """How much better than the critic expected each decision was (T, N): generalised advantages, in which what comes
    later counts by the chance to be alive then. Rewards count as a share of 1 - DISCOUNT, so that a value is the reward
    of a step, averaged over those to come."""
    _, _, rewards, survival, values, next_values, broken = decisions
    surprises = (1 - DISCOUNT) * rewards + DISCOUNT * survival * next_values - values
    advantages, following = torch.zeros_like(surprises), torch.zeros_like(surprises[0])
    for i in reversed(range(len(surprises))):
        following = surprises[i] + DISCOUNT * TRACE * survival[i] * following * ~broken[i]
        advantages[i] = following
    return advantages
