"""The objects that a model gets have every member that the contract names."""

import socket

from modelrepo.contract import CTX_MEMBERS, JOB_MEMBERS
from modelrepo_runtime.child.context import Context
from modelrepo_runtime.child.frames import Channel
from modelrepo_runtime.child.job import Job

START = {
    "stages": ["run"], "device": "cpu", "devices": ["cpu"], "config": {}, "secrets": {}, "version": "v1",
    "scratch": "/tmp", "checkpoints": {},
}  # fmt: skip
RUN = {
    "n": "0", "files": {}, "adapters": [], "output_dir": "/tmp", "handover_dir": "/tmp", "state_dir": "/none",
    "job_id": "j", "attempt": 1, "inputs": {}, "previous": None,
}  # fmt: skip


def test_ctx_has_the_members_of_the_contract_and_no_others() -> None:
    assert {name for name in dir(Context(START)) if not name.startswith("_")} == set(CTX_MEMBERS)


def test_job_has_the_members_of_the_contract_and_no_others() -> None:
    near, far = socket.socketpair()
    with near, far:
        job = Job(Channel(far, receive_limit_bytes=1000), RUN)
        assert {name for name in dir(job) if not name.startswith("_")} == set(JOB_MEMBERS)
