"""What holds of the one PUT by which a bucket's object is written, whichever client sends it."""

from __future__ import annotations

from modelrepo.errors import InvalidInput
from modelrepo.stores.port import ObjectStore

ANSWER_TIMEOUT_S = 60
SLOWEST_WRITE = 64 << 10  # bytes per second


def longest_write_s(size_bytes: int) -> float:
    """Return how long a write may take: on a half-open connection its body would not go out for ever."""
    return ANSWER_TIMEOUT_S + size_bytes / SLOWEST_WRITE


def check_size(store: ObjectStore, key: str, data: bytes) -> None:
    """Refuse what one PUT cannot carry.

    Raises:
        InvalidInput
    """
    limit = store.ability.single_put_limit_bytes
    if limit is not None and len(data) > limit:
        raise InvalidInput(
            f"cannot write {key} in {store.url}: {len(data):,} bytes are more than one conditional write may carry "
            f"({limit:,}); cut it into chunks"
        )
