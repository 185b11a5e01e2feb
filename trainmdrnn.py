"""Train M, the MDN-RNN, on rollouts as V sees them (paper, section 2.2).

    python trainmdrnn.py --logdir exp_dir

Needs V (trainvae.py) in the same run folder, reads datasets/carracing and writes exp_dir/mdrnn: best.tar for the
later stages, checkpoint.tar to go on from, pictures of dreams in samples/, curves for TensorBoard. The same command
again goes on where it stopped.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.utils import make_grid

from data.encoding import KeptLatents, encode
from data.loaders import (
    FAILURE_LENGTH,
    LatentDataset,
    Sequences,
    find_rollouts,
    game_of_rollouts,
    load_rollout,
    name_rollouts,
    split_rollouts,
)
from data.starts import gather_starts
from envs.games import Game
from models.mdrnn import MDRNN, Prediction, mixture_nll, sample_mixture
from models.vae import VAE, sample_latent, to_images
from utils.commandline import ScriptParser, UserError, natural_int, run_script
from utils.devices import pick_device
from utils.locks import locked
from utils.precision import autocast, fast_dtype
from utils.run_folder import fingerprint, is_trained, load_game, load_mdrnn, load_vae
from utils.training import Objective, add_training_arguments, has_work, seed_epoch, train
from utils.training_run import TrainingRun

BATCH_SIZE, LEARNING_RATE = 64, 6e-3
DREAM_WARM_UP, DREAM_LENGTH, DREAM_STRIDE = 40, 48, 4  # steps; every DREAM_STRIDE-th is shown


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = ScriptParser(__file__, __doc__)
    add_training_arguments(parser, "mdrnn", SequenceObjective.items, BATCH_SIZE, LEARNING_RATE)
    parser.add_argument("--include_reward", action="store_true", help="also learn to predict the reward")
    parser.add_argument(
        "--failures",
        type=natural_int,
        default=0,
        help=f"see the last {FAILURE_LENGTH} steps of rollouts that were given up so many times more than the rest",
    )
    parser.add_argument(
        "--head-only",
        action="store_true",
        help="go on with the M that is there, but leave its LSTM: a controller that sees it drives as before",
    )
    args = parser.parse_args(argv)
    if args.head_only and (args.noreload or not is_trained(args.logdir, "mdrnn")):
        parser.error(f"argument --head-only: there is no M to go on from in {args.logdir / 'mdrnn'}")
    return args


class SequenceObjective(Objective):
    """Likelihood of the next latent, plus the end of the episode, plus the reward if it is to be learned."""

    title = "M: loss per predicted number"
    items = "sequences"
    gradient_limit = 1.0  # a surprising step can make a huge one where a predicted width is small
    terms = ("gmm", "terminal", "reward")

    def __init__(
        self,
        game: Game,
        vae: VAE,
        mdrnn: MDRNN,
        begun: LatentDataset,
        shown: Path,
        args: argparse.Namespace,
        device: torch.device,
    ):
        """begun: the rollouts whose moments dreams begin at; shown: the one that `pictures` shows."""
        self.batch_size = args.batch_size
        self._end_weights = game.end_weights
        self._begun = begun
        self._vae = vae
        self._mdrnn = mdrnn
        self._shown = shown
        self._used = len(self.terms) if args.include_reward else len(self.terms) - 1
        self._device = device
        self._dtype = fast_dtype(device, args.float32)

    def measure(self, batch: Sequences) -> Tensor:
        """The terms (3,), each a mean over the steps that are no padding."""
        sequences = Sequences(*(column.to(self._device) for column in batch))
        with autocast(self._device, self._dtype):
            prediction, _ = self._mdrnn(sequences.actions, sequences.latents)
        prediction = Prediction(*(part.float() for part in prediction))
        mixture = masked_mean(mixture_nll(sequences.next_latents, prediction), sequences.has_next)
        before, last = self._end_weights
        weights = torch.where(sequences.terminals > 0, last, before)
        terminal = F.binary_cross_entropy_with_logits(
            prediction.terminal_logit, sequences.terminals, weights, reduction="none"
        )
        reward = F.mse_loss(prediction.reward, sequences.rewards, reduction="none")
        return torch.stack([mixture, masked_mean(terminal, sequences.real), masked_mean(reward, sequences.real)])

    def loss(self, terms: Tensor) -> Tensor:
        """Their sum without the reward's or with it, per predicted number, so that both stay near 1."""
        return terms[: self._used].sum() / (self._mdrnn.sizes.latent + self._used - 1)

    def extras(self) -> dict[str, Any]:
        return {"starts": gather_starts(self._mdrnn, self._begun, self._device)}

    def pictures(self) -> dict[str, Tensor]:
        return {"dream": dream(self._vae, self._mdrnn, self._shown, self._device)}


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """The mean of the values where the mask is true; 0 if it is nowhere."""
    return (values * mask).sum() / mask.sum().clamp(min=1)


