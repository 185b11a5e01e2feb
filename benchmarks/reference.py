"""The design of 2018 in as few plain lines as it takes: the yardstick of throughput.py.

One environment with Gymnasium's renderer, frames resized one by one with torchvision, float32, a batch of one, V run
whole (decoder included) for every step, and M trained on frames that V encodes anew for every batch.
"""

from pathlib import Path

import gymnasium
import numpy as np
import torch
from PIL import Image
from torchvision import transforms

from envs.doom_engine import DoomEngine
from envs.takecover import TakeCover
from models.controller import Controller
from models.mdrnn import MDRNN, mixture_nll, sample_mixture
from models.vae import VAE, sample_latent, vae_loss

to_frame = transforms.Compose([transforms.ToPILImage(), transforms.Resize((64, 64)), transforms.ToTensor()])


class PlainVAE(VAE):
    """V with its layers called one after the other, as everybody writes it."""

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        x = images
        for layer in (self.encoder.conv1, self.encoder.conv2, self.encoder.conv3, self.encoder.conv4):
            x = torch.relu(layer(x))
        mu, logsigma = self.encoder.fc_mu(x.flatten(1)), self.encoder.fc_logsigma(x.flatten(1))
        x = torch.relu(self.decoder.fc1(sample_latent(mu, logsigma)))[:, :, None, None]
        for deconvolution in (self.decoder.deconv1, self.decoder.deconv2, self.decoder.deconv3):
            x = torch.relu(deconvolution(x))
        return torch.sigmoid(self.decoder.deconv4(x)), mu, logsigma


def generated_frames(steps: int, path: Path) -> int:
    """Random driving, kept on disk as it came (96x96), compressed. Returns the number of steps."""
    env = gymnasium.make("CarRacing-v3")
    frames = [env.reset(seed=0)[0]]
    for _ in range(steps):
        frame, _, terminated, truncated, _ = env.step(env.action_space.sample())
        frames.append(frame)
        if terminated or truncated:
            env.reset()
    np.savez_compressed(path, observations=np.array(frames))
    return steps


@torch.no_grad()
def controller_steps(steps: int) -> int:
    """Driving with V, M and C, one frame at a time. Returns the number of steps."""
    env = gymnasium.make("CarRacing-v3")
    vae, mdrnn, controller = PlainVAE().eval(), MDRNN().eval(), Controller().eval()
    frame, _ = env.reset(seed=0)
    state = (torch.zeros(1, 1, 256), torch.zeros(1, 1, 256))
    for _ in range(steps):
        _, mu, _ = vae(to_frame(frame)[None])
        action = controller(mu, state[0][0], state[1][0])
        _, state = mdrnn(action[None], mu[None], state)
        frame, _, terminated, truncated, _ = env.step(action[0].numpy())
        if terminated or truncated:
            frame, _ = env.reset()
    return steps


class PlainTakeCover:
    """The paper's frames: a screen of 640x480, whose upper 400 rows Pillow makes a frame of."""

    def __init__(self) -> None:
        environment = TakeCover()
        game = environment._game()
        game.set_screen_resolution(environment._vizdoom.ScreenResolution.RES_640X480)
        self._engine = DoomEngine(game)

    def drive(self, steps: int) -> int:
        """Standing still. Returns the number of steps."""
        game = self._engine.game
        for _ in range(steps):
            if game.is_episode_finished():
                game.new_episode()
            screen = game.get_state().screen_buffer
            np.asarray(Image.fromarray(screen[:400]).resize((64, 64), Image.Resampling.BILINEAR))
            game.make_action([False, False])
        return steps


@torch.no_grad()
def dream_steps(mdrnn: MDRNN, steps: int) -> int:
    """One dream after the other. Returns the number of steps."""
    sizes, controller = mdrnn.sizes, Controller(mdrnn.sizes)
    latent = torch.zeros(1, sizes.latent)
    state = (torch.zeros(1, 1, sizes.hidden), torch.zeros(1, 1, sizes.hidden))
    for _ in range(steps):
        action = controller(latent, state[0][0], state[1][0])
        prediction, state = mdrnn(action[None], latent[None], state)
        normals, uniforms = sizes.noise
        latent = sample_mixture(prediction, torch.cat([torch.randn(normals), torch.rand(uniforms)]))[0]
    return steps


def vae_training(frames: torch.Tensor, batch_size: int = 32) -> torch.Tensor:
    """One pass over frames (N, 64, 64, 3) uint8: Adam, float32. Returns the frames."""
    vae = PlainVAE()
    optimizer = torch.optim.Adam(vae.parameters())
    for batch in frames.split(batch_size):
        images = batch.permute(0, 3, 1, 2).float() / 255
        reconstruction, mu, logsigma = vae(images)
        loss = torch.stack(vae_loss(reconstruction, images, mu, logsigma)).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return frames


def to_latents(vae: VAE, frames: torch.Tensor) -> torch.Tensor:
    """Frames (N, T, 64, 64, 3) uint8 -> latents (T, N, 32)."""
    _, mu, logsigma = vae(frames.flatten(0, 1).permute(0, 3, 1, 2).float() / 255)
    return sample_latent(mu, logsigma).unflatten(0, frames.shape[:2]).transpose(0, 1)


def mdrnn_training(frames: torch.Tensor, actions: torch.Tensor, batch_size: int = 16) -> torch.Tensor:
    """One pass over sequences: frames (N, 33, 64, 64, 3) uint8 and actions (N, 32, 3). Returns the actions."""
    vae, mdrnn = PlainVAE().eval(), MDRNN()
    optimizer = torch.optim.RMSprop(mdrnn.parameters(), lr=1e-3, alpha=0.9)
    for batch, taken in zip(frames.split(batch_size), actions.split(batch_size), strict=True):
        with torch.no_grad():  # each frame as an observation, and once more as the next one
            latents, next_latents = (to_latents(vae, part) for part in (batch[:, :-1], batch[:, 1:]))
        prediction, _ = mdrnn(taken.transpose(0, 1), latents)
        loss = mixture_nll(next_latents, prediction).mean() / 33
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return actions
