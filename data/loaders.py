"""The rollouts on disk as PyTorch datasets: frames for V, sequences of latents for M.

Memory is bounded whatever the size of the dataset: frames by a limit on their number, latents by being small
(145 bytes a step, so that 10,000 rollouts take 1.4 GB).
"""

import hashlib
import json
import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset
from tqdm import tqdm

from envs.games import CARRACING, Game
from models.sizes import CARRACING_SIZES, Sizes
from models.vae import FRAME_SIZE, sample_latent
from utils.archives import DamagedFile, read_arrays
from utils.commandline import UserError
from utils.run_folder import find_game

TEST_EVERY = 10  # one rollout in so many is held out
TYPES = {"observations": np.uint8, "actions": np.float32, "rewards": np.float32, "terminals": np.bool_}
FAILURE_LENGTH = 240  # last steps of a rollout that was given up: the mistake, and the steps without progress after it


def find_rollouts(dataset: Path) -> list[Path]:
    """All npz files under a folder, one generation after the other, each by name with numbers in numerical order; not
    the latents that M's training keeps. Raises UserError if there are none."""
    files = [path for path in dataset.rglob("*.npz") if not path.name.startswith(".") and not _is_latents(path)]
    if not files:
        raise UserError(f"{dataset}: no rollouts; make some: python data/generation_script.py --rootdir {dataset}")
    return sorted(files, key=lambda path: [_natural(str(part)) for part in (_generation(path), path.name, path.parent)])


def game_of_rollouts(files: list[Path], dataset: Path) -> Game:
    """The game that the rollouts of a dataset are of, as their generation.json says; CarRacing without one.
    Raises UserError if they are of several, or of an unknown one."""
    games: dict[str, Path] = {}
    for folder in dict.fromkeys(_generation(file) for file in files):
        path = folder / "generation.json"
        try:
            name = str(json.loads(path.read_text()).get("game", CARRACING.name)) if path.exists() else CARRACING.name
        except (ValueError, AttributeError, RecursionError):
            raise UserError(f"{path}: damaged; {_remedy(path)}") from None
        games.setdefault(name, path)
    if len(games) > 1:
        raise UserError(f"{dataset}: rollouts of several games, {' and '.join(games)}; choose one with --dataset")
    ((name, path),) = games.items()
    return find_game(name, path)


def split_rollouts(files: list[Path]) -> tuple[list[Path], list[Path]]:
    """Training and test files: every tenth of a generation is for the test, of fewer than ten in all the last one.

    The numbers in the names decide, so that a file stays on its side when a generation grows, has a hole mended, or
    another joins it; the place does among files with other names. Of a single file both sides are made, with a warning,
    because there is no other way to train on it.
    """
    if len(files) == 1:
        print(f"warning: {files[0]} is the only rollout, so the test loss is one of training data", file=sys.stderr)
        return files, files
    generations: dict[Path, list[Path]] = {}
    for file in files:
        generations.setdefault(_generation(file), []).append(file)
    test = [
        file
        for group in generations.values()
        for place, file in enumerate(group)
        if _position(file, place) % TEST_EVERY == TEST_EVERY - 1
    ] or files[-1:]
    held_out = set(test)
    return [file for file in files if file not in held_out], test


def rollout_number(path: Path) -> int | None:
    """The number of a rollout that data/generation_script.py has made, by its name; None for other files."""
    match = re.fullmatch(r"rollout_(\d+)\.npz", path.name)
    return int(match[1]) if match else None


def name_rollouts(files: list[Path], dataset: Path) -> str:
    """A short name for some rollouts of a dataset. Others have another name, by their paths and sizes: compressed, no
    two rollouts are of one length."""
    digest = hashlib.sha256(str([(str(file.relative_to(dataset)), file.stat().st_size) for file in files]).encode())
    return f"{len(files)} rollouts {digest.hexdigest()[:12]}"


