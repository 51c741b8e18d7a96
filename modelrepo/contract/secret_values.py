"""Values for the names under `secrets:`; they come from the box, never from the repository."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from modelrepo.contract.spec import ModelSpec
from modelrepo.errors import SecretMissing

PREFIX = "MODELREPO_SECRET_"


def resolve_secrets(spec: ModelSpec, secrets_dir: Path | None, environ: Mapping[str, str]) -> dict[str, str]:
    """Return each named secret: a file of that name in `secrets_dir`, else MODELREPO_SECRET_<NAME>.

    A file's one trailing newline is no part of the value. Raises: SecretMissing, naming all that are missing.
    """
    values: dict[str, str] = {}
    missing: list[str] = []
    for name in spec.secrets:
        value = _from_file(secrets_dir, name)
        if value is None:
            value = environ.get(PREFIX + name)
        if value is not None and "\0" in value:
            raise SecretMissing(f"the secret {name} holds a NUL byte, which no variable can; write it as text")
        if value is None:
            missing.append(name)
        else:
            values[name] = value
    if missing:
        variables = ", ".join(PREFIX + name for name in missing)
        place = f"a file in {secrets_dir}" if secrets_dir else "a file in --secrets-dir DIR"
        raise SecretMissing(
            f"no value here for {', '.join(missing)}, which {spec.name} needs; put it into {place} or set {variables}"
        )
    return values


def _from_file(folder: Path | None, name: str) -> str | None:
    if folder is None:
        return None
    path = folder / name
    try:
        return path.read_text("utf-8").removesuffix("\n").removesuffix("\r")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise SecretMissing(f"the secret {name} cannot be read from {path}: {error}") from None
