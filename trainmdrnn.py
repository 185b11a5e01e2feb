"""Train M, the MDN-RNN, on random rollouts as V sees them.

    python trainmdrnn.py --logdir exp_dir

Needs V (trainvae.py) in the same run folder, reads datasets/carracing and writes exp_dir/mdrnn: best.tar for the
later stages, checkpoint.tar to go on from, pictures of dreams in samples/, curves for TensorBoard. The same command
again goes on where it stopped.
"""

import time
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.utils import make_grid, save_image
from tqdm import tqdm

from data.encoding import encode
from data.loaders import (
    SEQUENCE_LENGTH,
    LatentDataset,
    Sequences,
    find_rollouts,
    load_rollout,
    name_rollouts,
    split_rollouts,
)
from models.mdrnn import MDRNN, mixture_nll, sample_mixture
from models.vae import LATENT_SIZE, VAE, sample_latent, to_images
from utils.checkpoints import fingerprint, load_vae
from utils.commandline import (
    add_device_argument,
    natural_int,
    pick_device,
    run_script,
    script_parser,
    uninterrupted,
)
from utils.curves import draw_loss_curve
from utils.logs import log_figures, open_writer
from utils.precision import autocast, fast_dtype
from utils.training import TrainingRun, seed_epoch

BATCH_SIZE = 64  # sequences a step
LEARNING_RATE = 6e-3
GRADIENT_LIMIT = 1.0  # of its norm; a surprising step can make a huge one where a predicted width is small
DREAM_WARM_UP, DREAM_LENGTH, DREAM_STRIDE = 40, 48, 4  # steps; every DREAM_STRIDE-th is shown


