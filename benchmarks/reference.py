"""The design of 2018 in as few plain lines as it takes: the yardstick of throughput.py.

One environment with Gymnasium's renderer, frames resized one by one with torchvision, float32, a batch of one, V run
whole (decoder included) for every step, and M trained on frames that V encodes anew for every batch.
"""

import gymnasium
import numpy as np
import torch
from torchvision import transforms

from models.controller import Controller
from models.mdrnn import HIDDEN_SIZE, MDRNN, mixture_nll
from models.vae import VAE, sample_latent, vae_loss

to_frame = transforms.Compose([transforms.ToPILImage(), transforms.Resize((64, 64)), transforms.ToTensor()])


def environment_steps(steps: int) -> None:
    """Random driving, nothing else."""
    env = gymnasium.make("CarRacing-v3")
    env.reset(seed=0)
    for _ in range(steps):
        _, _, terminated, truncated, _ = env.step(env.action_space.sample())
        if terminated or truncated:
            env.reset()


def generated_frames(steps: int, path: str) -> None:
    """Random driving, kept on disk as it came (96x96), compressed."""
    env = gymnasium.make("CarRacing-v3")
    frames, _ = [env.reset(seed=0)[0]], None
    for _ in range(steps):
        frame, _, terminated, truncated, _ = env.step(env.action_space.sample())
        frames.append(frame)
        if terminated or truncated:
            env.reset()
    np.savez_compressed(path, observations=np.array(frames))


@torch.no_grad()
def controller_steps(steps: int) -> None:
    """Driving with V, M and C, one frame at a time."""
    env = gymnasium.make("CarRacing-v3")
    vae, mdrnn, controller = VAE().eval(), MDRNN().eval(), Controller().eval()
    frame, _ = env.reset(seed=0)
    state = (torch.zeros(1, 1, HIDDEN_SIZE), torch.zeros(1, 1, HIDDEN_SIZE))
    for _ in range(steps):
        _, mu, _ = vae(to_frame(frame)[None])
        action = controller(mu, state[0][0])
        _, state = mdrnn(action[None], mu[None], state)
        frame, _, terminated, truncated, _ = env.step(action[0].numpy())
        if terminated or truncated:
            frame, _ = env.reset()


def vae_training(frames: torch.Tensor, batch_size: int = 32) -> VAE:
    """One pass over frames (N, 64, 64, 3) uint8: Adam, float32."""
    vae = VAE()
    optimizer = torch.optim.Adam(vae.parameters())
    for batch in frames.split(batch_size):
        images = batch.permute(0, 3, 1, 2).float() / 255
        latent_mu, latent_logsigma = vae.encoder(images)
        # nn.ConvTranspose2d on the 1x1 image, as everybody writes it
        decoder = vae.decoder
        x = torch.relu(decoder.fc1(sample_latent(latent_mu, latent_logsigma)))[:, :, None, None]
        x = torch.relu(decoder.deconv1(x))
        x = torch.relu(decoder.deconv2(x))
        x = torch.relu(decoder.deconv3(x))
        loss = sum(vae_loss(torch.sigmoid(decoder.deconv4(x)), images, latent_mu, latent_logsigma))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return vae


def mdrnn_training(frames: torch.Tensor, actions: torch.Tensor, batch_size: int = 16) -> None:
    """One pass over sequences: frames (N, 33, 64, 64, 3) uint8 and actions (N, 32, 3)."""
    vae, mdrnn = VAE().eval(), MDRNN()
    optimizer = torch.optim.RMSprop(mdrnn.parameters(), lr=1e-3, alpha=0.9)
    for batch, taken in zip(frames.split(batch_size), actions.split(batch_size), strict=True):
        with torch.no_grad():
            images = batch.flatten(0, 1).permute(0, 3, 1, 2).float() / 255
            _, mu, logsigma = vae(images)
            latents = sample_latent(mu, logsigma).unflatten(0, batch.shape[:2]).transpose(0, 1)
        prediction, _ = mdrnn(taken.transpose(0, 1), latents[:-1])
        loss = mixture_nll(latents[1:], prediction).mean() / 33
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
