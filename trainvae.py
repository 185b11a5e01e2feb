"""Train V, the variational auto-encoder, on the frames of random rollouts.

    python trainvae.py --logdir exp_dir

Reads datasets/carracing (make it with data/generation_script.py) and writes exp_dir/vae: best.tar for the later
stages, checkpoint.tar to go on from, pictures in samples/, curves for TensorBoard. The same command again goes on
where it stopped.
"""

import time
from pathlib import Path

import torch
from torch import Tensor
from torchvision.utils import make_grid, save_image
from tqdm import tqdm

from data.loaders import FRAMES_PER_EPOCH, TEST_FRAMES, FrameDataset, find_rollouts, name_rollouts, split_rollouts
from models.vae import LATENT_SIZE, VAE, to_images, vae_loss
from utils.commandline import (
    add_device_argument,
    natural_float,
    natural_int,
    pick_device,
    positive_int,
    run_script,
    script_parser,
    uninterrupted,
)
from utils.curves import draw_loss_curve
from utils.logs import log_figures, open_writer
from utils.precision import autocast, fast_dtype
from utils.training import TrainingRun, seed_epoch

LEARNING_RATE, BETAS = 3e-3, (0.9, 0.99)  # for 128 frames a step
PICTURES = 64  # in a grid of samples; a quarter of it in the pairs


def main() -> None:
    parser = script_parser(__doc__)
    parser.add_argument("--logdir", type=Path, required=True, help="run folder; the results are in its folder vae")
    parser.add_argument("--noreload", action="store_true", help="start over instead of going on from checkpoint.tar")
    parser.add_argument("--batch-size", type=positive_int, default=128, help="frames per step")
    parser.add_argument(
        "--epochs",
        type=natural_int,
        default=20,
        help=f"epochs in all, of at most {FRAMES_PER_EPOCH} frames; 0: leave V untrained",
    )
    parser.add_argument("--nosamples", action="store_true", help="make no pictures")
    parser.add_argument(
        "--kl-weight",
        type=natural_float,
        default=1.0,
        help="weight of the divergence in the loss; with less, more of the latent is used (docs/RESULTS.md)",
    )
    parser.add_argument("--seed", type=natural_int, default=0, help="decides weights, order and noise")
    parser.add_argument("--dataset", type=Path, default=Path("datasets/carracing"), help="folder of the rollouts")
    parser.add_argument("--float32", action="store_true", help="compute in float32 even where bfloat16 is faster")
    add_device_argument(parser)
    args = parser.parse_args()

    device = pick_device(args.device)
    dtype = torch.float32 if args.float32 else fast_dtype(device)
    train_files, test_files = split_rollouts(find_rollouts(args.dataset))

    seed_epoch(args.seed, 0)
    vae = VAE().to(device)
    optimizer = torch.optim.Adam(vae.parameters(), lr=LEARNING_RATE, betas=BETAS, fused=True)
    term_weights = torch.tensor([1, args.kl_weight], device=device)  # of the terms of the loss
    yardstick = f"{name_rollouts(test_files, args.dataset)}, weight {args.kl_weight}"
    run = TrainingRun(args.logdir / "vae", vae, optimizer, yardstick)
    if not args.noreload and run.resume():
        print(f"going on after epoch {run.epoch} (best test loss {run.stopping.best:.2f})")

    if run.epoch == args.epochs == 0:
        run.save(best=True)
    if run.is_complete(args.epochs):
        return

    train_set = FrameDataset(train_files, FRAMES_PER_EPOCH)
    test_set = FrameDataset(test_files, TEST_FRAMES)
    test_set.refill(seed=0, epoch=0)  # the same test frames in every epoch and every run

    def loss_of(frames: Tensor) -> Tensor:
        """Squared error and divergence of a batch of frames (B, 64, 64, 3) uint8, as one tensor (2,)."""
        images = to_images(frames.to(device))
        with autocast(device, dtype):
            reconstruction, mu, logsigma = vae(images)
        return torch.stack(vae_loss(reconstruction, images, mu, logsigma))

    def train() -> Tensor:
        """One epoch; returns the mean of both terms of the loss."""
        vae.train()
        total = torch.zeros(2, device=device)
        batches = torch.randperm(len(train_set)).split(args.batch_size)
        paced = run.pace(batches)
        for batch in tqdm(paced, f"epoch {run.epoch + 1}", len(batches), leave=False, disable=None):
            terms = loss_of(train_set[batch])
            optimizer.zero_grad()
            (term_weights @ terms).backward()
            optimizer.step()
            total += terms.detach() * len(batch)
        return total.cpu() / len(train_set)

    @torch.no_grad()
    def test() -> Tensor:
        """The mean of both terms over the test frames."""
        vae.eval()
        total = torch.zeros(2, device=device)
        for batch in torch.arange(len(test_set)).split(args.batch_size):
            total += loss_of(test_set[batch]) * len(batch)
        return total.cpu() / len(test_set)

    @torch.no_grad()
    def pictures() -> dict[str, Tensor]:
        """Grids (3, H, W): frames decoded from the prior, and test frames above their reconstructions."""
        samples = vae.decoder(torch.randn(PICTURES, LATENT_SIZE, device=device))
        spread = torch.linspace(0, len(test_set) - 1, PICTURES // 4).long()
        frames = to_images(test_set[spread].to(device))
        pairs = torch.stack([frames.unflatten(0, (-1, 8)), vae(frames)[0].unflatten(0, (-1, 8))], dim=1)
        return {"sample": make_grid(samples.cpu()), "reconstruction": make_grid(pairs.flatten(0, 2).cpu())}

    with open_writer(run.folder, run.epoch) as writer:
        while run.epoch < args.epochs and not run.stopping.stop:
            epoch = run.epoch + 1
            train_set.refill(args.seed, epoch)
            seed_epoch(args.seed, epoch)
            start = time.monotonic()
            rate = optimizer.param_groups[0]["lr"]
            train_terms = train()
            speed = len(train_set) / (time.monotonic() - start)
            row = {"learning_rate": rate}
            row |= figures("train", train_terms, args.kl_weight) | figures("test", test(), args.kl_weight)
            with uninterrupted():
                log_figures(writer, row, epoch)
                run.finish_epoch(row)
                print(
                    f"epoch {epoch}: train loss {row['loss/train']:.2f}, test loss {row['loss/test']:.2f}, "
                    f"{len(train_set)} frames at {speed:.0f} a second"
                )
                draw_loss_curve(run.history, run.folder / "curve.png", "V: squared error and divergence of a frame")
                if not args.nosamples:
                    folder = run.folder / "samples"
                    folder.mkdir(exist_ok=True)
                    for name, picture in pictures().items():
                        save_image(picture, folder / f"{name}_{epoch}.png")
                        writer.add_image(name, picture.numpy(), epoch)
    print(f"V is in {run.folder / 'best.tar'} (test loss {run.stopping.best:.2f})")


def figures(name: str, terms: Tensor, kl_weight: float) -> dict[str, float]:
    """What the curves show of the terms (2,) on the `name` frames."""
    reconstruction, divergence = terms.tolist()
    return {
        f"loss/{name}": reconstruction + kl_weight * divergence,
        f"loss/reconstruction_{name}": reconstruction,
        f"loss/divergence_{name}": divergence,
    }


if __name__ == "__main__":
    run_script(main)