def load_rollout(path: Path, keys: tuple[str, ...], sizes: Sizes = CARRACING_SIZES) -> list[np.ndarray]:
    """Some arrays of a rollout, (T, ...) each, of `TYPES`: numbers of other types are converted, but not frames, which
    may have another range. Raises UserError if the file is damaged or no rollout of these sizes."""
    frame = (FRAME_SIZE, FRAME_SIZE, 3)
    shapes = {"observations": frame, "actions": (sizes.action,), "rewards": (), "terminals": ()}
    try:
        arrays = read_arrays(path, keys)
    except KeyError as error:
        raise UserError(f"{path}: not a rollout ({error.args[0]}); {_remedy(path)}") from None
    except DamagedFile as error:
        raise UserError(f"{path}: damaged ({error}); {_remedy(path)}") from None
    length = len(arrays[0]) if arrays[0].ndim else 0
    for key, array in zip(keys, arrays, strict=True):
        if length == 0 or array.shape != (length, *shapes[key]):
            raise UserError(f"{path}: not a rollout ({key} has shape {array.shape}); {_remedy(path)}")
        if array.dtype.kind not in "biuf" or (key == "observations" and array.dtype != np.uint8):
            raise UserError(f"{path}: not a rollout ({key} has type {array.dtype}); {_remedy(path)}")
    with np.errstate(over="ignore"):  # what is too large becomes infinite
        arrays = [array.astype(TYPES[key], copy=False) for key, array in zip(keys, arrays, strict=True)]
    for key, array in zip(keys, arrays, strict=True):
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise UserError(f"{path}: {key} has numbers that are NaN or infinite; {_remedy(path)}")
    return arrays


def _check_lengths(path: Path, **lengths: int) -> None:
    """Raises UserError if arrays of a rollout, which were read one by one, are not equally long."""
    if len(set(lengths.values())) > 1:
        found = ", ".join(f"{count} {name}" for name, count in lengths.items())
        raise UserError(f"{path}: not a rollout ({found}); {_remedy(path)}")


class FrameDataset(Dataset):
    """Frames of some rollouts, at most `limit` in memory at a time.

    Item i is (64, 64, 3) uint8; the items of a tensor of indices (B,) are a batch (B, 64, 64, 3), gathered at once,
    which no DataLoader with workers is as fast as.
    """

    def __init__(self, files: list[Path], limit: int):
        self._files = files
        self._lengths = {file: len(load_rollout(file, ("rewards",))[0]) for file in files}
        total = sum(self._lengths.values())
        self._chooses = total > limit
        self.frames = torch.empty(min(total, limit), FRAME_SIZE, FRAME_SIZE, 3, dtype=torch.uint8)
        if not self._chooses:
            self._read(files)

    def refill(self, seed: int, epoch: int) -> None:
        """Load the frames of an epoch. Which ones depends on seed and epoch alone; if all frames fit, they are
        there already. Raises UserError if a file cannot be read."""
        if self._chooses:
            order = np.random.default_rng([seed, epoch]).permutation(len(self._files))
            self._read(self._files[index] for index in order)

    def _read(self, files: Iterable[Path]) -> None:
        """Fill the memory from the files, as far as it reaches."""
        count = 0
        for file in files:
            (frames,) = load_rollout(file, ("observations",))
            _check_lengths(file, observations=len(frames), rewards=self._lengths[file])
            taken = torch.from_numpy(frames[: len(self.frames) - count])
            self.frames[count : count + len(taken)] = taken
            count += len(taken)
            if count == len(self.frames):
                break

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, index: Tensor | int) -> Tensor:
        return self.frames[index]


class Sequences(NamedTuple):
    """B sequences of T steps, time first. Steps beyond the end of a rollout are padding."""

    latents: Tensor  # (T, B, L) float32, drawn from V's posterior
    next_latents: Tensor  # (T, B, L), what M is to predict
    actions: Tensor  # (T, B, A) float32
    rewards: Tensor  # (T, B) float32
    terminals: Tensor  # (T, B) float32, 0 or 1
    real: Tensor  # (T, B) bool: this step is no padding
    has_next: Tensor  # (T, B) bool: nor is the next one


