from __future__ import annotations

import shutil
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from modelrepo.errors import Corrupt, InvalidInput, JobNotFound, NewerFormat, StaleSession, Unreachable
from modelrepo_runtime.jobs import Cause, Outcome, StageNeed, Submission
from modelrepo_runtime.queue.port import Offer, WorkerInfo
from modelrepo_runtime.queue.sqlite import database, filesystems
from modelrepo_runtime.queue.sqlite.filesystems import network_type
from modelrepo_runtime.queue.sqlite.queue import SqliteQueue
from modelrepo_runtime.queue.sqlite.statements import texts

HOME = Path(database.__file__).parent


def schema_of(connection: sqlite3.Connection) -> list[tuple[str, str]]:
    return connection.execute("select name, sql from sqlite_master where sql is not null order by name").fetchall()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "queue.db"


@pytest.fixture
def queue(path: Path) -> Iterator[SqliteQueue]:
    with closing(SqliteQueue(path)) as opened:
        yield opened


def test_the_schema_is_the_sum_of_its_migrations() -> None:
    with closing(sqlite3.connect(":memory:")) as whole, closing(sqlite3.connect(":memory:")) as summed:
        database.apply_script(whole, (HOME / "schema.sql").read_text())
        for _, script in database.migrations():
            database.apply_script(summed, script)
        assert schema_of(whole) == schema_of(summed)


def test_every_statement_is_understood_by_the_schema() -> None:
    with closing(sqlite3.connect(":memory:")) as connection:
        database.apply_script(connection, (HOME / "schema.sql").read_text())
        for name, statement in texts().items():
            values = [None] * statement.count("?")
            try:
                connection.execute(f"explain {statement}", values)
            except sqlite3.ProgrammingError as error:
                assert "number of bindings" in str(error), name
    with pytest.raises(KeyError):
        texts()["no_such_statement"]


def test_no_statement_of_the_hot_path_reads_a_whole_table(queue: SqliteQueue, path: Path) -> None:
    hot: tuple[str, ...]
    hot = ("lane_heads", "ready_by_tag", "ready_by_age", "ready_ages", "ready_delete")
    hot += ("ready_of_job", "jobs_to_claim", "lease_view", "lease_delete")
    hot += ("lane_id", "idempotency_get", "pinned_get", "beats_move", "left_out_add", "fences_take", "job_row")
    hot += ("job_inputs", "session_get", "slots_delete", "turns_of_model")
    with closing(sqlite3.connect(path)) as connection:
        for name in (*hot, "delayed_due", "deadlines_passed", "work_waiting", "attempts_of_job", "finish_on_record"):
            statement = texts()[name] + (" where lease.fence = ?" if name == "lease_view" else "")
            highest = max([statement.count("?"), *(number for number in range(1, 10) if f"?{number}" in statement)])
            values = ["[]" if "json_each" in statement else 1] * highest
            plan = connection.execute(f"explain query plan {statement}", values[: _bindings(statement)]).fetchall()
            scans = [row[3] for row in plan if row[3].startswith("SCAN") and "json_each" not in row[3]]
            small = ("CONSTANT ROW", "lane", "SCAN pause", "SCAN breaker")
            assert not [scan for scan in scans if not any(known in scan for known in small)], (name, plan)


def _bindings(statement: str) -> int:
    numbered = {number for number in range(1, 10) if f"?{number}" in statement}
    return max(numbered) if numbered else statement.count("?")


def test_every_commit_is_synced_and_logged_ahead(queue: SqliteQueue) -> None:
    connection = queue.database.writer._connection
    assert connection.execute("pragma synchronous").fetchone()[0] == 2
    assert connection.execute("pragma journal_mode").fetchone()[0] == "wal"
    assert queue.database.reader.execute("pragma wal_autocheckpoint").fetchone()[0] == 0


def test_a_newer_schema_is_refused_and_left_alone(path: Path) -> None:
    SqliteQueue(path).close()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("pragma user_version = 99")
    with pytest.raises(NewerFormat, match="99"):
        SqliteQueue(path)
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("pragma user_version").fetchone()[0] == 99


