"""Wake-ups between the processes of a fleet: LISTEN and NOTIFY on one connection, in one thread.

A process tells the others at most every 50 ms, all its news at once. Nothing is owed: what does not fit or comes while
the server is away is lost, and the poll interval is the net.
"""

from __future__ import annotations

import json
import os
import secrets
import select
import threading
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from typing import Any

import psycopg
from psycopg.pq import ExecStatus

from modelrepo_runtime.queue.postgres.news import News

CHANNEL = "modelrepo"
DEBOUNCE_S = 0.05
RECONNECT_S = 0.5
FIRST_LISTEN_S = 5.0
LARGEST_PAYLOAD_BYTES = 7900
"""The server takes 8000."""


class Wire:
    """Started by the first who has something to tell or to wait for."""

    def __init__(self, name: str, open_one: Callable[[], psycopg.Connection[Any]]) -> None:
        self.news = News()
        self._name, self._open = name, open_one
        self._own = secrets.token_hex(6)
        self._guard = threading.Lock()
        self._models: set[str] = set()
        self._jobs: set[str] = set()
        self._thread: threading.Thread | None = None
        self._read_end, self._write_end = os.pipe()
        for end in (self._read_end, self._write_end):
            os.set_blocking(end, False)
        self._listens, self._closing = False, False
        self._listening = threading.Event()

    def tell(self, models: Collection[str], jobs: Collection[str]) -> None:
        """Wake waiters here at once, those of other processes soon."""
        if not (models or jobs):
            return
        self.news.tell(models, jobs)
        with self._guard:
            first = not (self._models or self._jobs)
            self._models.update(models)
            self._jobs.update(jobs)
        if first:
            self._start()
            self._stir()

    def listen(self) -> None:
        """Hear others from now on; returns once that is so, or the server has been away for a while."""
        if not self._listening.is_set():
            self._listens = True
            self._start()
            self._stir()
            self._listening.wait(FIRST_LISTEN_S)

    def close(self) -> None:
        """Tell what is still to be told and stop; closing twice is legal."""
        with self._guard:
            if self._closing:
                return
            self._closing = True
            thread = self._thread
        self._stir()
        if thread is not None:
            thread.join()
        os.close(self._read_end)
        os.close(self._write_end)

    def _start(self) -> None:
        with self._guard:
            if self._thread is None and not self._closing:
                self._thread = threading.Thread(target=self._run, name=f"queue wire {self._name}", daemon=True)
                self._thread.start()

    def _stir(self) -> None:
        with suppress(OSError):
            os.write(self._write_end, b"!")

    def _run(self) -> None:
        while True:
            try:
                with self._open() as connection:
                    self._serve(connection)
                return
            except (psycopg.Error, OSError):
                if self._closing:
                    return
                self._pause(RECONNECT_S)

    def _serve(self, connection: psycopg.Connection[Any]) -> None:
        heard, quiet_until = False, 0.0
        poller = select.poll()
        poller.register(self._read_end, select.POLLIN)
        poller.register(connection.pgconn.socket, select.POLLIN)
        while True:
            if self._listens and not heard:
                connection.execute(f"listen {CHANNEL}".encode())
                heard = True
                self._listening.set()
                self.news.tell_all()
            left_s = quiet_until - time.monotonic()
            if left_s <= 0 and self._send(connection):
                quiet_until = time.monotonic() + DEBOUNCE_S
                left_s = DEBOUNCE_S
            self._hear(connection)
            if self._closing:
                self._send(connection)
                return
            poller.poll(max(1, int(left_s * 1000)) if left_s > 0 else None)
            self._drain()

    def _send(self, connection: psycopg.Connection[Any]) -> bool:
        with self._guard:
            models, jobs = sorted(self._models), list(self._jobs)
            self._models.clear()
            self._jobs.clear()
        if not (models or jobs):
            return False
        sent = connection.pgconn.exec_params(
            b"select pg_notify($1, $2)", [CHANNEL.encode(), _payload(self._own, models, jobs)]
        )
        if sent.status != ExecStatus.TUPLES_OK:
            raise psycopg.errors.error_from_result(sent)
        return True

    def _hear(self, connection: psycopg.Connection[Any]) -> None:
        connection.pgconn.consume_input()
        while (told := connection.pgconn.notifies()) is not None:
            said = json.loads(told.extra)
            if said["from"] != self._own:
                self.news.tell(said["models"], said["jobs"])

    def _pause(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while not self._closing and (left_s := until - time.monotonic()) > 0:
            select.select([self._read_end], [], [], left_s)
            self._drain()

    def _drain(self) -> None:
        with suppress(BlockingIOError):
            while os.read(self._read_end, 4096):
                pass


def _payload(own: str, models: list[str], jobs: list[str]) -> bytes:
    """Write as much as fits, models first."""
    room = LARGEST_PAYLOAD_BYTES - len(json.dumps({"from": own, "models": [], "jobs": []}))
    kept: dict[str, list[str]] = {"models": [], "jobs": []}
    for kind, names in (("models", models), ("jobs", jobs)):
        for name in names:
            room -= len(json.dumps(name)) + 2
            if room < 0:
                break
            kept[kind].append(name)
    return json.dumps({"from": own, **kept}).encode()
