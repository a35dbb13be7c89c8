"""Python configurations: the values in the source text of one, read without running it.

OpenMMLab's checkpoints record their configuration as such a text. Literals, `dict(...)`, sums and
products of numbers, names that are assigned before, and those of types are read. Other values are
left out, and so are variables that a statement may change in a way that is not followed.
"""

import ast
import operator
import re
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from ccnet.schema import check_nesting, reason_of

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
    for part in _files(text.removeprefix("\ufeff")):
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
        for part in re.split(r"^(?=[^\W\d])", text, flags=re.MULTILINE):
            with suppress(SyntaxError):
                statements += _parse(part)
        if all(isinstance(one, ast.Delete) for one in statements):
            raise
        return statements


def _parse(text: str) -> list[ast.stmt]:
    """Parses the text of one statement; of one that is no Python, only that its name is changed."""
    try:
        return ast.parse(text).body
    except SyntaxError:
        name = re.match(r"\w+", text)
        return ast.parse(f"del {name[0]}").body if name else []


def _variables(text: str) -> dict[str, Any]:
    try:
        body = _statements(text)
        names: dict[str, Any] = {}
        for statement in body:
            _run(statement, names)
    except (SyntaxError, RecursionError, MemoryError, ValueError, ArithmeticError) as error:
        raise ValueError(f"it is not Python: {reason_of(error)}") from error
    found = {name: value for name, value in names.items() if value is not UNREADABLE}
    check_nesting(found)
    return found


def _run(statement: ast.stmt, names: dict[str, Any]) -> None:
    if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Dict):
        names |= _value(statement.value, names)
    elif isinstance(statement, ast.Assign):
        _assign(statement.targets, statement.value, names)
    elif isinstance(statement, ast.AnnAssign) and statement.value is not None:
        _assign([statement.target], statement.value, names)
    elif isinstance(statement, ast.AugAssign):
        changed = ast.BinOp(statement.target, statement.op, statement.value)
        if _value(changed, names) is UNREADABLE:
            _forget(statement.target, names)  # a list may be changed in its place
        else:
            _assign([statement.target], changed, names)
    else:
        _forget(statement, names)


def _assign(targets: list[ast.expr], node: ast.expr, names: dict[str, Any]) -> None:
    value = _value(node, names)
    for call in ast.walk(node):
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute):
            _forget(call.func, names)  # its method may change it
    for target in targets:
        if isinstance(target, ast.Name):
            names[target.id] = value
        elif isinstance(target, ast.Subscript) and not isinstance(value, (dict, list, tuple)):
            _set_item(target, value, names)
        else:
            _forget(target, names)


def _set_item(target: ast.Subscript, value: Any, names: dict[str, Any]) -> None:
    place, key = _value(target.value, names), _value(target.slice, names)
    if not isinstance(place, dict) or not isinstance(key, str):
        _forget(target, names)
    elif value is UNREADABLE:
        place.pop(key, None)
    else:
        place[key] = value


def _forget(node: ast.AST, names: dict[str, Any]) -> None:
    """Makes the variables in a node unreadable, and also what others share with them."""
    for part in ast.walk(node):
        if isinstance(part, ast.Name) and part.id in names:
            value = names[part.id]
            if isinstance(value, (dict, list)):
                value.clear()
            names[part.id] = UNREADABLE


def _value(node: ast.expr, names: Mapping[str, Any]) -> Any:
    """Returns the value of an expression, without its unreadable parts."""
    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, ast.Name):
        return names.get(node.id, _NAMES.get(node.id, UNREADABLE))
    if isinstance(node, ast.Subscript):
        place, key = _value(node.value, names), _value(node.slice, names)
        is_found = isinstance(place, dict) and isinstance(key, str) and key in place
        return place[key] if is_found else UNREADABLE
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
            number = _OPERATORS[type(node.op)](one, other)
            return number if _is_number(number) else UNREADABLE
    return UNREADABLE


def _mapping(pairs: Any, names: Mapping[str, Any]) -> Any:
    """Returns a dictionary; a pair without a key is another one to take over."""
    found: dict[Any, Any] = {}
    for key, node in pairs:
        value = _value(node, names)
        if key == "type" and isinstance(node, (ast.Name, ast.Attribute)):
            value = node.id if isinstance(node, ast.Name) else node.attr
        if key is None:
            found |= value if isinstance(value, dict) else {}
        elif isinstance(key, (str, int)) and value is not UNREADABLE:
            found[key] = value
    return found


def _is_number(value: Any) -> bool:
    """Whether a value is one to compute with: products of large ones soon fill the memory."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return is_number and abs(value) < 2**64


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
