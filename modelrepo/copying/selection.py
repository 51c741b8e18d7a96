"""Which versions a copy takes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from modelrepo.copying.place import Place
from modelrepo.errors import InvalidInput

_MEANT = "it is made of active, previous and last:N, with commas between them"


@dataclass(frozen=True, slots=True)
class Selection:
    """What to take of a model: its active version, the one that a rollback would bring back, its `last` newest."""

    active: bool = False
    previous: bool = False
    last: int = 0

    @classmethod
    def parse(cls, text: str) -> Selection:
        """Read `active,previous,last:5`, any part of it.

        Raises:
            InvalidInput
        """
        active, previous, last = False, False, 0
        for part in text.split(","):
            name, colon, number = part.strip().partition(":")
            if name == "last" and colon and number.isascii() and number.isdigit() and int(number) > 0:
                last = max(last, int(number))
            elif part.strip() == "active":
                active = True
            elif part.strip() == "previous":
                previous = True
            else:
                raise InvalidInput(f"cannot read the versions {text!r}: {part.strip()!r} is no part of one; {_MEANT}")
        return cls(active, previous, last)


def versions_of(place: Place, model: str, selection: Selection | None) -> list[str]:
    """Return the versions of a model that are meant, oldest publication first; all that are not deleted for None.

    Raises:
        ModelNotFound, VersionNotFound: the repository has no such model, or the model no version.
    """
    there = place.catalogue.versions(model)
    if selection is None:
        if not there:
            raise place.catalogue.unknown(model)
        return there
    meant = set(_meant(place, model, selection, there))
    return [version for version in there if version in meant]


def _meant(place: Place, model: str, selection: Selection, there: list[str]) -> Iterator[str | None]:
    if not there:
        raise place.catalogue.unknown(model)
    if selection.active:
        yield place.promotions.state(model).version
    if selection.previous:
        yield place.promotions.previous(model)
    if selection.last:
        yield from there[-selection.last :]
