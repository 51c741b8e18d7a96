from pathlib import Path

from modelrepo_cli import reference

FOLDER = Path(__file__).resolve().parents[3] / "docs" / "reference"


def test_the_reference_is_what_the_commands_say() -> None:
    for name, text in reference.pages().items():
        assert (FOLDER / name).read_text(encoding="utf-8") == text, "run python -m modelrepo_cli.reference"
