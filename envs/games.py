"""The games, as data: all that differs between them outside their environments. A new game is an entry in GAMES."""

from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version

import gymnasium

from envs.carracing import MAX_EPISODE_STEPS, STEP_COST, GymnasiumCarRacing, tiles_visited
from envs.errors import UserError
from envs.fast_carracing import FastCarRacing
from envs.takecover import MAX_EPISODE_STEPS as TAKECOVER_STEPS
from envs.takecover import TakeCover
from models.sizes import CARRACING_SIZES, SIGNED, Sizes


@dataclass(frozen=True)
class Game:
    """An environment has observations (64, 64, 3) uint8, as new arrays, and actions (A,) float32 in the box of `sizes`;
    it truncates its episodes by itself, and an episode depends on the seed given to `reset` and the actions alone."""

    name: str
    title: str  # of the environment, as scores name it
    package: str  # whose version decides what an episode is like
    kinds: dict[str, Callable[..., gymnasium.Env]]  # by name: makers of the environment, given a render_mode
    training_kind: str  # for rollouts and evolution
    scoring_kind: str  # for scores
    sizes: Sizes
    action_names: tuple[str, ...]
    max_steps: int  # of an episode
    frames_per_second: int
    keys: dict[str, tuple[float, ...]] = field(default_factory=dict)  # of a human, by pygame's name: what each adds
    verb: str = "play"  # what a human does in it
    goal: str = ""  # a sentence that tells a human what to do
    end: str = "the end"  # of an episode, as a human meets it
    target_return: float = float("inf")  # of C, where its training ends
    policy: str = "brown"  # a key of data.policies.POLICIES: what drives the first rollouts
    shortest_rollout: int = 0  # steps: of random driving, another episode takes the place of a shorter one
    sequence_length: int = 32  # steps that M learns from at a time, as in the 2018 implementation
    end_weights: tuple[float, float] = (1.0, 1.0)  # in M's loss of the end: of steps before it, and of the last one
    step_reward: float | None = None  # what each step earns; M has to learn the rewards if it is not always the same
    # Hopeless training episodes end early: after `patience` steps without progress (0: never), a number that only
    # grows; each step that is left is paid with `idle_reward`. In a dream there is progress where M predicts a
    # reward of more than `least_gain` above idling.
    progress: Callable[[gymnasium.Env], float] | None = None
    patience: int = 0
    idle_reward: float = 0.0
    least_gain: float = 0.0
    # What can be earned in an episode above idling; a dream ends with it, because M does not see when all is done.
    whole_gain: float = float("inf")

    @property
    def release(self) -> str:
        """The installed release of its package. Raises UserError if there is none."""
        try:
            return version(self.package)
        except PackageNotFoundError:
            raise UserError(f"{self.package} is not installed: python -m pip install -r requirements.txt") from None

    @property
    def versions(self) -> str:
        """The environment and the release that a score is of."""
        return f"{self.title}, {self.package} {self.release}"

    def make(self, kind: str, render_mode: str | None = None) -> gymnasium.Env:
        """An environment without wrappers. Raises ValueError on an unknown kind, UserError if its package is unusable.

        render_mode: None, "rgb_array" or "human", for viewing.
        """
        if kind not in self.kinds:
            raise ValueError(f"unknown kind of environment {kind!r}: use one of {', '.join(self.kinds)}")
        return self.kinds[kind](render_mode=render_mode)


CARRACING = Game(
    name="carracing",
    title="CarRacing-v3",
    package="gymnasium",
    kinds={"fast": FastCarRacing, "gymnasium": GymnasiumCarRacing},
    training_kind="fast",
    scoring_kind="gymnasium",
    sizes=CARRACING_SIZES,
    action_names=("steering", "gas", "brake"),
    max_steps=MAX_EPISODE_STEPS,
    frames_per_second=50,
    keys={"left": (-1, 0, 0), "right": (1, 0, 0), "up": (0, 1, 0), "down": (0, 0, 0.8)},  # as in Gymnasium
    verb="drive",
    goal="Follow the road: each new piece of it earns reward.",
    target_return=950,  # near-perfect
    progress=tiles_visited,
    patience=100,
    idle_reward=-STEP_COST,
    least_gain=0.1,  # a lap of 1,000 steps earns 1 a step
    whole_gain=1000,  # a lap
)

TAKECOVER = Game(
    name="takecover",
    title="VizDoom Take Cover",
    package="vizdoom",
    kinds={"vizdoom": TakeCover},
    training_kind="vizdoom",
    scoring_kind="vizdoom",
    sizes=Sizes(latent=64, hidden=512, mixtures=5, joint_mixture=False, outputs=(SIGNED,), inputs="zhc"),
    action_names=("sideways",),
    max_steps=TAKECOVER_STEPS,
    frames_per_second=35,
    keys={"left": (-1,), "right": (1,)},
    verb="dodge",
    goal="Dodge the fireballs for as long as you can.",
    end="your death",
    policy="held",
    shortest_rollout=101,  # the paper drops episodes of 100 steps and fewer
    sequence_length=128,  # a fireball flies for longer than 32 steps
    end_weights=(64.0, 640.0),  # the paper's code has 1 and 10, but takes the mean over the 64 latents, not their sum
    step_reward=1.0,
)

DREAM = "dream"  # the kind of environment that M is, of any game
GAMES = {game.name: game for game in (CARRACING, TAKECOVER)}


def environment_kinds() -> list[str]:
    """The kinds of environment of all games, for --env."""
    return list(dict.fromkeys(kind for game in GAMES.values() for kind in game.kinds))
