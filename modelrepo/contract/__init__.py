"""The contract between a model's author and the worker: model.yaml, ctx and job."""

from modelrepo.contract import inputs
from modelrepo.contract.conditions import AcceleratorFacts, AcceleratorRule, choose_extra
from modelrepo.contract.configuration import effective_config, parse_settings
from modelrepo.contract.host import HostFacts, KnownHost, check_host, gather_host_facts
from modelrepo.contract.inputs import size_class
from modelrepo.contract.reading import load_spec, parse_spec, spec_from_json
from modelrepo.contract.secret_values import resolve_secrets
from modelrepo.contract.spec import (
    CONTRACT,
    SPEC_FILE,
    CheckpointSource,
    Entrypoint,
    HostNeeds,
    ModelSpec,
    StageSpec,
)
from modelrepo.contract.structure import json_schema
from modelrepo.contract.stub import CTX_MEMBERS, JOB_MEMBERS, type_stub

__all__ = [
    "CONTRACT",
    "CTX_MEMBERS",
    "JOB_MEMBERS",
    "SPEC_FILE",
    "AcceleratorFacts",
    "AcceleratorRule",
    "CheckpointSource",
    "Entrypoint",
    "HostFacts",
    "HostNeeds",
    "KnownHost",
    "ModelSpec",
    "StageSpec",
    "check_host",
    "choose_extra",
    "effective_config",
    "gather_host_facts",
    "inputs",
    "json_schema",
    "load_spec",
    "parse_settings",
    "parse_spec",
    "resolve_secrets",
    "size_class",
    "spec_from_json",
    "type_stub",
]
