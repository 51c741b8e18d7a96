"""The noise schedule and the sampler; formulas by their papers' numbers."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

Predict = Callable[[Tensor, Tensor], Tensor]  # (latents n x d, times n) -> noise n x d

OFFSET = 0.008  # `s` of equation 17: keeps the first steps' noise from vanishing
CLIP = 3.0  # latents have unit variance; a predicted clean one beyond this is an early step's guess gone astray


def signal_share(times: Tensor) -> Tensor:
    """Return alpha-bar at times in 0..1: the cosine schedule of Nichol and Dhariwal 2021, arXiv:2102.09672, eq. 17."""
    start = math.cos(OFFSET / (1 + OFFSET) * math.pi / 2) ** 2
    angles = (times + OFFSET) / (1 + OFFSET) * (math.pi / 2)
    return (angles.cos() ** 2 / start).clamp(1e-5, 1.0)


def add_noise(clean: Tensor, noise: Tensor, times: Tensor) -> Tensor:
    """Sample q(x_t | x_0): Ho et al. 2020, arXiv:2006.11239, eq. 4."""
    share = signal_share(times)[:, None]
    return share.sqrt() * clean + (1 - share).sqrt() * noise


def guided(conditioned: Tensor, free: Tensor, weight: float) -> Tensor:
    """Push the prediction towards its condition: Ho and Salimans 2022, arXiv:2207.12598, eq. 6."""
    return (1 + weight) * conditioned - weight * free


def denoise_step(predict: Predict, latents: Tensor, time: float, next_time: float) -> tuple[Tensor, Tensor]:
    """Go from `time` to `next_time` without fresh noise (DDIM, Song et al. 2021, arXiv:2010.02502, eq. 12, sigma = 0).

    Returns the next latents, and the clean ones that this step believes in.
    """
    times = latents.new_full((len(latents),), time)
    share, next_share = signal_share(times)[:, None], signal_share(torch.full_like(times, next_time))[:, None]
    noise = predict(latents, times)
    clean = ((latents - (1 - share).sqrt() * noise) / share.sqrt()).clamp(-CLIP, CLIP)
    noise = (latents - share.sqrt() * clean) / (1 - share).sqrt()
    return next_share.sqrt() * clean + (1 - next_share).sqrt() * noise, clean
