"""How good is M? Its predictions on held-out rollouts, beside the simplest one: that nothing changes.

    python -m studies.memory_quality --logdir exp_dir --dataset datasets/carracing --out docs/results

From many moments of the held-out rollouts, WARM_UP steps after the start or later, M goes on alone for HORIZON steps
with the actions that were taken (open loop, fed with the mean of its own mixture). Prints and writes to memory.json the
errors against what V saw (latents) and what was to be seen (pixels), and draws them, with M's loss over its training,
to memory.png.
"""

import math
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor
from tqdm import tqdm

from data.encoding import encode
from data.loaders import find_rollouts, load_rollout, split_rollouts
from models.mdrnn import MDRNN, Prediction, mean_of_mixture, mixture_nll
from models.vae import VAE, to_images
from utils.checkpoints import load_checkpoint
from utils.commandline import ScriptParser, UserError, positive_int, run_script
from utils.files import write_json
from utils.run_folder import load_mdrnn, load_vae

RESULTS = Path(__file__).parent.parent / "docs" / "results"
CPU = torch.device("cpu")
WARM_UP, HORIZON = 60, 50  # steps: past the zooming start, and one second
STRIDE = 100  # steps between two moments of a rollout
PIXEL_STEPS = (1, 5, 10, 20, 30, 40, 50)  # where frames are decoded and compared


def main(argv: Sequence[str] | None = None) -> None:
    parser = ScriptParser(__file__, __doc__)
    parser.add_argument("--logdir", type=Path, required=True, help="run folder with V and M")
    parser.add_argument("--dataset", type=Path, default=Path("datasets/carracing"), help="folder of the rollouts")
    parser.add_argument("--rollouts", type=positive_int, default=40, help="held-out rollouts at most")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for memory.json and memory.png")
    args = parser.parse_args(argv)
    vae, mdrnn = load_vae(args.logdir).eval(), load_mdrnn(args.logdir).eval()
    _, files = split_rollouts(find_rollouts(args.dataset))
    files = files[:: math.ceil(len(files) / args.rollouts)]  # from all generations of rollouts
    parts = [measure(vae, mdrnn, file) for file in tqdm(files, unit="rollout", disable=None)]
    windows = [part for part in parts if part is not None]
    if not windows:
        raise UserError(f"{args.dataset}: no held-out rollout is longer than {WARM_UP + HORIZON} steps")
    errors = {name: torch.cat([part[name] for part in windows]).mean(dim=0) for name in windows[0]}

    checkpoint = load_checkpoint(args.logdir / "mdrnn" / "best.tar", "train M first")
    history = checkpoint.get("history", [])
    rewards = errors.pop("reward_m").item(), errors.pop("reward_mean").item()
    result: dict[str, Any] = {name: values.tolist() for name, values in errors.items()}
    result |= {"pixel_steps": PIXEL_STEPS, "windows": sum(len(part["nll"]) for part in windows), "history": history}
    write_json(args.out / "memory.json", result)
    draw(result, args.out / "memory.png")
    print(f"{result['windows']} moments of {len(windows)} held-out rollouts")
    print(f"negative log likelihood of the next latent's mean: {errors['nll'].item():.2f} nats")
    print("\n| steps ahead | latent: M | latent: copy | pixels: M | pixels: copy | pixels: V alone |")
    print("|---|---|---|---|---|---|")
    for column, step in enumerate(PIXEL_STEPS):
        latent = [errors[name][step - 1].item() for name in ("latent_m", "latent_copy")]
        pixels = [errors[name][column].item() for name in ("pixel_m", "pixel_copy", "pixel_v")]
        cells = [f"{value:.3f}" for value in latent] + [f"{value:.1f}" for value in pixels]
        print(f"| {step} | {' | '.join(cells)} |")
    if checkpoint.get("include_reward"):
        print("\nreward of the step, mean squared error: M {:.3f}, the rollout's mean reward {:.3f}".format(*rewards))


@torch.no_grad()
def measure(vae: VAE, mdrnn: MDRNN, file: Path) -> dict[str, Tensor] | None:
    """Errors (moments, steps) from every moment of a rollout; None if it is too short for one.

    Latent errors are mean squared errors over V's latent, pixel errors are summed over a frame, as in V's loss.
    """
    frames, actions, rewards = map(
        torch.from_numpy, load_rollout(file, ("observations", "actions", "rewards"), vae.sizes)
    )
    if len(frames) <= WARM_UP + HORIZON:
        return None
    starts = torch.arange(WARM_UP, len(frames) - HORIZON, STRIDE)
    mu, _ = encode(vae, frames, CPU, torch.float32)
    states: list[tuple[Tensor, Tensor]] = []  # before each moment
    state = None
    for begin, end in zip([0, *starts[:-1].tolist()], starts.tolist(), strict=True):
        _, state = mdrnn(actions[begin:end, None], mu[begin:end, None], state)
        states.append(state)
    state = tuple(torch.cat(part, dim=1) for part in zip(*states, strict=True))

    latent = mu[starts]
    errors: dict[str, list[Tensor]] = defaultdict(list)
    for step in range(1, HORIZON + 1):
        before = starts + step - 1
        prediction, state = mdrnn(actions[before][None], latent[None], state)
        if step == 1:
            errors["nll"] = [mixture_nll(mu[starts + 1], Prediction(*(part[0] for part in prediction)))]
            errors["reward_m"] = [(prediction.reward[0] - rewards[before]).square()]
            errors["reward_mean"] = [(rewards.mean() - rewards[before]).square()]
        latent = mean_of_mixture(prediction)[0]
        errors["latent_m"].append((latent - mu[starts + step]).square().mean(dim=-1))
        errors["latent_copy"].append((mu[starts] - mu[starts + step]).square().mean(dim=-1))
        if step in PIXEL_STEPS:
            truth = to_images(frames[starts + step])
            seen = {"pixel_m": vae.decoder(latent), "pixel_v": vae.decoder(mu[starts + step])}
            for name, picture in (seen | {"pixel_copy": to_images(frames[starts])}).items():
                errors[name].append((picture - truth).square().flatten(1).sum(dim=-1))
    return {name: torch.stack(values, dim=-1) for name, values in errors.items()}


def draw(result: dict, path: Path) -> None:
    """M's loss over training, and its errors over the horizon in latents and in pixels."""
    figure = Figure(figsize=(13, 4), layout="constrained")
    loss, latents, pixels = figure.subplots(1, 3)
    for name in ("train", "test"):
        curve = [row[f"loss/gmm_{name}"] for row in result["history"]]
        loss.plot(range(1, len(curve) + 1), curve, label=name)
    loss.set(xlabel="epoch", ylabel="nats, summed over a latent", title="negative log likelihood")
    steps = range(1, HORIZON + 1)
    for name, label in (("latent_m", "M, open loop"), ("latent_copy", "last latent kept")):
        latents.plot(steps, result[name], label=label)
    latents.set(xlabel="steps ahead", ylabel="mean squared error", title="latents")
    for name, label in (("pixel_m", "M, open loop"), ("pixel_copy", "last frame kept"), ("pixel_v", "V alone")):
        pixels.plot(PIXEL_STEPS, result[name], marker=".", label=label)
    pixels.set(xlabel="steps ahead", ylabel="squared error of a frame", title="pixels")
    for axes in (loss, latents, pixels):
        axes.legend()
        axes.grid(alpha=0.3)
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    run_script(main)
