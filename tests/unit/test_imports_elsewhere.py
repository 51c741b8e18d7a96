"""Library, runtime and command line import where Linux's own calls are missing, as on macOS."""

from __future__ import annotations

import subprocess
import sys

IMPORT_ALL = """
import importlib, os, pkgutil, resource, select, signal, socket, sys, types

# Theirs to port.
import cryptography.x509, fastapi, platformdirs, prometheus_client, psutil, psycopg_pool, uv
import uvicorn.protocols.http.httptools_impl, zoneinfo

LINUX_ONLY = {
    os: "pidfd_open sched_getaffinity memfd_create posix_fallocate eventfd copy_file_range splice setns unshare",
    resource: "RLIMIT_MSGQUEUE RLIMIT_SIGPENDING prlimit",
    select: "epoll EPOLLIN",
    signal: "pidfd_send_signal sigtimedwait",
    socket: "SOCK_CLOEXEC SOCK_NONBLOCK SO_PEERCRED",
}
for module, names in LINUX_ONLY.items():
    for name in names.split():
        if hasattr(module, name):
            delattr(module, name)


sys.modules["_scproxy"] = types.ModuleType("_scproxy")  # of macOS's own Python
sys.modules["_scproxy"]._get_proxy_settings = sys.modules["_scproxy"]._get_proxies = dict
sys.platform = "darwin"
count = 0
for root in ("modelrepo", "modelrepo_runtime", "modelrepo_cli"):
    for found in pkgutil.walk_packages(importlib.import_module(root).__path__, root + "."):
        if not found.name.endswith("__main__"):
            importlib.import_module(found.name)
            count += 1
print(count)
"""


def test_everything_imports_without_linux() -> None:
    done = subprocess.run([sys.executable, "-c", IMPORT_ALL], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 200
