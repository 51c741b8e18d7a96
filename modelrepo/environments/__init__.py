"""Environments of versions: locked, carried where no index has them, built once per box."""

from modelrepo.environments.cache import EnvironmentCache
from modelrepo.environments.index_settings import IndexSettings
from modelrepo.environments.interpreters import Interpreter, choose_interpreter, interpreters, named_interpreter
from modelrepo.environments.preparing import PreparedEnvironment, prepare
from modelrepo.environments.record import CarriedWheel, EnvironmentRecord, Member, Requirement
from modelrepo.environments.torch_build import TorchBuild, check_torch_build, torch_build

__all__ = [
    "CarriedWheel",
    "EnvironmentCache",
    "EnvironmentRecord",
    "IndexSettings",
    "Interpreter",
    "Member",
    "PreparedEnvironment",
    "Requirement",
    "TorchBuild",
    "check_torch_build",
    "choose_interpreter",
    "interpreters",
    "named_interpreter",
    "prepare",
    "torch_build",
]
