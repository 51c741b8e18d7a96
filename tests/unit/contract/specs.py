"""A model.yaml that uses every key, and short ones made from parts."""

from __future__ import annotations

from textwrap import dedent

from modelrepo.contract import ModelSpec, parse_spec

EVERY_KEY = dedent(
    """\
    contract: 1
    name: video-gen
    entrypoint: model:VideoGen
    code: [src, .]
    checkpoints:
      pipeline: checkpoints/pipeline
      t5: {source: "hf://org/t5@abcdef", include: ["*.safetensors", "*.json"], exclude: ["*fp32*"]}
      vae: {source: "modelrepo:video-gen@v41/vae"}
    inputs:
      prompt: {type: string, maxLength: 2000, required: true}
      image: {type: string, format: file, contentTypes: [image/png, image/jpeg], maxBytes: 20MiB}
      steps: {type: integer, minimum: 1, maximum: 100, default: 40}
    outputs: {video: {format: file, contentType: video/mp4}}
    size: "steps"
    stages:
      - {name: prepare, on: cpu, checkpoints: [t5], max_batch: 2, batch_wait: 1s}
      - {name: generate, on: gpu, gpus: 2, gpu_memory: 60GiB, host_memory: 80GiB, max_batch: 4, timeout: 20min}
      - {name: finish, on: cpu}
    accelerators:
      - {when: "cuda >= 12.8", extra: cu128}
      - {when: "rocm >= 6.2", extra: rocm}
    host: {commands: {ffmpeg: ">=6"}, libraries: [libGL.so.1], compiler: true, gpu: {memory: 80GiB}}
    env: {PYTORCH_CUDA_ALLOC_CONF: "expandable_segments:True"}
    config: {safety_threshold: 0.8}
    secrets: [HF_TOKEN]
    swap: drain
    """
)

SMALL = "contract: 1\nname: tiny\nentrypoint: model:Tiny\n"


def spec_with(rest: str = "") -> ModelSpec:
    """Read the smallest model.yaml with `rest` behind it."""
    return parse_spec(SMALL + dedent(rest))