def main() -> None:
    parser = script_parser(__doc__)
    parser.add_argument("--logdir", type=Path, required=True, help="run folder; the results are in its folder mdrnn")
    parser.add_argument("--noreload", action="store_true", help="start over instead of going on from checkpoint.tar")
    parser.add_argument("--include_reward", action="store_true", help="also learn to predict the reward")
    parser.add_argument("--epochs", type=natural_int, default=20, help="epochs in all; 0: leave M untrained")
    parser.add_argument("--nosamples", action="store_true", help="make no pictures")
    parser.add_argument("--seed", type=natural_int, default=0, help="decides weights, order and noise")
    parser.add_argument("--dataset", type=Path, default=Path("datasets/carracing"), help="folder of the rollouts")
    parser.add_argument("--float32", action="store_true", help="compute in float32 even where bfloat16 is faster")
    add_device_argument(parser)
    args = parser.parse_args()

    device = pick_device(args.device)
    dtype = torch.float32 if args.float32 else fast_dtype(device)
    train_files, test_files = split_rollouts(find_rollouts(args.dataset))
    vae = load_vae(args.logdir).to(device).eval()

    seed_epoch(args.seed, 0)
    mdrnn = MDRNN().to(device)
    optimizer = torch.optim.Adam(mdrnn.parameters(), lr=LEARNING_RATE, fused=True)
    yardstick = f"{name_rollouts(test_files, args.dataset)} as seen by V {fingerprint(args.logdir, 'vae')}"
    yardstick += ", with rewards" if args.include_reward else ""
    run = TrainingRun(args.logdir / "mdrnn", mdrnn, optimizer, yardstick)
    if not args.noreload and run.resume():
        print(f"going on after epoch {run.epoch} (best test loss {run.stopping.best:.4f})")
    if run.epoch == args.epochs == 0:
        run.save(best=True)
    if run.is_complete(args.epochs):
        return

    train_set = LatentDataset(train_files, lambda frames: encode(vae, frames, device, dtype))
    test_set = LatentDataset(test_files, lambda frames: encode(vae, frames, device, dtype))

    def terms_of(sequences: Sequences) -> Tensor:
        """The terms of the loss (3,): mixture, terminal, reward; each a mean over the steps that are no padding."""
        sequences = Sequences(*(column.to(device) for column in sequences))
        with autocast(device, dtype):
            prediction, _ = mdrnn(sequences.actions, sequences.latents)
        prediction = type(prediction)(*(part.float() for part in prediction))
        mixture = masked_mean(mixture_nll(sequences.next_latents, prediction), sequences.has_next)
        terminal = F.binary_cross_entropy_with_logits(prediction.terminal_logit, sequences.terminals, reduction="none")
        reward = F.mse_loss(prediction.reward, sequences.rewards, reduction="none")
        return torch.stack([mixture, masked_mean(terminal, sequences.real), masked_mean(reward, sequences.real)])

    def loss_of(terms: Tensor) -> Tensor:
        """Their sum without the reward's or with it, per predicted number, so that both stay near 1."""
        used = terms if args.include_reward else terms[:2]
        return used.sum() / (LATENT_SIZE + len(used) - 1)

    def train() -> Tensor:
        """One epoch; returns the mean of the terms."""
        mdrnn.train()
        total = torch.zeros(3, device=device)
        train_set.cut(shift=int(torch.randint(SEQUENCE_LENGTH, ())))
        batches = torch.randperm(len(train_set)).split(BATCH_SIZE)
        paced = run.pace(batches)
        for batch in tqdm(paced, f"epoch {run.epoch + 1}", len(batches), leave=False, disable=None):
            terms = terms_of(train_set[batch])
            optimizer.zero_grad()
            loss_of(terms).backward()
            torch.nn.utils.clip_grad_norm_(mdrnn.parameters(), GRADIENT_LIMIT)
            optimizer.step()
            total += terms.detach() * len(batch)
        return total.cpu() / len(train_set)

    @torch.no_grad()
    def test() -> Tensor:
        """The mean of the terms over the test rollouts."""
        mdrnn.eval()
        total = torch.zeros(3, device=device)
        for batch in torch.arange(len(test_set)).split(BATCH_SIZE):
            total += terms_of(test_set[batch]) * len(batch)
        return total.cpu() / len(test_set)

    def figures(name: str, terms: Tensor) -> dict[str, float]:
        """What the curves show of the terms on the `name` rollouts."""
        gmm, terminal, reward = terms.tolist()
        return {
            f"loss/{name}": loss_of(terms).item(),
            f"loss/gmm_{name}": gmm,
            f"loss/terminal_{name}": terminal,
            f"loss/reward_{name}": reward,
        }

    with open_writer(run.folder, run.epoch) as writer:
        while run.epoch < args.epochs and not run.stopping.stop:
            epoch = run.epoch + 1
            seed_epoch(args.seed, epoch)
            start = time.monotonic()
            rate = optimizer.param_groups[0]["lr"]
            train_terms = train()
            speed = len(train_set) / (time.monotonic() - start)
            row = {"learning_rate": rate} | figures("train", train_terms) | figures("test", test())
            with uninterrupted():
                log_figures(writer, row, epoch)
                run.finish_epoch(row, include_reward=args.include_reward)
                print(
                    f"epoch {epoch}: train loss {row['loss/train']:.4f}, test loss {row['loss/test']:.4f}, "
                    f"{len(train_set)} sequences at {speed:.0f} a second"
                )
                draw_loss_curve(run.history, run.folder / "curve.png", "M: loss per predicted number")
                if not args.nosamples:
                    folder = run.folder / "samples"
                    folder.mkdir(exist_ok=True)
                    picture = dream(vae, mdrnn, test_files[0], device)
                    save_image(picture, folder / f"dream_{epoch}.png")
                    writer.add_image("dream", picture.numpy(), epoch)
    print(f"M is in {run.folder / 'best.tar'} (test loss {run.stopping.best:.4f})")


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """The mean of the values where the mask is true; 0 if it is nowhere."""
    return (values * mask).sum() / mask.sum().clamp(min=1)


@torch.no_grad()
def dream(vae: VAE, mdrnn: MDRNN, file: Path, device: torch.device) -> Tensor:
    """A grid (3, H, W) of three rows: what happened, how V sees it, and what M dreams from the same actions.

    M sees the first DREAM_WARM_UP steps; from there on it is fed its own predictions.
    """
    frames, actions = map(torch.from_numpy, load_rollout(file, ("observations", "actions")))
    length = min(len(frames), DREAM_WARM_UP + DREAM_LENGTH)
    warm_up = min(DREAM_WARM_UP, length - 1)
    frames, actions = frames[:length].to(device), actions[:length, None].to(device)
    seen = sample_latent(*encode(vae, frames, device, torch.float32))[:, None]
    _, state = mdrnn(actions[:warm_up], seen[:warm_up])
    dreamed = [seen[warm_up]]
    for step in range(warm_up, length - 1):
        prediction, state = mdrnn(actions[step : step + 1], dreamed[-1][None], state)
        dreamed.append(sample_mixture(prediction)[0])
    rows = [
        to_images(frames[warm_up::DREAM_STRIDE]),
        vae.decoder(seen[warm_up::DREAM_STRIDE, 0]),
        vae.decoder(torch.cat(dreamed[::DREAM_STRIDE])),
    ]
    return make_grid(torch.cat(rows).cpu(), nrow=len(rows[0]))


if __name__ == "__main__":
    run_script(main)
