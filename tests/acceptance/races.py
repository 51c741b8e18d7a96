"""A repository in memory that knows at every moment what its published versions need, and clients that race in it."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Self

from modelrepo import layout
from modelrepo.copying.place import Place
from modelrepo.copying.version_copy import Courier
from modelrepo.environments.record import EnvironmentRecord
from modelrepo.errors import Conflict, Corrupt, NotFound, Unreachable, VersionDeleted
from modelrepo.maintenance.prune import prune
from modelrepo.promotion import Promotions
from modelrepo.publication.leases import REQUEST_TIMEOUT_S
from modelrepo.publication.publish import Publication, publish
from modelrepo.stores.faults import KillNow, Verb, faulty
from modelrepo.stores.lagging import Lag, LaggingStore
from modelrepo.stores.memory import MemoryBucket, MemoryStore
from modelrepo.stores.port import ObjectStore
from modelrepo.testing.interleaving import DAY, HOUR, MINUTE, Actor, Interleaving
from modelrepo.versions.bundles import Bundle, Bundles, read_bundle
from modelrepo.versions.catalogue import Catalogue
from modelrepo.versions.manifest import PLAIN, ChunkRecord, FileRecord, Manifest

LONGEST_LAG_S = 20 * MINUTE
PAYLOADS = 12
CROWDED_S = 75 * MINUTE
OTHER = "copied"


class Violation(Exception):
    """A published version lacks something that it needs."""


class InlineWindow:
    """Does each call at once and in its order, so that a schedule is the same each time that it is run."""

    def __init__(self, **_: Any) -> None: ...

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None: ...

    def submit(self, _size_bytes: int, call: Callable[..., object], *args: Any) -> None:
        call(*args)

    def check(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Bytes:
    """The origin of an object that is in memory."""

    data: bytes
    place: tuple[str, int] = ("", 0)

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.data).hexdigest()

    @property
    def size_bytes(self) -> int:
        return len(self.data)

    def read(self) -> bytes:
        return self.data


class _Held(dict[str, Any]):
    def __init__(self, gone: Callable[[str], None]) -> None:
        super().__init__()
        self._gone = gone

    def pop(self, key: str, *default: Any) -> Any:
        self._gone(key)
        return super().pop(key, *default)


@dataclass
class World(MemoryBucket):
    """A bucket that looks, at every write, whether what is published is whole. `strict`: and complains at once."""

    strict: bool = True
    needs: dict[str, set[str]] = field(default_factory=dict)
    needed: Counter[str] = field(default_factory=Counter)
    promised: dict[str, set[str]] = field(default_factory=dict)
    deleted_objects: int = 0
    deleted_bundles: int = 0

    def __post_init__(self) -> None:
        self.held = _Held(self._gone)

    def put(self, key: str, data: bytes) -> None:
        super().put(key, data)
        if (named := layout.version_of(key)) is not None:
            self._published("/".join(named), Manifest.from_bytes(data))
        elif key.endswith("/deleted.json"):
            model, version = key.split("/")[1], key.split("/")[3]
            self.needed.subtract(self.needs.pop(f"{model}/{version}"))

    def lacking(self) -> list[str]:
        """Return what published versions need and is not there."""
        return [f"{version}: {key}" for version, keys in self.needs.items() for key in keys if key not in self.held]

    def garbage(self) -> list[str]:
        """Return the objects and bundles that nothing needs; an environment of a version keeps all of its bundles."""
        manifests = [Manifest.from_bytes(self.held[layout.manifest(*each.split("/"))].data) for each in self.needs]
        living = {manifest.environment.digest for manifest in manifests}
        kept = {layout.object_(digest) for manifest in manifests for digest in manifest.objects()}
        for key in [key for key in self.held if key.startswith(layout.ENVIRONMENTS)]:
            if layout.environment_of(key) in living:
                records = read_bundle(key, self.held[key].data)
                kept |= {key, *(layout.object_(chunk.sha256) for record in records for chunk in record.chunks)}
        return [key for key in self.held if key.startswith((layout.OBJECTS, layout.ENVIRONMENTS)) and key not in kept]

    def _published(self, version: str, manifest: Manifest) -> None:
        keys = {layout.object_(digest) for digest in manifest.objects()}
        for document in self.promised[manifest.push]:
            keys.add(document)
            if document in self.held:
                for record in read_bundle(document, self.held[document].data):
                    keys |= {layout.object_(chunk.sha256) for chunk in record.chunks}
        self.needs[version] = keys
        self.needed.update(keys)
        self._complain([key for key in keys if key not in self.held], f"{version} is published")

    def _gone(self, key: str) -> None:
        if key in self.held:
            self.deleted_objects += key.startswith(layout.OBJECTS)
            self.deleted_bundles += key.startswith(layout.ENVIRONMENTS)
            if self.needed[key] > 0:
                self._complain([key], "it was deleted")

    def _complain(self, keys: list[str], what: str) -> None:
        if keys and self.strict:
            users = [version for version, needs in self.needs.items() if needs & set(keys)]
            raise Violation(f"{what}, and {', '.join(users)} lacks {keys}")


@dataclass
class Race:
    """One schedule: clients of one repository, and of another that is copied from."""

    seed: int
    strict: bool = True
    longest_wait_s: float = 6 * HOUR
    kills: bool = True
    times: int = 0
    stalls: float = 0.03
    steps: Interleaving = field(init=False)
    world: World = field(init=False)
    done: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.steps = Interleaving(self.seed, longest_wait_s=self.longest_wait_s)
        self.random = self.steps.random
        self.world = World(clock=lambda: self.steps.now - 5 * DAY, strict=self.strict)
        self.elsewhere = World(clock=self.world.clock)
        self.elsewhere.promised = self.world.promised
        self._lag = Lag(self._time, self._staleness, LONGEST_LAG_S)
        source = MemoryStore("elsewhere", self.elsewhere)
        for _ in range(3):
            publish(source, self._publication(OTHER))
        old = MemoryStore("m", self.world)
        for number in range(1, 6):
            publish(old, self._publication("m"))
            if number > 1:
                old.create(layout.tombstone("m", f"v{number}"), b"{}")
        self.steps.now += 3 * DAY

    def run(self) -> None:
        """Let everybody do what they do, for some days."""
        pushers, pruners = [self._pusher] * 3, [self._pruner] * 2
        others = [self._copier, self._promoter, self._deleter, self._deleter, self._puller]
        for work in (*pushers, *pruners, *others):
            self.steps.spawn(work.__name__, work)
        self.steps.run()

    def duel(self) -> None:
        """Let few push, copy and prune at one moment, when two marks are due that both condemn all that is garbage."""
        self.times = 1
        old = MemoryStore("m", self.world)
        prune(old)
        mark = next(old.list(layout.PRUNES))
        old.create(layout.prune("again"), old.read(mark.key))
        self.steps.now += 2 * HOUR
        for work in (self._pusher, self._pusher, self._copier, self._pruner, self._pruner):
            self.steps.spawn(work.__name__, work)
        self.steps.run()

    def oversleep(self) -> None:
        """Let boxes sleep for days in the middle of a push, past all leases, while others prune: `strict` is too much.

        For a moment a version may be published and not be whole; its push must see to it.
        """
        self.times, self.stalls = 1, 0.15
        for _ in range(2):
            self.steps.spawn("sleeper", self._pusher)
        self.steps.spawn("pruner", self._daily_pruner)
        self.steps.run()

    def clean(self) -> None:
        """Prune until nothing is due any more; a few days are enough."""
        for _ in range(5):
            self.steps.now += 2 * DAY + HOUR
            prune(MemoryStore("m", self.world))

    def _pusher(self, actor: Actor) -> None:
        for _ in range(self.times or 3):
            self._meet(actor)
            with self._process(actor) as store:
                publish(store, self._publication("m"), clock=actor.clock())
                self.done["push"] += 1

    def _copier(self, actor: Actor) -> None:
        for version in ("v1", "v2", "v3")[: self.times or 3]:
            self._meet(actor)
            with self._process(actor) as store:
                source, target = self._place(MemoryStore("elsewhere", self.elsewhere)), self._place(store)
                Courier(source, target, "copier", clock=actor.clock()).carry(OTHER, version)
                self.done["copy"] += 1

    def _promoter(self, actor: Actor) -> None:
        for _ in range(4):
            self._meet(actor)
            with self._process(actor) as store:
                place = self._place(store)
                place.promotions.promote("m", self.random.choice(place.catalogue.versions("m") or ["v1"]))
                self.done["promote"] += 1

    def _deleter(self, actor: Actor) -> None:
        for _ in range(4):
            self._meet(actor)
            with self._process(actor) as store:
                place = self._place(store)
                model = self.random.choice(["m", "m", OTHER])
                place.promotions.delete(model, self.random.choice(place.catalogue.versions(model) or ["v1"]))
                self.done["delete"] += 1

    def _puller(self, actor: Actor) -> None:
        for _ in range(4):
            self._meet(actor)
            with self._process(actor) as store:
                catalogue = Catalogue(store)
                for version in catalogue.versions("m")[-1:]:
                    for digest in catalogue.manifest("m", version)[0].objects():
                        try:
                            store.read(layout.object_(digest))
                        except NotFound as error:
                            if not catalogue.is_deleted("m", version) and self.strict:
                                raise Violation(f"a pull of {version} found no {digest}") from error
                            raise VersionDeleted(version) from error
                    self.done["pull"] += 1

    def _pruner(self, actor: Actor) -> None:
        for _ in range(self.times or 7):
            self._meet(actor)
            grace_s = HOUR if self.times else self.random.choice([1, 1, 6, 24]) * HOUR
            with self._process(actor) as store:
                prune(store, grace_s=grace_s, clock=actor.clock())
                self.done["prune"] += 1

    def _meet(self, actor: Actor) -> None:
        """Sleep until one of the moments at which clients crowd."""
        moment = (self.steps.now // CROWDED_S + (1 if self.times else self.random.choice([1, 1, 1, 2, 9]))) * CROWDED_S
        actor.sleep(moment + self.random.uniform(0, MINUTE) - self.steps.now)

    def _daily_pruner(self, actor: Actor) -> None:
        for _ in range(20):
            actor.sleep(12 * HOUR)
            with self._process(actor, stalls=0) as store:
                prune(store, grace_s=HOUR, clock=actor.clock())

    def _process(self, actor: Actor, *, stalls: float | None = None) -> _Process:
        return _Process(
            self,
            actor,
            self.stalls if stalls is None else stalls,
            self.random.randint(1, 60) if self.kills and self.random.random() < 0.25 else None,
        )

    def _place(self, store: ObjectStore) -> Place:
        catalogue = Catalogue(store)
        return Place(store, catalogue, Promotions(store, catalogue, by="someone", sleep=lambda _: None))

    def _time(self) -> float:
        return self.steps.now

    def _staleness(self) -> float:
        return self.random.choice([0.0, self.random.uniform(0, LONGEST_LAG_S)])

    def _publication(self, model: str) -> Publication:
        """Make a version of few of the payloads that there are, so that versions share them."""
        files = self._some(3)
        wheels = self._some(1)
        environment = hashlib.sha256(b"environment %d" % self.random.randrange(4)).hexdigest()
        bundles = Bundles()
        bundles.add(Bundle(environment, None, "cp311", "linux", tuple(_record(each, "w.whl") for each in wheels)))
        push = f"{len(self.world.promised):032x}"
        self.world.promised[push] = set(bundles.documents)
        manifest = Manifest(
            model=model,
            version="",
            created_at="2026-01-01T00:00:00Z",
            spec={},
            environment=EnvironmentRecord("3.11", ">=3.11", environment, "f" * 64),
            code=tuple(_record(origin, f"{number}.bin") for number, origin in enumerate(files)),
            push=push,
        )
        return Publication(
            manifest, {each.sha256: each for each in (*files, *wheels)}, bundles.objects, bundles.documents
        )

    def _some(self, count: int) -> list[Bytes]:
        return [Bytes(b"payload %d" % number) for number in sorted(self.random.sample(range(PAYLOADS), count))]


class _Process:
    """One run of one command: its client of the store, and its end, be it by a kill or by an error of the store."""

    def __init__(self, race: Race, actor: Actor, stalls: float, killed_at: int | None) -> None:
        self._race, self._actor, self._stalls, self._left = race, actor, stalls, killed_at

    def __enter__(self) -> ObjectStore:
        race = self._race
        if race.random.random() < 0.1:
            self._actor.step_wall_clock(race.random.uniform(-DAY, DAY))
        lagging = LaggingStore(MemoryStore("m", race.world), race._lag)
        return _Repeating(faulty(lagging, before=self._before), race)

    def __exit__(self, _: object, error: BaseException | None, __: object) -> bool:
        return isinstance(error, KillNow | NotFound | Conflict | Unreachable | Corrupt)

    def _before(self, verb: Verb, key: str) -> None:
        stalls = verb != "delete" and self._race.random.random() < self._stalls
        until = self._race.steps.now + self._race.random.uniform(0, self._race.longest_wait_s) if stalls else None
        waited_s = self._actor.wait_for_turn(until=until)
        if self._left is not None:
            self._left -= 1
            if self._left <= 0:
                raise KillNow(f"{verb} {key}")
        if verb == "delete" and waited_s > REQUEST_TIMEOUT_S / 2:
            raise Unreachable(f"{verb} {key} was given up")


class _Repeating:
    """A client whose deletes are sometimes sent twice, because the first answer was lost."""

    def __init__(self, inner: ObjectStore, race: Race) -> None:
        self._inner, self._race = inner, race
        self.url, self.ability, self.identity = inner.url, inner.ability, inner.identity
        self.read, self.read_range, self.stat = inner.read, inner.read_range, inner.stat
        self.create, self.replace, self.list = inner.create, inner.replace, inner.list

    def delete(self, key: str) -> None:
        began = self._race.steps.now
        self._inner.delete(key)
        if self._race.random.random() < 0.2:
            with suppress(Unreachable):
                if self._race.steps.now - began < REQUEST_TIMEOUT_S / 2:
                    self._inner.delete(key)


def _record(origin: Bytes, path: str) -> FileRecord:
    chunk = ChunkRecord(origin.sha256, origin.size_bytes)
    return FileRecord(path, PLAIN, origin.size_bytes, origin.sha256, (chunk,))


def seeds(count: int) -> Iterator[int]:
    """Yield seeds of schedules, always the same."""
    return iter(range(count))
