"""Read an object of any size through little memory, from whatever store."""

from __future__ import annotations

from collections.abc import Iterator

from modelrepo.stores.port import ObjectStore, ReadsInPieces

RANGE_BYTES = 16 << 20
"""What one request brings from a store that has no better way."""


def pieces_of(store: ObjectStore, key: str, size_bytes: int) -> Iterator[bytes | memoryview]:
    """Yield the object's bytes, each piece valid until the next is asked for; ends once more than `size_bytes` came.

    What a document says of a size is not believed: nothing is made ready for it.

    Raises:
        ObjectNotFound
    """
    done = 0
    for piece in store.read_pieces(key) if isinstance(store, ReadsInPieces) else _ranges(store, key, size_bytes + 1):
        yield piece
        done += len(piece)
        if done > size_bytes:
            return


def _ranges(store: ObjectStore, key: str, most: int) -> Iterator[bytes]:
    done = 0
    while done < most:
        wanted = min(RANGE_BYTES, most - done)
        piece = store.read_range(key, done, wanted)
        yield piece
        done += len(piece)
        if len(piece) < wanted:
            return
