"""Write a web page on which anyone can drive in M's dream.

    python export_dream.py --logdir exp_dir --out page
    python -m http.server -d page

Takes V's decoder, M, C and the moments that dreams begin at from a run folder. The folder that it writes is a static
site: it works from any host, also from a subfolder, and needs no network to be viewed. Written to again with a run
folder of another game, it lets viewers choose between the games.
"""

import json
import math
import shutil
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn

from envs.dream import DreamSettings, Starts
from envs.games import GAMES, Game
from models.controller import Controller
from models.mdrnn import MDRNN
from models.packed import Packed
from models.page_models import Picture, Step
from models.sizes import Sizes
from utils.commandline import ScriptParser, run_script
from utils.onnx_runtime_web import install_runtime
from utils.run_folder import load_controller, load_dreams, load_mdrnn, load_vae

PAGE = Path(__file__).parent / "web"
STARTS = 64  # moments to choose from
# Numbers of M: up to so many it stays as it is, so that its dreams do; beyond, a page would take more than 5 MB.
SMALL_MEMORY = 500_000
PREDICTION = ["means", "log_sigmas", "log_weights", "reward", "terminal_logit", "next_hidden", "next_cell"]


def main(argv: Sequence[str] | None = None) -> None:
    parser = ScriptParser(__file__, __doc__)
    parser.add_argument("--logdir", type=Path, required=True, help="run folder with V, M and C")
    parser.add_argument("--out", type=Path, required=True, help="folder for the page")
    args = parser.parse_args(argv)
    dreams = load_dreams(args.logdir, DreamSettings())
    vae, mdrnn, controller = load_vae(args.logdir), load_mdrnn(args.logdir), load_controller(args.logdir)
    starts = choose_starts(dreams.starts)
    folder = args.out / dreams.game.name
    folder.mkdir(parents=True, exist_ok=True)
    install_runtime(args.out / "ort")
    write_model(folder / "V.onnx", Packed(Picture(vae.decoder)), {"latents": mdrnn.sizes.latent}, ["picture"])
    write_model(folder / "M.onnx", memory_model(mdrnn), widths(mdrnn.sizes), PREDICTION)
    seen = {name: width for name, width in widths(mdrnn.sizes).items() if name != "actions"}
    write_model(folder / "C.onnx", controller_model(controller), seen, ["actions"])
    write_starts(folder / "starts.bin", starts)
    write_facts(folder / "dream.json", dreams.game, mdrnn.sizes, len(starts.steps))
    write_games(args.out)
    shutil.copytree(PAGE, args.out, dirs_exist_ok=True)
    print(f"models: {models_size(folder):.1f} MB")
    print(f"see it: python -m http.server -d {args.out}")


def models_size(folder: Path) -> float:
    """Megabytes of a game's models."""
    return sum(path.stat().st_size for path in folder.glob("*.onnx")) / 1e6


def choose_starts(starts: Starts) -> Starts:
    """A few of them, evenly."""
    chosen = np.unique(np.linspace(0, len(starts.steps) - 1, STARTS).round().astype(int))
    return Starts(*(column[chosen] for column in starts))


def widths(sizes: Sizes) -> dict[str, int]:
    """How many numbers each input of M has."""
    return {"latents": sizes.latent, "actions": sizes.action, "hidden": sizes.hidden, "cell": sizes.hidden}


def memory_model(mdrnn: MDRNN) -> nn.Module:
    """M as the page computes it."""
    small = sum(weight.numel() for weight in mdrnn.parameters()) <= SMALL_MEMORY
    return Step(mdrnn).eval() if small else Packed(Step(mdrnn))


def controller_model(controller: Controller) -> nn.Module:
    """C as the page computes it: a linear one is small."""
    return Packed(controller) if controller.sizes.hidden_units else controller.eval()


def write_model(path: Path, model: nn.Module, inputs: dict[str, int], outputs: list[str]) -> None:
    """Write a model with inputs (1, width) as an ONNX file."""
    example = tuple(torch.zeros(1, width) for width in inputs.values())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about the exporter's own insides
        program = torch.onnx.export(
            model,
            example,
            input_names=list(inputs),
            output_names=outputs,
            dynamo=True,
            optimize=False,  # it would unpack the weights
            verbose=False,
        )
    assert program is not None
    for node in program.model.graph:
        node.metadata_props.clear()  # where in this machine's files it comes from
    program.save(path, external_data=False)


def write_starts(path: Path, starts: Starts) -> None:
    """One after the other: V's posterior (mu, logsigma) and M's state before it (hidden, cell), as float32."""
    columns = [starts.mu, starts.logsigma, starts.hidden, starts.cell]
    path.write_bytes(np.concatenate(columns, axis=1).astype("<f4").tobytes())


def write_facts(path: Path, game: Game, sizes: Sizes, starts: int) -> None:
    """What the page has to know about the game and the models."""
    facts = {
        "title": game.title,
        "verb": game.verb,
        "goal": game.goal,
        "end": game.end,
        "actionNames": game.action_names,
        "keys": game.keys,
        "lowest": sizes.lowest_action,
        "highest": sizes.highest_action,
        "framesPerSecond": game.frames_per_second,
        "maxSteps": game.max_steps,
        "stepReward": game.step_reward,
        "idleReward": game.idle_reward,
        "wholeGain": game.whole_gain if math.isfinite(game.whole_gain) else None,
        "latent": sizes.latent,
        "hidden": sizes.hidden,
        "mixtures": sizes.mixtures,
        "jointMixture": sizes.joint_mixture,
        "noise": sizes.noise,
        "starts": starts,
    }
    path.write_text(json.dumps(facts, indent=1) + "\n")


def write_games(site: Path) -> None:
    """Which games the folder has dreams of; the page opens with the first."""
    games = [game for game in GAMES.values() if (site / game.name / "dream.json").exists()]
    (site / "games.json").write_text(json.dumps([{"name": game.name, "title": game.title} for game in games]) + "\n")


if __name__ == "__main__":
    run_script(main)
