"""Import a model's class and look at its methods."""

from __future__ import annotations

import importlib
import inspect
import os
import sys
from typing import Any


class Unfit(Exception):
    """The entrypoint is there, but is not what the contract asks for."""


def find(entrypoint: str, code_roots: list[str]) -> Any:
    """Put the code on the path and import what `module:attribute` names."""
    for root in code_roots:
        if not os.path.isdir(root):  # noqa: PTH112
            raise Unfit(f"code: {root} is no folder")
    sys.path[:0] = [root for root in code_roots if root not in sys.path]
    module_name, _, attribute = entrypoint.partition(":")
    found: Any = importlib.import_module(module_name)
    for part in attribute.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            where = getattr(found, "__file__", None) or module_name
            raise Unfit(f"entrypoint {entrypoint}: {where} defines no {part!r}") from None
    return found


def check(found: Any, entrypoint: str, stages: list[str]) -> None:
    """Hold a class, or an object, against the contract. Raises Unfit with every fault."""
    faults = []
    for name, required, argument in [
        ("load", True, "ctx"),
        ("warmup", False, "ctx"),
        ("reload", False, "ctx"),
        *[(stage, True, "job") for stage in stages],
    ]:
        method = getattr(found, name, None)
        if method is None:
            if required:
                faults.append(f"it has no method {name}({argument})")
        elif not callable(method):
            faults.append(f"{name} is no method")
        elif inspect.iscoroutinefunction(method) or inspect.isasyncgenfunction(method):
            faults.append(f"{name} is async; write a plain method (asyncio.run inside of it is fine)")
        elif not _takes_one(found, name, method):
            faults.append(f"{name}{_signature(method)} does not take exactly ({argument})")
    if faults:
        raise Unfit(f"entrypoint {entrypoint}: " + "; ".join(faults))


def check_unmade(found: Any, entrypoint: str, stages: list[str]) -> None:
    """Hold what was imported against the contract: a class whole, another callable only for being one. Raises Unfit."""
    if inspect.isclass(found):
        check(found, entrypoint, stages)
    elif not callable(found):
        raise Unfit(f"entrypoint {entrypoint} is {type(found).__name__}, neither a class nor a function that makes one")
    if not _binds(found):
        raise Unfit(f"entrypoint {entrypoint}{_signature(found)} cannot be called without arguments")


def make(found: Any, entrypoint: str, stages: list[str]) -> Any:
    """Make the model's object. Raises Unfit where a function made something else."""
    model = found()
    if not inspect.isclass(found):
        check(model, entrypoint, stages)
    return model


def _takes_one(found: Any, name: str, method: Any) -> bool:
    unbound = inspect.isclass(found) and not isinstance(
        inspect.getattr_static(found, name, None), (staticmethod, classmethod)
    )
    return _binds(method, *([None, None] if unbound else [None]))


def _binds(method: Any, *arguments: None) -> bool:
    try:
        signature = inspect.signature(method)
    except (TypeError, ValueError):
        return True  # it does not tell
    try:
        signature.bind(*arguments)
    except TypeError:
        return False
    return True


def _signature(method: Any) -> str:
    try:
        return str(inspect.signature(method))
    except (TypeError, ValueError):
        return "(...)"
