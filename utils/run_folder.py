"""Builds V, M and C from a run folder, whose checkpoints say which game and which sizes they are of."""

import hashlib
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from envs.dream import DreamEnv, DreamSettings, Starts
from envs.games import CARRACING, GAMES, Game
from models.controller import Controller
from models.dream import dream_weights
from models.mdrnn import MDRNN
from models.sizes import Sizes
from models.vae import VAE
from models.world_model import Weights, WorldModel, world_weights
from utils.checkpoints import fit_weights, load_checkpoint
from utils.commandline import UserError, first_line
from utils.dreams import Dreams
from utils.precision import fast_dtype

Model = TypeVar("Model", VAE, MDRNN, Controller)
SCRIPTS = {"vae": ("V", "trainvae.py"), "mdrnn": ("M", "trainmdrnn.py"), "ctrl": ("C", "traincontroller.py")}


def _load(logdir: Path, stage: str) -> tuple[dict[str, Any], Path, str]:
    """A stage's best checkpoint, where it lies, and what to do if it is of no use."""
    path = logdir / stage / "best.tar"
    name, script = SCRIPTS[stage]
    command = f"python {script} --logdir {logdir}"
    remedy = f"train {name} again: {command} --noreload" if path.exists() else f"train {name} first: {command}"
    return load_checkpoint(path, remedy), path, remedy


def read_sizes(state: dict[str, Any], path: Path) -> Sizes:
    """The sizes in a checkpoint, CarRacing's if it has none. Raises UserError if they are damaged."""
    try:
        return Sizes.from_dict(state.get("sizes", {}))
    except (TypeError, ValueError, LookupError, AttributeError, RuntimeError) as error:
        raise UserError(f"{path}: its sizes cannot be read ({first_line(error)})") from None


def find_game(name: str, path: Path) -> Game:
    """The game that `path` names. Raises UserError if it is unknown."""
    if not isinstance(name, str) or name not in GAMES:
        raise UserError(f"{path}: made for the game {name!r}, which is not one of {', '.join(GAMES)}")
    return GAMES[name]


def load_game(logdir: Path) -> tuple[Game, Sizes]:
    """The game that V is of, and V's sizes. Raises UserError if there is no V."""
    state, path, _ = _load(logdir, "vae")
    return find_game(state.get("game", CARRACING.name), path), read_sizes(state, path)


def load_vae(logdir: Path, wanted: Sizes | None = None) -> VAE:
    """The best V of a run folder, on the CPU. Raises UserError if there is none, or it is not of the wanted sizes."""
    return _load_model(logdir, "vae", VAE, wanted)[0]


def load_mdrnn(logdir: Path, wanted: Sizes | None = None) -> MDRNN:
    """The best M of a run folder, on the CPU. Raises UserError if there is none, or it is not of the wanted sizes."""
    return _load_model(logdir, "mdrnn", MDRNN, wanted)[0]


def _load_model(
    logdir: Path, stage: str, kind: Callable[[Sizes], Model], wanted: Sizes | None
) -> tuple[Model, dict[str, Any], Path]:
    """A stage's best model, its checkpoint, and where that lies. Raises UserError if there is none, or its sizes differ
    from the wanted ones in more than C's."""
    state, path, remedy = _load(logdir, stage)
    model = _build(kind, read_sizes(state, path), state, path, remedy)
    if wanted and replace(model.sizes, inputs="z", hidden_units=0) != replace(wanted, inputs="z", hidden_units=0):
        raise UserError(f"{path}: of other sizes than the rest; {remedy}")
    return model, state, path


