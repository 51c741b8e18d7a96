"""Environments of versions: locked, carried where no index has them, built once per box."""

from modelrepo.environments.cache import EnvironmentCache
from modelrepo.environments.index_settings import IndexSettings
from modelrepo.environments.interpreters import Interpreter, choose_interpreter, interpreters, named_interpreter
from modelrepo.environments.preparing import PreparedEnvironment, prepare
from modelrepo.environments.record import CarriedWheel, EnvironmentRecord, Member, Requirement
from modelrepo.environments.torch_build import TorchBuild, check_torch_build, torch_build
from modelrepo.environments.uv_tool import LinkMode
from modelrepo.environments.verifying import EnvironmentProblem, environments_in, verify_environment

__all__ = [
    "CarriedWheel",
    "EnvironmentCache",
    "EnvironmentProblem",
    "EnvironmentRecord",
    "IndexSettings",
    "Interpreter",
    "LinkMode",
    "Member",
    "PreparedEnvironment",
    "Requirement",
    "TorchBuild",
    "check_torch_build",
    "choose_interpreter",
    "environments_in",
    "interpreters",
    "named_interpreter",
    "prepare",
    "torch_build",
    "verify_environment",
]
