"""Arithmetic over inputs: the size class of a job.

A small evaluator of its own: numbers, names of inputs, + - * / // % **, unary minus and the functions below.
"""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable, Mapping
from typing import Any

_OPERATORS: Mapping[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}
FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    "min": min,
    "max": max,
    "ceil": math.ceil,
    "floor": math.floor,
    "round": round,
    "abs": abs,
    "len": len,
}
_LONGEST = 500
_LARGEST = 1e18  # beyond it no size class means anything, and a power could fill the memory


def parse_expression(text: str) -> ast.expr:
    """Read an expression, refusing everything but arithmetic. Raises: ValueError."""
    if len(text) > _LONGEST:
        raise ValueError(f"longer than {_LONGEST} characters")
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise ValueError(f"{text!r} is no arithmetic expression") from None
    _check(tree)
    return tree


def names_in(text: str) -> frozenset[str]:
    """Return the inputs that an expression reads. Raises: ValueError."""
    tree = parse_expression(text)
    called = {id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    return frozenset(node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and id(node) not in called)


def evaluate(text: str, values: Mapping[str, object]) -> float:
    """Raises: ValueError (a name without a value, a value that is no number, division by zero, a result too large)."""
    try:
        return float(_value(parse_expression(text), values))
    except (ArithmeticError, TypeError) as error:
        raise ValueError(f"{text!r}: {error}") from None


def _check(node: ast.expr) -> None:
    match node:
        case ast.Constant(value=int() | float() as value) if not isinstance(value, bool):
            return
        case ast.Name():
            return
        case ast.UnaryOp(op=ast.USub() | ast.UAdd(), operand=operand):
            _check(operand)
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATORS or isinstance(op, ast.Pow):
            _check(left)
            _check(right)
        case ast.Call(func=ast.Name(id=name), args=args, keywords=[]) if name in FUNCTIONS and args:
            for argument in args:
                _check(argument)
        case _:
            allowed = "numbers, inputs, + - * / // % **, " + ", ".join(FUNCTIONS)
            raise ValueError(f"{ast.unparse(node)!r} may not stand in a size; it takes {allowed}")


def _value(node: ast.expr, values: Mapping[str, object]) -> Any:
    match node:
        case ast.Constant(value=value):
            return value
        case ast.Name(id=name):
            if name not in values:
                raise ValueError(f"the input {name!r} has no value")
            return values[name]
        case ast.UnaryOp(op=op, operand=operand):
            value = _number(_value(operand, values))
            return -value if isinstance(op, ast.USub) else value
        case ast.BinOp(left=left, op=ast.Pow(), right=right):
            return _power(_number(_value(left, values)), _number(_value(right, values)))
        case ast.BinOp(left=left, op=op, right=right):
            return _number(_OPERATORS[type(op)](_number(_value(left, values)), _number(_value(right, values))))
        case ast.Call(func=ast.Name(id=name), args=args):
            arguments = [_value(argument, values) for argument in args]
            if name != "len":
                arguments = [_number(argument) for argument in arguments]
            return _number(FUNCTIONS[name](*arguments))
    raise AssertionError(node)  # pragma: no cover (parse_expression refused it)


def _power(base: float, exponent: float) -> float:
    # Floats overflow instead of growing, so no power takes longer than a multiplication.
    result = float(base) ** float(exponent)
    if isinstance(result, complex):
        raise ValueError("a root of a negative number")
    number: float = _number(
        int(result) if isinstance(base, int) and isinstance(exponent, int) and exponent >= 0 else result
    )
    return number


def _number(value: object) -> Any:
    if isinstance(value, bool):
        return int(value)
    if not isinstance(value, int | float):
        raise TypeError(f"{type(value).__name__} is no number")
    if not abs(value) <= _LARGEST:
        raise ArithmeticError("the result is too large")
    return value