def _build(kind: Callable[[Sizes], Model], sizes: Sizes, state: dict[str, Any], path: Path, remedy: str) -> Model:
    """A model of these sizes with the weights of a checkpoint that was read from `path`. Raises UserError if they do
    not fit."""
    try:
        # First without memory: sizes may claim to be larger than the file.
        with torch.device("meta"):
            model = kind(sizes)
        claimed = {name: weight.shape for name, weight in model.state_dict().items()}
        there = {name: weight.shape for name, weight in state["state_dict"].items()}
    except (RuntimeError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise UserError(f"{path}: its sizes do not do for a model ({first_line(error)}); {remedy}") from None
    if misfits := [name for name in claimed | there if claimed.get(name) != there.get(name)]:
        raise UserError(f"{path}: its weights do not fit the model (the first is {misfits[0]}); {remedy}")
    model = model.to_empty(device="cpu")
    fit_weights(model, state, path, remedy)
    return model


def load_controller(logdir: Path) -> Controller:
    """The best C of a run folder, on the CPU. Raises UserError if there is none, or V beside it is of another game."""
    state, path, remedy = _load(logdir, "ctrl")
    game = find_game(state.get("game", CARRACING.name), path)
    if is_trained(logdir, "vae") and (other := load_game(logdir)[0]) != game:
        raise UserError(f"{path}: of {game.name}, but V in {logdir / 'vae'} is of {other.name}; {remedy}")
    return _build(Controller, controller_sizes(state, path, remedy), state, path, remedy)


def controller_sizes(state: dict[str, Any], path: Path, remedy: str) -> Sizes:
    """The sizes in C's checkpoint; without any, CarRacing's, and what C sees is told by the shapes of its weights.
    Raises UserError if they are no controller's."""
    sizes = read_sizes(state, path)
    if "sizes" in state:
        return sizes
    try:
        weights = state["state_dict"]
        units = len(weights["hidden.weight"]) if "hidden.weight" in weights else 0
        seen = weights["hidden.weight" if units else "fc.weight"].shape[1]
    except (LookupError, TypeError, AttributeError):
        raise UserError(f"{path}: its weights are no controller's; {remedy}") from None
    return replace(sizes, inputs="z" if seen == sizes.latent else "zh", hidden_units=units)


def is_trained(logdir: Path, stage: str) -> bool:
    """Whether a run folder has a stage's best checkpoint."""
    return (logdir / stage / "best.tar").exists()


def load_world_weights(logdir: Path, sizes: Sizes, memory: bool = False) -> Weights:
    """V's and M's weights for controllers of these sizes; M is only loaded if they see it, or for its own sake
    (`memory`).

    Raises UserError if V or M is missing or of other sizes.
    """
    vae = load_vae(logdir, sizes)
    mdrnn = load_mdrnn(logdir, sizes) if memory or sizes.sees_memory else None
    return world_weights(sizes, vae, mdrnn)


def load_dreams(logdir: Path, settings: DreamSettings) -> Dreams:
    """What it takes to dream with the M of a run folder. Raises UserError if it is missing, of other sizes than V, or
    has not learned what it takes."""
    game, sizes = load_game(logdir)
    mdrnn, state, path = _load_model(logdir, "mdrnn", MDRNN, sizes)
    command = _training_of_dreams(logdir, game)
    if game.step_reward is None and not state.get("include_reward"):
        raise UserError(f"{path}: M has not learned rewards, without which there is no dream; train it with {command}")
    return Dreams(game, dream_weights(mdrnn), _read_starts(state, sizes, path, command), settings)


def load_starts(logdir: Path) -> Starts | None:
    """Moments of rollouts as V and M of a run folder see them; None if M has none, because it was not trained. Raises
    UserError as `load_dreams` does."""
    game, sizes = load_game(logdir)
    state, path, _ = _load(logdir, "mdrnn")
    return _read_starts(state, sizes, path, _training_of_dreams(logdir, game)) if "starts" in state else None


def _training_of_dreams(logdir: Path, game: Game) -> str:
    """The command that trains an M which can be dreamed in."""
    return f"python {SCRIPTS['mdrnn'][1]} --logdir {logdir}{' --include_reward' if game.step_reward is None else ''}"


def _read_starts(state: dict[str, Any], sizes: Sizes, path: Path, command: str) -> Starts:
    """Those in M's checkpoint. Raises UserError if they are missing or damaged."""
    try:
        starts = Starts(**{name: column.float().numpy() for name, column in state["starts"].items()})
        _check_starts(starts, sizes)
    except (LookupError, TypeError, ValueError, AttributeError, RuntimeError):
        raise UserError(f"{path}: the starts of dreams in it cannot be read; train M again: {command}") from None
    return starts


def _check_starts(starts: Starts, sizes: Sizes) -> None:
    """Raises ValueError if they are not of these sizes, or not finite."""
    moments = len(starts.steps)
    latent, hidden = (moments, sizes.latent), (moments, sizes.hidden)
    for column, shape in zip(starts, (latent, latent, hidden, hidden, (moments,)), strict=True):
        if moments == 0 or column.shape != shape or not np.isfinite(column).all():
            raise ValueError(f"a column of shape {column.shape}")


def open_dream(logdir: Path | str, render_mode: str | None = None, **settings: Any) -> DreamEnv:
    """The dream of a run folder as an environment; for the settings see envs.dream.DreamSettings. Raises UserError as
    `load_dreams` and `load_vae` do."""
    game, weights, starts, chosen = load_dreams(Path(logdir), DreamSettings(**settings))
    return DreamEnv(game, weights, starts, load_vae(Path(logdir)).decoder, chosen, render_mode)


def load_driver(logdir: Path) -> tuple[WorldModel, np.ndarray]:
    """V and M of a run folder, ready to drive on the CPU, and C's parameters (P,). Raises UserError if one is missing
    or does not fit the others."""
    controller = load_controller(logdir)
    device = torch.device("cpu")
    world = WorldModel(load_world_weights(logdir, controller.sizes), device, fast_dtype(device))
    return world, controller.to_vector().numpy()


def copy_world(logdir: Path, target: Path) -> None:
    """V and M of a run folder, for another one."""
    for stage in ("vae", "mdrnn"):
        copy_stage(logdir, target, stage)


def copy_stage(logdir: Path, target: Path, stage: str) -> None:
    """The best model of a stage, for another run folder."""
    (target / stage).mkdir(parents=True, exist_ok=True)
    shutil.copy(logdir / stage / "best.tar", target / stage)


def fingerprint(logdir: Path, *stages: str) -> str:
    """Twelve characters that tell the best.tar files of these stages from others; a missing one counts too."""
    digest = hashlib.sha256()
    for path in (logdir / stage / "best.tar" for stage in stages):
        digest.update(path.read_bytes() if path.exists() else b"missing")
    return digest.hexdigest()[:12]
