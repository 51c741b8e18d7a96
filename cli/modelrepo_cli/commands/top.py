"""`modelrepo top`."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import click

from modelrepo.errors import Forbidden, InvalidInput, Unreachable
from modelrepo_cli import parameters
from modelrepo_cli.fleet_facts import Which
from modelrepo_cli.verbs import Call, verb

if TYPE_CHECKING:
    from modelrepo_cli.top_page import View

QUIT = frozenset({"q", "Q", "\x03", "\x04"})
REST_S = 3600.0
"""Nothing has to be drawn until there is news, a key or another size."""
LEAVE_S = 1.0


@verb("queue", "token")
@click.argument("model", required=False)
@click.option("--model", "named", metavar="NAME", help="Only slots and jobs of this model.")
@click.option("--pool", metavar="NAME", help="Only workers of this pool: their cluster.")
@click.option("--worker", metavar="NAME", help="Only this worker.")
@click.option("--once", is_flag=True, help="Show it once, also on a terminal.")
@click.option(
    "--every", "every_s", type=parameters.DURATION, metavar="TIME", default="2s", show_default=True, help="How often."
)
def command(
    call: Call, model: str | None, named: str | None, pool: str | None, worker: str | None, once: bool, every_s: float
) -> None:
    """Watch lanes, slots and jobs.

    The slots that want to be looked at come first. On a terminal it is drawn anew until `q` or Ctrl-C; elsewhere, with
    --once and with --json, it is shown once. A queue that is away for a while is asked again; until it answers, the
    last view stays, with its time.
    """
    from modelrepo_cli import terminal, top_page

    if model is not None and named is not None and model != named:
        raise InvalidInput(f"cannot watch two models, {model} and {named}; name one, or none for all")
    with call.job_queue() as queue:
        look = partial(top_page.look, queue, Which(model or named, pool, worker))
        view = look()
        if once or call.output.as_json or not terminal.can_be_drawn_on():
            call.output.show(top_page.document(view), top_page.page(view))
            return
        _watch(look, view, every_s)


def _watch(look: Callable[[], View], first: View, every_s: float) -> None:
    from modelrepo_cli import terminal, top_page

    with terminal.screen() as (screen, wake):
        looker = Looker(look, first, every_s, partial(terminal.wake_up, wake))
        looker.start()
        try:
            while True:
                screen.draw(top_page.live_page(*looker.seen()))
                if screen.wait(REST_S) in QUIT:
                    return
        except KeyboardInterrupt:
            return
        finally:
            looker.stop()


class Looker:
    """Looks in a thread of its own: a queue that does not answer must not keep a key from being heard."""

    def __init__(self, look: Callable[[], View], first: View, every_s: float, changed: Callable[[], None]) -> None:
        self._look, self._every_s, self._changed = look, every_s, changed
        self._lock = threading.Lock()
        self._view = first
        self._away: str | None = None
        self._since: float | None = None
        self._failed: Exception | None = None
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="look", daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def stop(self) -> None:
        """Look no more; a look under way is not waited for long."""
        self._stopped.set()
        self._thread.join(LEAVE_S)

    def seen(self) -> tuple[View, str | None, float | None]:
        """Return the last good view, and why and since when the queue is away. Raises what no patience mends."""
        with self._lock:
            if self._failed is not None:
                raise self._failed
            return self._view, self._away, self._since

    def _run(self) -> None:
        while not self._stopped.wait(self._every_s):
            try:
                view = self._look()
            except Forbidden as error:
                with self._lock:
                    self._failed = error
            except Unreachable as error:
                with self._lock:
                    self._away, self._since = str(error), self._since or time.time()
            except Exception as error:  # noqa: BLE001 - raised where the terminal is given back
                with self._lock:
                    self._failed = error
            else:
                with self._lock:
                    self._view, self._away, self._since = view, None, None
            if not self._stopped.is_set():
                self._changed()
            if self._failed is not None:
                return
