"""V's decoder and M's step as a page in a browser calls them (web/dream.js): one dream, plain tensors."""

import torch
from torch import Tensor, nn

from models.mdrnn import MDRNN
from models.vae import Decoder

OPAQUE = 255


class Picture(nn.Module):
    """Latents (1, L) -> what a canvas takes: (64, 64, 4) uint8, red, green, blue, opacity."""

    def __init__(self, decoder: Decoder):
        super().__init__()
        self.decoder = decoder

    def forward(self, latents: Tensor) -> Tensor:
        colours = (self.decoder(latents)[0].permute(1, 2, 0) * 255).round()
        return torch.cat([colours, torch.full_like(colours[..., :1], OPAQUE)], dim=-1).to(torch.uint8)


class Step(nn.Module):
    """Latents (1, L), actions (1, A), M's hidden and cell state (1, H) -> M's prediction as in models.mdrnn.Prediction,
    each with a leading 1, and the next hidden and cell state."""

    def __init__(self, mdrnn: MDRNN):
        super().__init__()
        self.mdrnn = mdrnn

    def forward(self, latents: Tensor, actions: Tensor, hidden: Tensor, cell: Tensor) -> tuple[Tensor, ...]:
        # An LSTM cell takes the weights of the LSTM.
        lstm = list(self.mdrnn.rnn.parameters())
        hidden, cell = torch.lstm_cell(torch.cat([actions, latents], dim=1), (hidden, cell), *lstm)
        return *self.mdrnn.predict(hidden), hidden, cell
