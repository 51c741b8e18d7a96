"""Weights for a document: `python training_for_docs.py FILE`; run again it trains one layer."""

from __future__ import annotations

import sys
from pathlib import Path
from random import Random

from modelrepo.testing.tensor_files import tensor_bytes

MIB = 1 << 20


def main(file: Path) -> None:
    """Write 24 layers of 1 MiB, the eighth of them anew where the file is there."""
    random = Random(1)
    tensors = {f"layers.{layer}.weight": random.randbytes(MIB) for layer in range(24)}
    if file.exists():
        tensors["layers.7.weight"] = random.randbytes(MIB)
        tensors["layers.7.bias"] = random.randbytes(4096)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(tensor_bytes(tensors))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
