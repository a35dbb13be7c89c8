"""Import paths: transforms of somebody's own, imported or made by what a text says."""

import ast
import importlib
import inspect
import re
import sys
import traceback
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from ccnet.schema import reason_of, shown

_PATH = re.compile(r"(?:([\w.]+)[:.])?(\w+)\s*(\(.*\))?", re.DOTALL)
_TORCHVISION = "torchvision.transforms.v2"


def load(path: str) -> Any:
    """Imports a transform, or what makes one, which is called.

    Args:
        path: "module:name" or "module.name", of a module that is installed or in the current
            folder; a name alone is of torchvision.transforms.v2. With arguments behind it, such as
            "RandomRotation(15)", the name is called with these, which must be literals. Without,
            classes and functions that need no argument are called. A function that could take
            image and mask too is the transform itself, if calling it gives none.

    Raises:
        ValueError: if it cannot be imported or made; says why.
    """
    match = _PATH.fullmatch(path)
    if match is None:
        raise ValueError(
            f"augmentation {shown(path)} is no import path: expected such as "
            "'my_module:make_transform' or 'RandomRotation(degrees=15)'"
        )
    module, name, arguments = match[1] or _TORCHVISION, match[2], match[3]
    found = _imported(path, module, name)
    try:
        if arguments:
            positional, named = _literals(arguments)
            return found(*positional, **named)
        return _made(found)
    except Exception as error:
        raise ValueError(f"augmentation {path} fails: {described(error)}") from error


def _imported(path: str, module: str, name: str) -> Any:
    sys.path.insert(0, str(Path.cwd()))
    try:
        found = importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise ValueError(
            f"augmentation {path}: there is no module {error.name!r} in the current folder or "
            "installed"
        ) from error
    except Exception as error:
        raise ValueError(f"augmentation {path} fails: {described(error)}") from error
    finally:
        sys.path.remove(str(Path.cwd()))
    if not hasattr(found, name):
        public = [one for one in dir(found) if not one.startswith("_")]
        near = get_close_matches(name, public, 1)
        hint = f": did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"augmentation {path}: {module} has no {name!r}{hint}")
    return getattr(found, name)


def _literals(arguments: str) -> tuple[list[Any], dict[str, Any]]:
    """Reads arguments in parentheses, running none of them."""
    try:
        call: Any = ast.parse(f"call{arguments}", mode="eval").body
        named = {str(one.arg): ast.literal_eval(one.value) for one in call.keywords}
        return [ast.literal_eval(one) for one in call.args], named
    except (SyntaxError, ValueError, AttributeError) as error:
        raise ValueError(f"{arguments} must be numbers, texts or lists of these") from error


def _made(found: Any) -> Any:
    """Calls a class, or a function that needs no argument, unless that is a transform itself."""
    is_class = inspect.isclass(found)
    if not (is_class or (inspect.isroutine(found) and takes(found, 0))):
        return found
    may_be_transform = not is_class and takes(found, 2)
    try:
        made = found()
    except Exception:
        if may_be_transform:
            return found
        raise
    return made if callable(made) or not may_be_transform else found


def takes(call: Any, count: int) -> bool:
    """Whether something can be called with so many arguments; true where that is not known."""
    try:
        inspect.signature(getattr(call, "forward", call)).bind(*range(count))
    except TypeError:
        return False
    except ValueError:  # written in C
        return True
    return True


def described(error: Exception) -> str:
    """Says what an error of other code is, and where it arose."""
    *_, last = traceback.extract_tb(error.__traceback__)
    place = f"{Path(last.filename).name}, line {last.lineno}"
    return f"{type(error).__name__}: {reason_of(error)} ({place})"
