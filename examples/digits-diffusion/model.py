"""Handwritten digits, drawn by a small latent diffusion model: what `model.yaml` names as its entrypoint."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from diffusion import denoise_step, guided
from nets import CONDITION, LATENT, NO_DIGIT, ConditionEncoder, Decoder, Denoiser
from pictures import write_gif, write_sheet

if TYPE_CHECKING:
    from modelrepo_contract import Ctx, Job

FRAMES = 24  # of an animation; more are hardly seen and make the file larger
SAVE_EVERY_S = 0.1  # so much work is lost at most; what a state takes to save is next to nothing beside it


class DigitsDiffusion:
    """Three stages: conditions from digits, latents from noise, a picture from latents."""

    def load(self, ctx: Ctx) -> None:
        torch.set_num_threads(1)  # the networks are so small that threads cost more than they bring
        self.device = ctx.device
        self.guidance = float(ctx.config["guidance"])
        if "prepare" in ctx.stages:
            self.encoder = ConditionEncoder()
            self.encoder.load_state_dict(ctx.load_safetensors("condition-encoder", device="cpu"))
        if "generate" in ctx.stages:
            self.denoiser = Denoiser().to(self.device)
            self.denoiser.load_state_dict(ctx.load_safetensors("denoiser"))
        if "finish" in ctx.stages:
            self.decoder = Decoder()
            self.decoder.load_state_dict(ctx.load_safetensors("decoder", device="cpu"))

    def warmup(self, ctx: Ctx) -> None:
        with torch.inference_mode():
            if "generate" in ctx.stages:
                conditions = torch.zeros(2, 1, CONDITION, device=self.device)
                self._denoise(conditions, torch.zeros(1, LATENT, device=self.device), 1.0, 0.0)
            if "finish" in ctx.stages:
                self.decoder(torch.zeros(1, LATENT))

    @torch.inference_mode()
    def prepare(self, job: Job) -> dict[str, Any]:
        digits = torch.tensor([int(digit) for digit in job.inputs["digits"]])
        conditions = torch.stack([self.encoder(digits), self.encoder(torch.full_like(digits, NO_DIGIT))])
        np.save(job.handover("conditions.npy"), conditions.numpy())
        return {"digits": len(digits)}

    @torch.inference_mode()
    def generate(self, job: Job) -> dict[str, Any]:
        started = time.monotonic()
        steps: int = job.inputs["steps"]
        conditions = torch.from_numpy(np.load(job.handover("conditions.npy"))).to(self.device)
        # Drawn on the CPU, so that a seed gives the same picture on every device.
        noise = torch.Generator().manual_seed(job.inputs["seed"])
        latents = torch.randn(conditions.shape[1], LATENT, generator=noise).to(self.device)
        kept = {round(at * (steps - 1) / (FRAMES - 1)) for at in range(FRAMES)}
        frames, done, saved_at = [], 0, started
        before = job.state
        if before is not None:  # an attempt was cut off: go on where it was
            frames, done, latents = before["frames"], before["done"], before["latents"].to(self.device)
        for step in range(done, steps):
            latents, clean = self._denoise(conditions, latents, 1 - step / steps, 1 - (step + 1) / steps)
            if step in kept:
                frames.append(clean.cpu())
            job.progress((step + 1) / steps, f"step {step + 1}/{steps}")
            if time.monotonic() - saved_at >= SAVE_EVERY_S:
                job.save_state({"done": step + 1, "latents": latents, "frames": frames})
                saved_at = time.monotonic()
        np.save(job.handover("latents.npy"), torch.stack(frames).numpy())
        return {"generate_s": round(time.monotonic() - started, 3)}

    @torch.inference_mode()
    def finish(self, job: Job) -> dict[str, Any]:
        latents = torch.from_numpy(np.load(job.handover("latents.npy")))
        kind: str = job.inputs["format"]
        if kind == "gif":
            drawn = [self.decoder(frame).numpy() for frame in latents]
            write_gif(job.output("animation"), drawn)
        else:
            drawn = [self.decoder(latents[-1]).numpy()]
            write_sheet(job.output("sheet"), drawn[-1])
        return {
            "digits": job.inputs["digits"],
            "steps": job.inputs["steps"],
            "seed": job.inputs["seed"],
            **job.previous,
        }

    def _denoise(
        self, conditions: torch.Tensor, latents: torch.Tensor, at: float, next_time: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        def predict(noisy: torch.Tensor, times: torch.Tensor) -> torch.Tensor:
            both = self.denoiser(torch.cat([noisy, noisy]), torch.cat([times, times]), conditions.flatten(0, 1))
            return guided(*both.chunk(2), self.guidance)

        return denoise_step(predict, latents, at, next_time)
