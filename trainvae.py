"""Train V, the variational auto-encoder, on the frames of rollouts (paper, section 2.1).

    python trainvae.py --logdir exp_dir

Reads datasets/carracing (make it with data/generation_script.py) and writes exp_dir/vae: best.tar for the later
stages, checkpoint.tar to go on from, pictures in samples/, curves for TensorBoard. The same command again goes on
where it stopped.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from torchvision.utils import make_grid

from data.loaders import FrameDataset, find_rollouts, game_of_rollouts, name_rollouts, split_rollouts
from envs.games import Game
from models.vae import VAE, to_images, vae_loss
from utils.commandline import ScriptParser, natural_float, run_script
from utils.devices import pick_device
from utils.locks import locked
from utils.precision import autocast, fast_dtype
from utils.training import Objective, add_training_arguments, has_work, seed_epoch, train
from utils.training_run import TrainingRun

BATCH_SIZE, LEARNING_RATE, BETAS = 128, 3e-3, (0.9, 0.99)
FRAMES_PER_EPOCH = 100_000  # 1.2 GB of training frames in memory
TEST_FRAMES = 10_000
PICTURES = 64  # in a grid of samples; a quarter of it in the pairs


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = ScriptParser(__file__, __doc__)
    add_training_arguments(parser, "vae", FrameObjective.items, BATCH_SIZE, LEARNING_RATE)
    parser.add_argument(
        "--kl-weight",
        type=natural_float,
        default=1.0,
        help="weight of the divergence in the loss; with less, more of the latent is used (docs/RESULTS.md)",
    )
    return parser.parse_args(argv)


class FrameObjective(Objective):
    """Squared error of a frame plus the weighted divergence of its latent from the prior."""

    title = "V: squared error and divergence of a frame"
    items = "frames"
    terms = ("reconstruction", "divergence")

    def __init__(self, vae: VAE, test_set: FrameDataset, args: argparse.Namespace, device: torch.device):
        self.batch_size = args.batch_size
        self._vae = vae
        self._test_set = test_set
        self._kl_weight = args.kl_weight
        self._device = device
        self._dtype = fast_dtype(device, args.float32)

    def measure(self, batch: Tensor) -> Tensor:
        """Both terms (2,) for frames (B, 64, 64, 3) uint8."""
        images = to_images(batch.to(self._device))
        with autocast(self._device, self._dtype):
            reconstruction, mu, logsigma = self._vae(images)
        return torch.stack(vae_loss(reconstruction, images, mu, logsigma))

    def loss(self, terms: Tensor) -> Tensor:
        return terms[0] + self._kl_weight * terms[1]

    def pictures(self) -> dict[str, Tensor]:
        """Frames decoded from the prior, and test frames above their reconstructions."""
        samples = self._vae.decoder(torch.randn(PICTURES, self._vae.sizes.latent, device=self._device))
        spread = torch.linspace(0, len(self._test_set) - 1, PICTURES // 4).long()
        frames = to_images(self._test_set[spread].to(self._device))
        pairs = torch.stack([frames.unflatten(0, (-1, 8)), self._vae(frames)[0].unflatten(0, (-1, 8))], dim=1)
        return {"sample": make_grid(samples.cpu()), "reconstruction": make_grid(pairs.flatten(0, 2).cpu())}


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_arguments(argv)
    device = pick_device(args.device)
    files = find_rollouts(args.dataset)
    game = game_of_rollouts(files, args.dataset)
    with locked(args.logdir / "vae"):
        learn(args, device, game, files)


def learn(args: argparse.Namespace, device: torch.device, game: Game, files: list[Path]) -> None:
    """Begin or go on, up to the epochs that are asked for. Nobody else may write to the stage's folder meanwhile."""
    train_files, test_files = split_rollouts(files)
    seed_epoch(args.seed, 0)
    vae = VAE(game.sizes).to(device)
    optimizer = torch.optim.Adam(vae.parameters(), lr=args.learning_rate, betas=BETAS, fused=True)
    yardstick = f"{name_rollouts(test_files, args.dataset)}, weight {args.kl_weight}"
    facts = {"game": game.name, "sizes": vae.sizes.to_dict()}
    run = TrainingRun(args.logdir / "vae", vae, optimizer, yardstick, facts)
    if not has_work(run, args):
        return

    train_set = FrameDataset(train_files, FRAMES_PER_EPOCH)
    test_set = FrameDataset(test_files, TEST_FRAMES)
    test_set.refill(seed=0, epoch=0)  # the same test frames in every epoch and every run
    objective = FrameObjective(vae, test_set, args, device)
    train(run, objective, train_set, test_set, args)
    print(f"V is in {run.folder / 'best.tar'} (test loss {run.stopping.best:.2f})")


if __name__ == "__main__":
    run_script(main)