class LatentDataset(Dataset):
    """Rollouts as V sees them, cut into sequences of `length` steps.

    see: rollout's file -> mu and logsigma (2, T, L) in half precision (data.encoding.KeptLatents). Latents are drawn
    anew from N(mu, sigma) each time that they are used. Half precision is enough to keep them: its error is a
    thousandth of mu, the narrowest posteriors are a hundredth wide.

    The items of a tensor of indices (B,) are `Sequences`.

    failures: so many times more than the rest are the last steps seen of rollouts that neither ended by themselves nor
    by the limit of `max_steps`. M learns too little from mistakes otherwise, which are rare.
    """

    def __init__(
        self,
        files: list[Path],
        sizes: Sizes,
        see: Callable[[Path], Tensor],
        length: int,
        failures: int = 0,
        max_steps: int = 0,
    ):
        self._length = length
        self._failures = failures
        self._max_steps = max_steps
        columns: list[list[Tensor]] = [[], [], [], [], []]
        for file in tqdm(files, desc="encoding", unit="rollout", leave=False, disable=None):
            others = load_rollout(file, ("actions", "rewards", "terminals"), sizes)
            values = [*see(file), *map(torch.from_numpy, others)]
            _check_lengths(file, observations=len(values[0]), actions=len(others[0]))
            for column, value in zip(columns, values, strict=True):
                column.append(value)
        self._ends = torch.tensor([len(mu) for mu in columns[0]]).cumsum(0)
        # One column after the other, so that no more than one is in memory twice.
        self._mu, self._logsigma, self._actions, self._rewards, self._terminals = (
            torch.cat(columns.pop(0)) for _ in range(5)
        )
        self.cut(shift=0)

    @property
    def lengths(self) -> Tensor:
        """Steps of every rollout (R,)."""
        return self._ends.diff(prepend=torch.zeros(1, dtype=torch.long))

    def at(self, rollouts: Tensor, steps: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """mu, logsigma and actions, (..., L or A) float32, at steps (...) of rollouts (...)."""
        index = (self._ends - self.lengths)[rollouts] + steps
        return self._mu[index].float(), self._logsigma[index].float(), self._actions[index]

    def refill(self, seed: int, epoch: int) -> None:
        """Cut the sequences of an epoch, at borders that PyTorch's generator decides."""
        self.cut(shift=int(torch.randint(self._length, ())))

    def cut(self, shift: int) -> None:
        """Cut every rollout into sequences whose borders lie `shift` steps before multiples of their length.

        With another shift each epoch no step is always at a border. The first sequence starts with the rollout
        whatever the shift is, and is whole: M sees the first `length` steps up to twice as often as the others. The
        last one may need padding.
        """
        starts, ends = [], []
        begin = 0
        for end in self._ends.tolist():
            given_up = end - begin < self._max_steps and not self._terminals[end - 1]
            firsts = [begin] + [max(begin, end - FAILURE_LENGTH)] * (self._failures if given_up else 0)
            for time, first in enumerate(firsts):
                again = (shift + time * self._length // (1 + self._failures)) % self._length  # other borders
                here = torch.arange(first - again, end, self._length).clamp(min=begin)
                starts.append(here)
                ends.append(torch.full_like(here, end))
            begin = end
        self._sequence_starts, self._sequence_ends = torch.cat(starts), torch.cat(ends)

    def __len__(self) -> int:
        return len(self._sequence_starts)

    def __getitem__(self, index: Tensor) -> Sequences:
        ends = self._sequence_ends[index]
        steps = self._sequence_starts[index] + torch.arange(self._length + 1)[:, None]
        inside = steps < ends
        steps = torch.minimum(steps, ends - 1)
        latents = sample_latent(self._mu[steps].float(), self._logsigma[steps].float())
        steps = steps[:-1]
        return Sequences(
            latents[:-1],
            latents[1:],
            self._actions[steps],
            self._rewards[steps],
            self._terminals[steps].float(),
            inside[:-1],
            inside[1:],
        )


def _generation(path: Path) -> Path:
    """The --rootdir of the generation that made a rollout: the folder above thread_<i>, or the file's own."""
    return path.parent.parent if path.parent.name.startswith("thread_") else path.parent


def _is_latents(path: Path) -> bool:
    """Whether a file lies where data.encoding.KeptLatents keeps its own."""
    return path.parent.parent.name == "latents" and path.parent.name.endswith("_npz")


def _position(path: Path, place: int) -> int:
    """The number in a rollout's name, or its place among the others if it has another name."""
    number = rollout_number(path)
    return place if number is None else number


def _natural(name: str) -> list[tuple[int, str]]:
    """A key that sorts names with numbers in numerical order."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)]


def _remedy(path: Path) -> str:
    # thread_<i>/rollout_<j>.npz lies two floors below the dataset
    command = f"python data/generation_script.py ... --rootdir {path.parent.parent}"
    return f"remove it and repeat the command that made it: {command}"
