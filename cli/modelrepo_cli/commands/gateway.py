"""`modelrepo gateway`."""

from __future__ import annotations

from pathlib import Path

import click

from modelrepo_cli import parameters
from modelrepo_cli.verbs import Call, verb

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@verb("repo", "queue", "files")
@click.option("--host", default="127.0.0.1", show_default=True, metavar="ADDRESS", help="Where to listen.")
@click.option("--port", type=click.IntRange(0, 65535), default=8080, show_default=True, help="0: any free one.")
@click.option("--public-url", metavar="URL", help="Where clients reach it, if that is behind a proxy.")
@click.option("--tls-cert", type=_FILE, metavar="FILE", help="Speak TLS with this certificate chain (PEM).")
@click.option("--tls-key", type=_FILE, metavar="FILE", help="Its private key; in the same file unless given.")
@click.option(
    "--allow-url-host",
    "hosts",
    multiple=True,
    metavar="HOST",
    help="URLs of tenants may name it, inside too; repeat it.",
)
@click.option(
    "--max-connections", type=click.IntRange(1), default=12_000, show_default=True, metavar="N", help="Carry so many."
)
@click.option("--grace", "grace_s", type=parameters.DURATION, default="30s", show_default=True, metavar="TIME",
              help="From SIGTERM, the time in which requests under way may end.")  # fmt: skip
@click.option("--webhooks/--no-webhooks", default=True, show_default=True, help="Send the events of jobs to receivers.")
def command(
    call: Call,
    host: str,
    port: int,
    public_url: str | None,
    tls_cert: Path | None,
    tls_key: Path | None,
    hosts: tuple[str, ...],
    max_connections: int,
    grace_s: float,
    webhooks: bool,
) -> None:
    """Serve the API to clients, workers and operators.

    Stateless: start any number before one queue. Without a token in the queue it listens on this box alone; see
    `modelrepo token create`. Logs are lines of JSON on standard error.
    """
    from modelrepo_runtime.gateway.running import Wish, run_gateway

    wish = Wish(
        host=host,
        port=port,
        public_url=public_url,
        certificate=tls_cert,
        key=tls_key,
        allow_url_hosts=frozenset(hosts),
        most_requests=max_connections,
        stop_grace_s=grace_s,
        send_webhooks=webhooks,
    )
    with call.job_queue() as queue:
        run_gateway(
            wish,
            call.repository(),
            queue,
            call.files,
            lambda url: call.output.show({"url": url}, f"gateway listens on {url}"),
        )
