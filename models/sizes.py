"""What differs between the worlds that V, M and C are built for, as data: each game has its sizes (envs/games.py), and
every checkpoint holds those of its model."""

from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

INPUTS = ("z", "zh", "zhc")  # V's latent; with M's output; with its cell state, too

# How one of C's outputs, squashed by tanh, becomes a number of the action: its least and highest value.
SIGNED, SHIFTED, CLIPPED = "signed", "shifted", "clipped"  # x, (x + 1) / 2, max(x, 0)
RANGES = {SIGNED: (-1.0, 1.0), SHIFTED: (0.0, 1.0), CLIPPED: (0.0, 1.0)}


@dataclass(frozen=True)
class Sizes:
    """The defaults are CarRacing's: a checkpoint without sizes is of that game."""

    latent: int = 32
    hidden: int = 256  # of M's LSTM
    mixtures: int = 5
    joint_mixture: bool = True  # one mixture for the whole latent, or (the paper's code) one for each of its numbers
    outputs: tuple[str, ...] = (SIGNED, SHIFTED, CLIPPED)  # of C, a key of RANGES for each number of the action
    inputs: str = "zh"  # of C, one of INPUTS
    hidden_units: int = 0  # of C: tanh units between input and output; 0: none, a linear controller

    @property
    def action(self) -> int:
        """How many numbers an action has."""
        return len(self.outputs)

    @property
    def lowest_action(self) -> tuple[float, ...]:
        return tuple(RANGES[output][0] for output in self.outputs)

    @property
    def highest_action(self) -> tuple[float, ...]:
        return tuple(RANGES[output][1] for output in self.outputs)

    @property
    def noise(self) -> tuple[int, int]:
        """How many normal and how many uniform numbers it takes to draw a latent from a mixture."""
        return self.latent, 1 if self.joint_mixture else self.latent

    @property
    def sees_memory(self) -> bool:
        """Whether C sees M's state."""
        return self.inputs != "z"

    @property
    def layers(self) -> list[tuple[int, int]]:
        """Inputs and outputs of every linear layer of C, from the first to the last."""
        inputs = self.latent + self.hidden * (len(self.inputs) - 1)
        return list(pairwise([inputs, *([self.hidden_units] if self.hidden_units else []), self.action]))

    @property
    def controller(self) -> int:
        """The number of C's parameters: 867 for the paper's controller of CarRacing."""
        return sum((inputs + 1) * outputs for inputs, outputs in self.layers)

    def to_dict(self) -> dict[str, Any]:
        """For a checkpoint: plain numbers, words and lists."""
        return asdict(self) | {"outputs": list(self.outputs)}

    @classmethod
    def from_dict(cls, saved: dict[str, Any]) -> "Sizes":
        """What `to_dict` made; what it lacks is CarRacing's. Raises TypeError, ValueError or KeyError if it is none."""
        sizes = cls(**(saved | {"outputs": tuple(saved["outputs"])} if saved else {}))
        if sizes.inputs not in INPUTS or not set(sizes.outputs) <= RANGES.keys():
            raise ValueError(f"unknown inputs or outputs in {saved}")
        return sizes


CARRACING_SIZES = Sizes()
