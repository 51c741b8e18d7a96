"""Every error that modelrepo raises, in one tree.

    ModelRepoError
    ├── InvalidInput (ValueError)            what was asked is not possible as written
    │   ├── InvalidName                      model or version name outside the allowed characters
    │   ├── InvalidReference                 `model@version` that cannot be read
    │   ├── InvalidSpec                      model.yaml, with line and key
    │   ├── InvalidCheckpoint                missing, empty, ignored, a Git-LFS pointer
    │   ├── InvalidCode                      code that may not be packed
    │   ├── InvalidActiveFile                active.yaml that is no YAML or names nothing
    │   ├── InvalidJobInput                  inputs outside their schema, with a JSON pointer
    │   ├── NeedsLargerSlot                  a job needs more memory than any slot of its model has
    │   ├── LockOutOfDate                    uv.lock missing or not that of pyproject.toml
    │   └── Unsuitable                       this box cannot run it
    │       ├── InterpreterMissing           no such Python here
    │       ├── NoExtraFits                  no `accelerators:` entry fits this box
    │       ├── HostNeedUnmet                a command, library or memory of `host:` is missing
    │       ├── SecretMissing                a name under `secrets:` has no value here
    │       └── DeviceHeld                   memory that a process had on a device does not come back
    ├── NotFound (LookupError)
    │   ├── RepositoryNotFound
    │   ├── ModelNotFound
    │   ├── VersionNotFound
    │   ├── ObjectNotFound                   a key that the store does not hold
    │   ├── JobNotFound
    │   └── WorkerNotFound                   no worker or slot of that name
    ├── Conflict                             somebody else's change, or a rule, stands in the way
    │   ├── ObjectExists (FileExistsError)   create-if-absent found it there, with other bytes
    │   ├── ObjectChanged                    conditional replace lost
    │   ├── VersionExists (FileExistsError)
    │   ├── GenerationChanged                `--expect` or a lost race
    │   ├── VersionBlocked
    │   ├── VersionDeleted
    │   ├── VersionInUse                     active, or what a rollback would bring back
    │   ├── StoreNotTrusted                  read-only: no probe on record, or another endpoint
    │   ├── AlreadyServed                    a live process holds what was asked for
    │   ├── TooLate                          it would start later than its tier may wait
    │   ├── SwapHalted                       other slots refused the version: nobody else is to try it
    │   ├── StaleFence                       the attempt is no longer this worker's
    │   └── StaleSession                     the queue has ended the worker's session
    ├── Unreachable (ConnectionError)
    │   └── Forbidden (PermissionError)
    ├── NotConverged (TimeoutError)          written, but not yet in force everywhere
    ├── NewerFormat                          written by a newer modelrepo
    ├── Corrupt                              bytes are not what their digest says
    ├── NoSpace (OSError)                    disk, inodes or shared memory full
    ├── Stopped (InterruptedError)           somebody asked it to stop before it was done
    ├── EnvironmentFailed                    uv could not lock, resolve or install
    ├── EntrypointFailed                     model code did not import, load or warm up
    └── MissingExtra (ImportError)           an optional part of modelrepo is not installed

A message says what failed, on which object, what was found, and what to do. Facts that a program may want are
attributes.
"""

from __future__ import annotations


class ModelRepoError(Exception):
    """The root; catching it catches everything that modelrepo raises on purpose."""


class InvalidInput(ModelRepoError, ValueError):
    """What was asked is not possible as written; nothing was changed."""


class InvalidName(InvalidInput):
    """A model or version name holds characters that the format does not allow."""


class InvalidReference(InvalidInput):
    """A reference is neither `model` nor `model@version`."""


class InvalidSpec(InvalidInput):
    """model.yaml breaks the contract. `path`, `line` (1-based) and `key` say where."""

    def __init__(
        self, message: str, *, path: str = "model.yaml", line: int | None = None, key: str | None = None
    ) -> None:
        self.path, self.line, self.key, self.problem = path, line, key, message
        where = f"{path}:{line}" if line is not None else path
        super().__init__(f"{where}: {message}")


class InvalidCheckpoint(InvalidInput):
    """A file that `checkpoints:` names cannot be packed."""


class InvalidCode(InvalidInput):
    """A code file cannot be packed."""


class InvalidActiveFile(InvalidInput):
    """active.yaml cannot be read as one."""


class InvalidJobInput(InvalidInput):
    """A job's inputs break the model's schema. `pointer` is an RFC 6901 JSON pointer into the inputs."""

    def __init__(self, message: str, *, pointer: str = "") -> None:
        self.pointer = pointer
        super().__init__(message)


class InvalidAdapter(InvalidInput):
    """An adapter of a job is not possible as given. `pointer` is an RFC 6901 JSON pointer into the submission."""

    def __init__(self, message: str, *, pointer: str = "/adapters") -> None:
        self.pointer = pointer
        super().__init__(message)


class NeedsLargerSlot(InvalidInput):
    """A job was refused because no slot has the memory that such jobs have been seen to need; bytes throughout."""

    def __init__(self, message: str = "", *, needed_bytes: int = 0, largest_bytes: int = 0) -> None:
        self.needed_bytes, self.largest_bytes = needed_bytes, largest_bytes
        super().__init__(message)


class LockOutOfDate(InvalidInput):
    """uv.lock is missing or does not answer to pyproject.toml."""


