"""The three networks: each is trained by train.py and packed as a checkpoint file of its own."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

CLASSES = 10
NO_DIGIT = 10  # the class of "no condition", for classifier-free guidance
CONDITION = 64
LATENT = 24
SIDE = 32


class ConditionEncoder(nn.Module):
    """Turn digits (int64, shape n, NO_DIGIT for none) into conditions (float32, shape n x CONDITION)."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(CLASSES + 1, CONDITION)
        self.mix = nn.Sequential(
            nn.Linear(CONDITION, 2 * CONDITION), nn.SiLU(), nn.Linear(2 * CONDITION, CONDITION), nn.LayerNorm(CONDITION)
        )

    def forward(self, digits: Tensor) -> Tensor:
        return self.mix(self.table(digits))


class Denoiser(nn.Module):
    """Predict the noise in latents (n x LATENT) at times (n, in 0..1) under conditions (n x CONDITION)."""

    def __init__(self, width: int = 96, blocks: int = 3) -> None:
        super().__init__()
        self.enter = nn.Linear(LATENT, width)
        self.time = nn.Sequential(nn.Linear(64, width), nn.SiLU(), nn.Linear(width, width))
        self.condition = nn.Linear(CONDITION, width)
        self.blocks = nn.ModuleList(_Block(width) for _ in range(blocks))
        self.leave = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, LATENT))

    def forward(self, latents: Tensor, times: Tensor, conditions: Tensor) -> Tensor:
        context = functional.silu(self.time(_waves(times)) + self.condition(conditions))
        hidden = self.enter(latents)
        for block in self.blocks:
            hidden = block(hidden, context)
        return self.leave(hidden)


class Decoder(nn.Module):
    """Draw latents (n x LATENT, about unit variance) as pictures (n x SIDE x SIDE, 0 paper to 1 ink)."""

    def __init__(self) -> None:
        super().__init__()
        self.mean = nn.Buffer(torch.zeros(LATENT))
        self.scale = nn.Buffer(torch.ones(LATENT))
        self.enter = nn.Linear(LATENT, 64 * 4 * 4)
        self.draw = nn.Sequential(
            nn.SiLU(),
            nn.ConvTranspose2d(64, 32, 4, stride=2, padding=1),
            nn.SiLU(),
            nn.ConvTranspose2d(32, 24, 4, stride=2, padding=1),
            nn.SiLU(),
            nn.ConvTranspose2d(24, 16, 4, stride=2, padding=1),
            nn.SiLU(),
            nn.Conv2d(16, 1, 3, padding=1),
        )

    def forward(self, latents: Tensor) -> Tensor:
        hidden = self.enter(latents * self.scale + self.mean).view(-1, 64, 4, 4)
        return torch.sigmoid(self.draw(hidden)).squeeze(1)


class _Block(nn.Module):
    """A residual layer whose scale and shift come from the context (FiLM, Perez et al. 2018, arXiv:1709.07871)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.film = nn.Linear(width, 2 * width)
        self.inner = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, hidden: Tensor, context: Tensor) -> Tensor:
        scale, shift = self.film(context).chunk(2, dim=-1)
        return hidden + self.inner(self.norm(hidden) * (1 + scale) + shift)


def _waves(times: Tensor) -> Tensor:
    """Sinusoidal position features (Vaswani et al. 2017, arXiv:1706.03762, section 3.5), 64 of them."""
    rates = torch.exp(torch.arange(32, device=times.device) * (-math.log(10_000.0) / 31))
    angles = 1000.0 * times[:, None] * rates[None, :]
    return torch.cat([angles.sin(), angles.cos()], dim=-1)
