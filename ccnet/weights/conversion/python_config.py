"""Python configurations: the values in the source text of one, read without running it.

OpenMMLab's checkpoints record their configuration as such a text. Literals, `dict(...)`, sums and
products of numbers, and names that are assigned before are read; other values are left out.
"""

import ast
import operator
import re
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

UNREADABLE = object()
"""Stands for a value that is none of these."""

_OPERATORS = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}
_NAMES = {"true": True, "false": False, "null": None}
_MAX_LENGTH = 2_000_000


def parse_config(text: str) -> dict[str, Any]:
    """Reads the values of a configuration's variables.

    A text of several files, each after a line with its path, is merged in their order, as a file is
    with those that it is based on.

    Args:
        text: Python source, or a dictionary in Python or JSON.

    Returns:
        The variables by name, without those that are unreadable, at any depth.

    Raises:
        ValueError: if it is neither.
    """
    if len(text) > _MAX_LENGTH:
        raise ValueError(f"it has {len(text)} characters")
    merged: dict[str, Any] = {}
    for part in _files(text):
        merged = _merge(merged, _variables(part))
    return merged


def _files(text: str) -> list[str]:
    parts: list[list[str]] = [[]]
    for line in text.splitlines():
        if line.endswith(".py") and line[:1].strip() and not set(line) & set("='\"(#"):
            parts.append([])
        else:
            parts[-1].append(line)
    return ["\n".join(lines) for lines in parts]


def _statements(text: str) -> list[ast.stmt]:
    """Parses a text, or else those of its assignments that are Python."""
    try:
        return ast.parse(text).body
    except SyntaxError:
        statements = []
        for part in re.split(r"^(?=\w+ *= )", text, flags=re.MULTILINE):
            with suppress(SyntaxError):
                statements += ast.parse(part).body
        if not statements:
            raise
        return statements


def _variables(text: str) -> dict[str, Any]:
    try:
        body = _statements(text)
        names: dict[str, Any] = {}
        for statement in body:
            if isinstance(statement, ast.Assign):
                value = _value(statement.value, names)
                for target in statement.targets:
                    if isinstance(target, ast.Name):
                        names[target.id] = value
            elif isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Dict):
                names |= _value(statement.value, names)
    except (SyntaxError, RecursionError, MemoryError, ValueError, ArithmeticError) as error:
        raise ValueError(f"it is not Python: {error}") from error
    return {name: value for name, value in names.items() if value is not UNREADABLE}


def _value(node: ast.expr, names: Mapping[str, Any]) -> Any:
    """Returns the value of an expression, without its unreadable parts."""
    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, ast.Name):
        return names.get(node.id, _NAMES.get(node.id, node.id))
    if isinstance(node, ast.Attribute):
        return node.attr
    if isinstance(node, (ast.List, ast.Tuple)):
        items = [_value(item, names) for item in node.elts]
        if UNREADABLE in items:
            return UNREADABLE
        return items if isinstance(node, ast.List) else tuple(items)
    if isinstance(node, ast.Dict):
        keys = [None if key is None else _value(key, names) for key in node.keys]
        return _mapping(zip(keys, node.values, strict=True), names)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "dict":
        pairs = [(word.arg, word.value) for word in node.keywords]
        return UNREADABLE if node.args else _mapping(pairs, names)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        number = _value(node.operand, names)
        return -number if _is_number(number) else UNREADABLE
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
        one, other = _value(node.left, names), _value(node.right, names)
        if _is_number(one) and _is_number(other):
            return _OPERATORS[type(node.op)](one, other)
    return UNREADABLE


def _mapping(pairs: Any, names: Mapping[str, Any]) -> Any:
    """Returns a dictionary; a pair without a key is another one to take over."""
    found: dict[Any, Any] = {}
    for key, node in pairs:
        value = _value(node, names)
        if key is None:
            found |= value if isinstance(value, dict) else {}
        elif isinstance(key, (str, int)) and value is not UNREADABLE:
            found[key] = value
    return found


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _merge(base: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    """Returns one configuration changed by another, dictionary by dictionary."""
    merged = {} if own.get("_delete_") else dict(base)
    for name, value in own.items():
        if isinstance(value, dict):
            below = merged.get(name)
            merged[name] = _merge(below if isinstance(below, dict) else {}, value)
        elif name != "_delete_":
            merged[name] = value
    return merged
