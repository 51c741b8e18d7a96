"""Train the three networks on scikit-learn's 1,797 handwritten digits: about a minute on two CPU cores.

    uv run --group train train.py                    what ships as checkpoints/
    uv run --group train train.py --short            what ships as v1/, visibly worse

Two trainings, as in Rombach et al. 2022 (arXiv:2112.10752): an autoencoder, of which the decoder is kept, then a
diffusion model over its latents. `--short` stops the second after a few steps and shares the first.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from diffusion import add_noise
from nets import CLASSES, LATENT, NO_DIGIT, SIDE, ConditionEncoder, Decoder, Denoiser
from safetensors.torch import save_file
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional

HERE = Path(__file__).resolve().parent
FULL_STEPS, SHORT_STEPS = 7000, 110
BATCH = 256
MARGIN = 3  # pixels of paper round a digit, which fills its 8 x 8 frame
DROPPED = 0.1  # share of conditions hidden in training, so that the denoiser also learns "any digit"


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--short", action="store_true", help="train the first, worse version")
    options.add_argument("--seed", type=int, default=7)
    asked = options.parse_args()
    target = HERE / "v1" if asked.short else HERE / "checkpoints"
    torch.manual_seed(asked.seed)
    pictures, digits = load_pictures()
    decoder, latents = train_autoencoder(pictures)
    torch.manual_seed(asked.seed)
    encoder, denoiser = train_denoiser(latents, digits, SHORT_STEPS if asked.short else FULL_STEPS)
    target.mkdir(parents=True, exist_ok=True)
    nets = {"condition_encoder": encoder, "denoiser": denoiser, "decoder": decoder}
    for name, net in nets.items():
        weights = {key: value.detach().contiguous() for key, value in net.state_dict().items()}
        save_file(weights, target / f"{name}.safetensors")
    print(f"wrote {', '.join(nets)} to {target.relative_to(HERE)}/")


def load_pictures() -> tuple[Tensor, Tensor]:
    """Return the digits enlarged from 8 x 8 to SIDE x SIDE with crisp strokes (0..1), and what they show."""
    data = load_digits()
    small = torch.tensor(data.images, dtype=torch.float32)[:, None] / 16.0
    large = functional.interpolate(
        small, size=(SIDE - 2 * MARGIN, SIDE - 2 * MARGIN), mode="bicubic", align_corners=False
    )
    edge = ((functional.pad(large, [MARGIN] * 4) - 0.2) / 0.5).clamp(0, 1)
    return (edge * edge * (3 - 2 * edge)).squeeze(1), torch.tensor(data.target, dtype=torch.int64)


def train_autoencoder(pictures: Tensor, steps: int = 1500) -> tuple[Decoder, Tensor]:
    """Return the decoder, and the pictures' latents with zero mean and unit variance."""
    encoder = nn.Sequential(
        nn.Unflatten(1, (1, SIDE)),
        nn.Conv2d(1, 16, 4, stride=2, padding=1),
        nn.SiLU(),
        nn.Conv2d(16, 32, 4, stride=2, padding=1),
        nn.SiLU(),
        nn.Flatten(),
        nn.Linear(32 * 8 * 8, LATENT),
    )
    decoder = Decoder()
    optimizer = torch.optim.AdamW([*encoder.parameters(), *decoder.parameters()], lr=2e-3, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=steps)
    for step in range(steps):
        batch = pictures[torch.randint(len(pictures), (128,))]
        latents = encoder(batch)
        noisy = latents + 0.1 * torch.randn_like(latents)
        loss = functional.mse_loss(decoder(noisy), batch) + 1e-4 * latents.square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 300 == 0:
            print(f"autoencoder {step:5d}/{steps}  loss {loss.item():.4f}", flush=True)
    with torch.no_grad():
        latents = encoder(pictures)
        decoder.mean.copy_(latents.mean(0))
        decoder.scale.copy_(latents.std(0))
    return decoder, (latents - decoder.mean) / decoder.scale


def train_denoiser(latents: Tensor, digits: Tensor, steps: int) -> tuple[ConditionEncoder, Denoiser]:
    """Minimise the noise prediction error (Ho et al. 2020, arXiv:2006.11239, eq. 14) and return averaged weights."""
    nets = nn.ModuleDict({"encoder": ConditionEncoder(), "denoiser": Denoiser()})
    average = torch.optim.swa_utils.AveragedModel(nets, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.995))
    optimizer = torch.optim.AdamW(nets.parameters(), lr=1e-3, weight_decay=1e-3)
    for group in optimizer.param_groups:
        group["initial_lr"] = group["lr"]
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(1.0, (step + 1) / 100, 1.05 - step / steps)
    )
    for step in range(steps):
        rows = torch.randint(len(latents), (BATCH,))
        clean, shown = latents[rows] + 0.05 * torch.randn(BATCH, LATENT), digits[rows]
        shown = torch.where(torch.rand(BATCH) < DROPPED, NO_DIGIT, shown)
        noise, times = torch.randn_like(clean), torch.rand(BATCH)
        guess = nets["denoiser"](add_noise(clean, noise, times), times, nets["encoder"](shown))
        loss = functional.mse_loss(guess, noise)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        average.update_parameters(nets)
        if step % 1000 == 0:
            print(f"denoiser {step:5d}/{steps}  loss {loss.item():.4f}", flush=True)
    assert digits.max() < CLASSES
    trained = average.module if steps == FULL_STEPS else nets
    return trained["encoder"], trained["denoiser"]


if __name__ == "__main__":
    main()