def dream(vae: VAE, mdrnn: MDRNN, file: Path, device: torch.device) -> Tensor:
    """A grid (3, H, W) of three rows: what happened, how V sees it, and what M dreams from the same actions.

    M sees the first DREAM_WARM_UP steps; from there on it is fed its own predictions.
    """
    frames, actions = map(torch.from_numpy, load_rollout(file, ("observations", "actions"), vae.sizes))
    length = min(len(frames), DREAM_WARM_UP + DREAM_LENGTH)
    warm_up = min(DREAM_WARM_UP, length - 1)
    frames, actions = frames[:length].to(device), actions[:length, None].to(device)
    seen = sample_latent(*encode(vae, frames, device, torch.float32))[:, None]
    _, state = mdrnn(actions[:warm_up], seen[:warm_up])
    dreamed = [seen[warm_up]]
    for step in range(warm_up, length - 1):
        prediction, state = mdrnn(actions[step : step + 1], dreamed[-1][None], state)
        normals, uniforms = mdrnn.sizes.noise
        noise = torch.cat([torch.randn(normals, device=device), torch.rand(uniforms, device=device)])
        dreamed.append(sample_mixture(prediction, noise)[0])
    rows = [
        to_images(frames[warm_up::DREAM_STRIDE]),
        vae.decoder(seen[warm_up::DREAM_STRIDE, 0]),
        vae.decoder(torch.cat(dreamed[::DREAM_STRIDE])),
    ]
    return make_grid(torch.cat(rows).cpu(), nrow=len(rows[0]))


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_arguments(argv)
    device = pick_device(args.device)
    files = find_rollouts(args.dataset)
    seen_by = fingerprint(args.logdir, "vae")  # before V is read, which may be in training
    vae = load_vae(args.logdir).to(device).eval()
    game, _ = load_game(args.logdir)
    if (other := game_of_rollouts(files, args.dataset)) != game:
        raise UserError(f"{args.dataset}: rollouts of {other.name}, but V in {args.logdir / 'vae'} is of {game.name}")
    with locked(args.logdir / "mdrnn"):
        learn(args, device, game, vae, seen_by, files)


def learn(
    args: argparse.Namespace, device: torch.device, game: Game, vae: VAE, seen_by: str, files: list[Path]
) -> None:
    """Begin or go on, up to the epochs that are asked for. Nobody else may write to the stage's folder meanwhile.

    seen_by: names V, and with it the latents that are kept.
    """
    train_files, test_files = split_rollouts(files)
    seed_epoch(args.seed, 0)
    mdrnn = MDRNN(vae.sizes).to(device)
    mdrnn.rnn.requires_grad_(not args.head_only)
    optimizer = torch.optim.Adam(mdrnn.parameters(), lr=args.learning_rate, fused=True)
    yardstick = f"{name_rollouts(test_files, args.dataset)} as seen by V {seen_by}"
    yardstick += ", with rewards" if args.include_reward else ""
    facts = {"game": game.name, "sizes": mdrnn.sizes.to_dict(), "include_reward": args.include_reward}
    run = TrainingRun(args.logdir / "mdrnn", mdrnn, optimizer, yardstick, facts)
    if not has_work(run, args):
        return
    if args.head_only:  # the LSTM that C sees is best.tar's; training goes on from the last epoch
        mdrnn.rnn.load_state_dict(load_mdrnn(args.logdir).rnn.state_dict())

    dtype = fast_dtype(device, args.float32)
    see = KeptLatents(run.folder / "latents", seen_by, vae, device, dtype)
    train_set = LatentDataset(train_files, vae.sizes, see, game.sequence_length, args.failures, game.max_steps)
    test_set = LatentDataset(test_files, vae.sizes, see, game.sequence_length)
    objective = SequenceObjective(game, vae, mdrnn, train_set, test_files[0], args, device)
    train(run, objective, train_set, test_set, args)
    print(f"M is in {run.folder / 'best.tar'} (test loss {run.stopping.best:.4f})")


if __name__ == "__main__":
    run_script(main)
