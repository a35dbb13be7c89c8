"""Options: an unknown keyword argument is named, together with the nearest one that there is."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from difflib import get_close_matches
from functools import wraps
from inspect import Parameter, signature
from typing import Any, TypeVar

from ccnet.schema import shown_name

Call = TypeVar("Call", bound=Callable[..., Any])

SYNONYMS = {
    **dict.fromkeys(("classes", "class_names", "names"), "categories"),
    **dict.fromkeys(("size", "image_size", "img_size", "input_size", "resolution"), "fit"),
    "alpha": "opacity",
    "image_set": "split",
    "subset": "split",
    "lr": "learning_rate",
    "epochs": "steps",
    "in_chans": "in_channels",
    "encoder_name": "backbone",
    "encoder_weights": "weights_backbone",
}
"""What other libraries call an option: its name here, for those that have it."""

ANY_SIZE = dict.fromkeys(
    ("image_size", "img_size", "input_size"),
    "networks take images of any size; for those of timm that are built for one: "
    'backbone_options={"image_size": [height, width]}',
)
"""Hints for who builds a network and wants to say for which images."""

_NAMED = (Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)


def check_options(
    owner: str,
    given: Iterable[str],
    known: Iterable[str],
    hints: Mapping[str, str] | None = None,
) -> None:
    """Checks that options exist.

    Args:
        owner: the name of the function or class whose options they are.
        given: the options' names.
        known: the names that there are.
        hints: what to do in place of an option that people expect, by its name.

    Raises:
        TypeError: names those that do not exist, and for each the nearest one, or all.
    """
    known, hints = list(known), hints or {}
    unknown = [name for name in given if name not in known]
    if not unknown:
        return
    near = {name: _nearest(name.lower(), known) for name in unknown}
    advice = list(dict.fromkeys(hints[name] for name in unknown if name in hints))
    meant = [repr(near[name]) for name in unknown if near[name] and name not in hints]
    if meant:
        advice.append(f"did you mean {', '.join(meant)}?")
    if any(not near[name] and name not in hints for name in unknown):
        advice.append(f"there are {', '.join(known)}")
    shown = ", ".join(repr(shown_name(name)) for name in unknown)
    what = "an unexpected keyword argument" if len(unknown) == 1 else "unexpected keyword arguments"
    raise TypeError(f"{owner}() got {what} {shown}: {'; '.join(advice)}")


def _nearest(name: str, known: Sequence[str]) -> str:
    """Returns the option that is meant by another name; "" if there is none like it."""
    if (synonym := SYNONYMS.get(name)) in known:
        return str(synonym)
    return next(iter(get_close_matches(name, known, 1)), "")


def named_options(**hints: str) -> Callable[[Call], Call]:
    """Makes a function or a class check the names of its options as `check_options` does.

    Args:
        hints: as of `check_options`.
    """

    def decorate(call: Call) -> Call:
        if isinstance(call, type):
            setattr(call, "__init__", decorate(vars(call)["__init__"]))  # noqa: B010 - for mypy
            return call
        known = frozenset(options_of(call))

        @wraps(call)
        def checked(*args: Any, **kwargs: Any) -> Any:
            if not kwargs.keys() <= known:
                is_constructor = call.__name__ == "__init__"
                owner = type(args[0]).__name__ if is_constructor else call.__name__
                check_options(owner, kwargs, options_of(call), hints)
            return call(*args, **kwargs)

        return checked  # type: ignore[return-value]

    return decorate


def options_of(call: Callable[..., Any]) -> list[str]:
    """Returns the names of the arguments that can be given by name, `self` and `cls` aside."""
    parameters = signature(call).parameters.items()
    return [name for name, one in parameters if one.kind in _NAMED and name not in ("self", "cls")]
