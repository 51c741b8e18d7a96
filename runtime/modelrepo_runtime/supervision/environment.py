"""The environment variables that a model's process may see: an allow-list."""

from __future__ import annotations

import socket
from collections.abc import Mapping

from .spec import ChildSpec

_NAMES = frozenset(
    {
        "PATH", "HOME", "LANG", "LANGUAGE", "TZ", "TMPDIR", "TEMP", "TMP", "USER", "LOGNAME", "SHELL", "TERM",
        "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE",
        "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "all_proxy", "no_proxy",
        "CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "GPU_DEVICE_ORDINAL",
        "CUDA_DEVICE_ORDER", "CUDA_HOME", "CUDA_PATH", "ROCM_PATH", "HIP_PATH", "NVIDIA_VISIBLE_DEVICES",
        "NVIDIA_DRIVER_CAPABILITIES", "CUDA_CACHE_PATH", "CUDA_MODULE_LOADING", "CUDA_MPS_PIPE_DIRECTORY",
        "OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS", "TRITON_CACHE_DIR",
    }
)  # fmt: skip
INHERITED_PREFIXES = (
    "LC_",
    "NCCL_",
    "RCCL_",
    "HSA_",
    "MIOPEN_",
    "TORCH_",
    "TORCHINDUCTOR_",
    "PYTORCH_",
    "GLOO_",
    "UCX_",
    "FI_",
)

TOKEN_VARIABLE = "MODELREPO_CHILD"
"""Names the child in the environment of everything that it starts."""
RENDEZVOUS_VARIABLE = "MODELREPO_RENDEZVOUS"
"""A URL at which the ranks of a group may meet without a port: `init_process_group(init_method=..)`."""


def allowed(variables: Mapping[str, str]) -> dict[str, str]:
    """Keep what a model may inherit: never cloud keys, tokens or index credentials."""
    return {name: value for name, value in variables.items() if name in _NAMES or name.startswith(INHERITED_PREFIXES)}


def child_environment(spec: ChildSpec, variables: Mapping[str, str], token: str) -> dict[str, str]:
    """Make a child's environment from the worker's. The slot's devices win over everything."""
    return {
        **_gloo(spec),
        **allowed(variables),
        **_rank(spec),
        **spec.env,
        **spec.secrets,
        **spec.device_env,
        TOKEN_VARIABLE: token,
    }


def _rank(spec: ChildSpec) -> dict[str, str]:
    """What `torch.distributed` reads, of a single process too."""
    place, ranks = spec.place, str(spec.ranks)
    port = place.master_port if place else free_port()
    variables = {
        "RANK": str(spec.rank),
        "LOCAL_RANK": str(spec.rank),
        "WORLD_SIZE": ranks,
        "LOCAL_WORLD_SIZE": ranks,
        "GROUP_RANK": "0",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    return variables if place is None else {**variables, RENDEZVOUS_VARIABLE: f"file://{place.rendezvous}"}


def _gloo(spec: ChildSpec) -> dict[str, str]:
    """Keep ranks on the CPU off every network: gloo listens where the box's name leads, unless it is told otherwise."""
    loopback = [name for _, name in socket.if_nameindex() if name in ("lo", "lo0")]
    on_cpu = spec.place is not None and spec.device == "cpu"
    return {"GLOO_SOCKET_IFNAME": loopback[0]} if on_cpu and loopback else {}


def free_port() -> int:
    """Find a port of the loopback address that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
