"""A safetensors file for a document: `python tensors_for_docs.py FILE`."""

import json
import struct
import sys
from pathlib import Path


def main(file: Path) -> None:
    """Write one tensor of two numbers."""
    header = json.dumps({"scale": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}).encode()
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(struct.pack("<Q", len(header)) + header + struct.pack("<2f", 0.5, 2.0))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