def test_the_database_of_another_program_is_refused(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("create table theirs (x)")
    with pytest.raises(InvalidInput, match="another program"):
        SqliteQueue(path)


def test_a_file_that_is_no_database_is_refused(path: Path) -> None:
    path.write_bytes(b"not a database" * 1000)
    with pytest.raises(Corrupt, match=r"queue\.db"):
        SqliteQueue(path)


def test_a_folder_that_cannot_be_made_is_unreachable(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Unreachable, match="queue"):
        SqliteQueue(tmp_path / "file" / "queue.db")


@pytest.mark.parametrize("suffix", [".next", ".main"])
def test_a_lock_file_that_cannot_be_opened_is_unreachable(path: Path, suffix: str) -> None:
    Path(f"{path}{suffix}").mkdir()
    with pytest.raises(Unreachable, match=r"cannot open queue .*queue\.db"):
        SqliteQueue(path)


def test_a_link_to_a_queue_shares_its_locks_and_wake_ups(queue: SqliteQueue, path: Path, tmp_path: Path) -> None:
    link = tmp_path / "elsewhere" / "link.db"
    link.parent.mkdir()
    link.symlink_to(path)
    with closing(SqliteQueue(link)) as other, closing(queue.waiter(["m"])) as waiter:
        other.submit(Submission("m", {}, (StageNeed("run"),)))
        assert waiter.wait(5)
    assert [found.name for found in link.parent.iterdir()] == ["link.db"]


def test_nothing_of_an_ended_job_stays_where_running_jobs_are_kept(queue: SqliteQueue) -> None:
    stages = (StageNeed("prepare", "cpu"), StageNeed("generate"))
    offer = Offer("0", "m", "v1", ("prepare", "generate"))
    session = queue.hello(WorkerInfo("w", "box", 1))
    for seq, end in enumerate(("finish", "cancel")):
        job = queue.submit(Submission("m", {}, stages, deadline=time.time() + 60))
        (claim,) = queue.claim(session, seq, [offer])
        queue.beat(session, (), ())
        queue.progress(job.id, claim.fence, 0.5, None)
        done = Outcome(Cause.SUCCEEDED)
        then = queue.finish(session, job.id, claim.fence, done, then=offer if end == "finish" else None).next
        if then is not None:
            queue.finish(session, job.id, then.fence, done)
        else:
            queue.cancel(job.id)
    queue.tend()
    for table in ("ready", "delayed", "lease", "left_out", "pinned", "progress", "cancel", "lane"):
        assert queue.database.reader.execute(f"select count(*) from {table}").fetchone()[0] == 0, table


def test_a_failed_migration_changes_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    SqliteQueue(path).close()
    broken = [*database.migrations(), ("0003_broken.sql", "create table extra (x);\ncreate table job (x);\n")]
    monkeypatch.setattr(database, "migrations", lambda: broken)
    with pytest.raises(Unreachable, match="already exists"):
        SqliteQueue(path)
    monkeypatch.undo()
    with closing(SqliteQueue(path)) as queue:
        assert queue.list() == ()


def test_a_network_filesystem_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "network_type", lambda folder: "nfs4")
    with pytest.raises(InvalidInput, match=r"network filesystem \(nfs4\)"):
        SqliteQueue(path)
    assert not path.exists()


def test_the_mount_that_holds_a_folder_is_the_deepest(tmp_path: Path) -> None:
    mounts = tmp_path / "mountinfo"
    lines = ["1 1 8:1 / / rw - ext4 /dev/sda rw", f"2 1 0:5 / {tmp_path}/net\\040work rw shared:1 - nfs4 host:/x rw"]
    mounts.write_text("\n".join([*lines, f"3 2 8:2 / {tmp_path}/net\\040work/local rw - ext4 /dev/sdb rw"]))
    assert network_type(tmp_path, mounts) is None
    assert network_type(tmp_path / "net work" / "a", mounts) == "nfs4"
    assert network_type(tmp_path / "net work" / "local", mounts) is None
    assert network_type(tmp_path / "net workshop", mounts) is None
    assert network_type(tmp_path, tmp_path / "absent") is None
    assert "nfs" in filesystems.NETWORK_TYPES


@pytest.mark.parametrize("removed", ["queue.db*", "queue.db"])
def test_a_file_that_is_deleted_or_replaced_while_it_is_open_is_opened_again(
    queue: SqliteQueue, path: Path, removed: str
) -> None:
    session = queue.hello(WorkerInfo("w", "box", 1))
    job = queue.submit(Submission("m", {}, (StageNeed("run"),)))
    for file in path.parent.glob(removed):
        shutil.rmtree(file) if file.is_dir() else file.unlink()
    with closing(SqliteQueue(path)) as other:
        theirs = other.submit(Submission("m", {}, (StageNeed("run"),)))
        assert [found.id for found in queue.list()] == [theirs.id]
        ours = queue.submit(Submission("m", {}, (StageNeed("run"),)))
        assert {found.id for found in other.list()} == {theirs.id, ours.id}
        with pytest.raises(JobNotFound):
            queue.get(job.id)
        with pytest.raises(StaleSession):
            queue.beat(session, (), ())
    with closing(SqliteQueue(path)) as later:
        assert len(later.list()) == 2


def test_a_folder_that_goes_away_is_unreachable_until_it_is_back(tmp_path: Path) -> None:
    folder, away = tmp_path / "here", tmp_path / "away"
    with closing(SqliteQueue(folder / "queue.db")) as queue:
        job = queue.submit(Submission("m", {}, (StageNeed("run"),)))
        folder.rename(away)
        for call in (queue.list, queue.tend):
            with pytest.raises(Unreachable, match="not there any more"):
                call()
        away.rename(folder)
        assert [found.id for found in queue.list()] == [job.id]


def test_a_deadline_that_is_no_time_is_refused(queue: SqliteQueue) -> None:
    with pytest.raises(InvalidInput, match="deadline nan is no time"):
        queue.submit(Submission("m", {}, (StageNeed("run"),), deadline=float("nan")))


def test_the_log_is_copied_back_and_does_not_grow_for_ever(queue: SqliteQueue, path: Path) -> None:
    for _ in range(60):
        queue.submit(Submission("m", {"data": "x" * 200_000}, (StageNeed("run"),)))
    assert Path(f"{path}-wal").stat().st_size < 3 * database.CHECKPOINT_PAGES * 4096


def test_closing_leaves_one_file_and_no_log(path: Path) -> None:
    queue = SqliteQueue(path)
    queue.submit(Submission("m", {}, (StageNeed("run"),)))
    queue.close()
    queue.close()
    assert not Path(f"{path}-wal").exists()
    for call in (queue.list, queue.tend):
        with pytest.raises(Unreachable, match="closed"):
            call()
