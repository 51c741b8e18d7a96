"""The smallest model that shows everything: a checkpoint, two stages, progress. It needs nothing but Python."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from modelrepo_contract import Ctx, Job

STEP_S = 0.02  # how often `greet` reports while it pretends to compute


class Hello:
    """Greets people in the languages of its checkpoint."""

    def load(self, ctx: Ctx) -> None:
        self.greetings: dict[str, str] = json.loads(ctx.checkpoint("greetings").read_text(encoding="utf-8"))
        self.mark: str = ctx.config["mark"]

    def prepare(self, job: Job) -> dict[str, Any]:
        language = job.inputs["language"]
        if language not in self.greetings:
            job.reject("unknown_language", f"no greeting in {language!r}; there is {', '.join(sorted(self.greetings))}")
        return {"greeting": self.greetings[language]}

    def greet(self, job: Job) -> dict[str, Any]:
        steps = max(1, round(job.inputs["seconds"] / STEP_S))
        for step in range(steps):
            time.sleep(job.inputs["seconds"] / steps)
            job.progress((step + 1) / steps, f"step {step + 1}/{steps}")
        text = f"{job.previous['greeting']}, {job.inputs['name']}{self.mark}"
        job.output("greeting").write_text(text + "\n", encoding="utf-8")
        return {"text": text}