class Unsuitable(InvalidInput):
    """This box cannot run what was asked."""


class InterpreterMissing(Unsuitable):
    """No interpreter of the wanted Python version is on this box."""


class NoExtraFits(Unsuitable):
    """No entry of `accelerators:` is satisfied by this box."""


class HostNeedUnmet(Unsuitable):
    """A need under `host:` is not met by this box."""


class SecretMissing(Unsuitable):
    """A secret that the model names has no value on this box."""


class DeviceHeld(Unsuitable):
    """Memory of a device was not returned after the end of the process that had it."""


class NotFound(ModelRepoError, LookupError):
    """What was named does not exist."""


class RepositoryNotFound(NotFound):
    """The URL holds no repository."""


class ModelNotFound(NotFound):
    """The repository holds no such model."""


class VersionNotFound(NotFound):
    """The model has no such version."""


class ObjectNotFound(NotFound):
    """The store holds no such key. `key` is relative to the store's root."""

    def __init__(self, message: str, *, key: str = "") -> None:
        self.key = key
        super().__init__(message)


class JobNotFound(NotFound):
    """The queue knows no such job."""


class WorkerNotFound(NotFound):
    """No session reports a worker or slot of that name."""


class Conflict(ModelRepoError):
    """Somebody else's change, or a rule, stands in the way."""


class ObjectExists(Conflict, FileExistsError):
    """Create-if-absent found the key taken. `key` is relative to the store's root."""

    def __init__(self, message: str, *, key: str = "") -> None:
        self.key = key
        super().__init__(message)


class ObjectChanged(Conflict):
    """A conditional replace found other bytes than it was to replace."""


class VersionExists(Conflict, FileExistsError):
    """The version id is taken; ids are never used twice."""


class GenerationChanged(Conflict):
    """The active version was changed by somebody else in between."""


class VersionBlocked(Conflict):
    """The version was rolled back or blocked; `--force` promotes it all the same."""


class VersionDeleted(Conflict):
    """The version was deleted; its id stays taken."""


class VersionInUse(Conflict):
    """The version is active, or what a rollback would bring back; it cannot be deleted."""


class StoreNotTrusted(Conflict):
    """The store has not shown that it creates-if-absent; it is read-only for us."""


class AlreadyServed(Conflict):
    """A live process holds what was asked for."""


class TooLate(Conflict):
    """A job was refused because it would start later than its tier may wait; seconds throughout."""

    def __init__(self, message: str = "", *, predicted_s: float = 0.0, slo_s: float = 0.0) -> None:
        self.predicted_s, self.slo_s = predicted_s, slo_s
        self.retry_after_s = max(1.0, predicted_s - slo_s)
        super().__init__(message)


class SwapHalted(Conflict):
    """Enough slots have refused a version; those that have not begun the swap to it leave it alone."""


class StaleFence(Conflict):
    """The attempt is no longer leased to whoever writes; nothing was changed."""


class StaleSession(Conflict):
    """The queue has ended this worker's session; it begins a new one with `hello`."""


class Unreachable(ModelRepoError, ConnectionError):
    """A store, queue or server did not answer, or answered with a fault. Never mistaken for an empty answer.

    `transient`: the same request may well be answered when it is made again; False too where it was made again, for
    as long as is of use. `status`: that of the HTTP answer, None where there was none.
    """

    def __init__(self, message: str = "", *, transient: bool = True, status: int | None = None) -> None:
        self.transient, self.status = transient, status
        super().__init__(message)


class Forbidden(Unreachable, PermissionError):
    """A store refused our credentials."""

    def __init__(self, message: str = "") -> None:
        super().__init__(message, transient=False)


class NotConverged(ModelRepoError, TimeoutError):
    """The change is written, but not yet in force everywhere."""


class NewerFormat(ModelRepoError):
    """It was written by a newer modelrepo; this one would misread it."""


class Corrupt(ModelRepoError):
    """Bytes are not what their digest says. `path` and `digest` name them."""

    def __init__(self, message: str, *, path: str = "", digest: str = "") -> None:
        self.path, self.digest = path, digest
        super().__init__(message)


class NoSpace(ModelRepoError, OSError):
    """Disk, inodes or shared memory are full; the message has the sizes."""


class Stopped(ModelRepoError, InterruptedError):
    """Long work was asked to stop before it was done; nothing half-written is taken for whole."""


class EnvironmentFailed(ModelRepoError):
    """uv could not lock, resolve or install an environment. `log` holds its last lines."""

    def __init__(self, message: str, *, log: str = "") -> None:
        self.log = log
        super().__init__(message)


class EntrypointFailed(ModelRepoError):
    """Model code did not import, load or warm up. `log` holds the last lines of its output."""

    def __init__(self, message: str, *, log: str = "") -> None:
        self.log = log
        super().__init__(message)


class MissingExtra(ModelRepoError, ImportError):
    """An optional part of modelrepo is not installed. `extra` names it, or `package` where there is no extra for it."""

    def __init__(self, what: str, extra: str | None = None, *, package: str | None = None) -> None:
        self.extra, self.package = extra, package
        needed = f"the {extra!r} extra" if extra else f"the package {package!r}"
        install = f"'modelrepo-toolkit[{extra}]'" if extra else package
        super().__init__(f"{what} needs {needed}: pip install {install}")
