"""Is what a driver needs to know in what C sees? Reads the car's true state out of z, and of z and h, by linear maps.

    python -m studies.readout --logdir exp_dir [--others LOGDIR ...]

The driver of --logdir drives selection tracks. For V and M of every run folder, a ridge regression from z, and from z
and h, to speed, heading and so on is fitted on three quarters of the tracks, and the share of the variance that it
explains on the others (R squared) is printed: C is linear, and cannot use what no linear map finds. Beside it: V's
squared error of a frame, and how many numbers of its latent hold more than NATS nats.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import gymnasium
import numpy as np
import torch
from tqdm import tqdm

from data.encoding import encode
from envs.carracing_truth import QUANTITIES, true_state
from envs.games import CARRACING
from models.vae import divergences, to_images
from utils.commandline import ScriptParser, positive_int, run_script
from utils.rollouts import Episode, Recorder, rollout_pool
from utils.run_folder import load_controller, load_mdrnn, load_vae, load_world_weights
from utils.tracks import selection_tracks
from utils.workers import cores

CPU = torch.device("cpu")
ZOOM = 60  # steps at the start that do not count
NATS = 0.5
RIDGE = 10.0


class Lap(NamedTuple):
    """One episode of T steps."""

    frames: np.ndarray  # (T, 64, 64, 3) uint8
    actions: np.ndarray  # (T, 3)
    truth: np.ndarray  # (T, 7): QUANTITIES when the frame was seen


class LapRecorder(Recorder):
    """What is seen, done and true in one episode."""

    def __init__(self) -> None:
        self._frames: list[np.ndarray] = []
        self._actions: list[np.ndarray] = []
        self._truth: list[tuple[float, ...]] = []

    def see(self, environment: gymnasium.Env, frame: np.ndarray) -> None:
        self._frames.append(frame.copy())
        self._truth.append(true_state(environment))

    def act(self, environment: gymnasium.Env, action: np.ndarray, reward: float, terminated: bool) -> None:
        self._actions.append(action.copy())

    def result(self) -> Lap:
        return Lap(*(np.array(column) for column in (self._frames, self._actions, self._truth)))


def main(argv: Sequence[str] | None = None) -> None:
    parser = ScriptParser(__file__, __doc__)
    parser.add_argument("--logdir", type=Path, required=True, help="run folder of the driver")
    parser.add_argument("--others", type=Path, nargs="*", default=[], help="more run folders with V and M")
    parser.add_argument("--tracks", type=positive_int, default=24, help="laps to drive")
    args = parser.parse_args(argv)
    if args.tracks < 4:
        parser.error("argument --tracks: at least 4")
    laps = drive_laps(args.logdir, args.tracks)
    print(f"| V and M of | squared error | latents in use | inputs | {' | '.join(QUANTITIES)} |")
    print("|---|---|---|---|" + "---|" * len(QUANTITIES))
    for logdir in [args.logdir, *args.others]:
        error, used, latents, states = look(logdir, laps)
        for name, inputs in (("z", latents), ("z, h", [np.hstack(pair) for pair in zip(latents, states, strict=True)])):
            cells = [f"{value:.2f}" for value in explained(inputs, [lap.truth for lap in laps])]
            print(f"| {logdir} | {error:.1f} | {used} | {name} | {' | '.join(cells)} |")


def drive_laps(logdir: Path, count: int) -> list[Lap]:
    """Laps of the driver of a run folder on as many selection tracks."""
    controller = load_controller(logdir)
    weights, parameters = load_world_weights(logdir, controller.sizes), controller.to_vector().numpy()
    episodes = [Episode(parameters, track, recorder=LapRecorder()) for track in selection_tracks(count)]
    with rollout_pool(CARRACING, "fast", weights, CPU, cores(), count, logdir / "tmp") as pool:
        outcomes = dict(tqdm(pool.run(episodes), total=count, unit="lap", disable=None))
    return [outcomes[number].record for number in range(count)]


@torch.no_grad()
def look(logdir: Path, laps: list[Lap]) -> tuple[float, int, list[np.ndarray], list[np.ndarray]]:
    """What V and M of a run folder make of the laps: V's squared error of a frame, latents in use, and for every lap z
    (T, L) and h (T, H), M's state when the frame is seen."""
    vae, mdrnn = load_vae(logdir).eval(), load_mdrnn(logdir).eval()
    errors, nats, latents, states = [], [], [], []
    for lap in laps:
        frames, actions = torch.from_numpy(lap.frames), torch.from_numpy(lap.actions)
        mu, logsigma = encode(vae, frames, CPU, torch.float32)
        some = slice(ZOOM, None, 10)
        errors.append((vae.decoder(mu[some]) - to_images(frames[some])).square().flatten(1).sum(dim=1))
        nats.append(divergences(mu, logsigma)[ZOOM:])
        after, _ = mdrnn.rnn(torch.cat([actions, mu], dim=1)[:, None])
        latents.append(mu.numpy())
        states.append(torch.cat([torch.zeros(1, after.shape[-1]), after[:-1, 0]]).numpy())
    used = int((torch.cat(nats).mean(dim=0) > NATS).sum())
    return torch.cat(errors).mean().item(), used, latents, states


def explained(inputs: list[np.ndarray], truth: list[np.ndarray]) -> np.ndarray:
    """R squared (7,) on the last quarter of the laps of a ridge regression fitted on the others."""
    fitted = len(inputs) * 3 // 4
    x, y = (np.concatenate([lap[ZOOM:] for lap in laps[:fitted]]).astype(np.float64) for laps in (inputs, truth))
    mean, scale = x.mean(axis=0), x.std(axis=0) + 1e-6
    x = (x - mean) / scale
    weights = np.linalg.solve(x.T @ x + RIDGE * np.eye(x.shape[1]), x.T @ (y - y.mean(axis=0)))
    new_x, new_y = (np.concatenate([lap[ZOOM:] for lap in laps[fitted:]]) for laps in (inputs, truth))
    residual = new_y - y.mean(axis=0) - (new_x - mean) / scale @ weights
    return 1 - np.square(residual).mean(axis=0) / new_y.var(axis=0)


if __name__ == "__main__":
    run_script(main)
