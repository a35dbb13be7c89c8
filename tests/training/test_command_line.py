"""Options of training scripts: what the help says of the fields of a recipe."""

import argparse
import dataclasses

import pytest

from ccnet.training import classification, recipes
from ccnet.training.command_line import (
    add_recipe_options,
    add_run_options,
    given_fields,
    option_groups,
)


@dataclasses.dataclass
class Dough:
    """A recipe of its own.

    More of it: in a paragraph.

    Flour:
        grams: how many grams of `flour`,
            which are 100 % of all.

        kind: which kind.
        sieved: whether it was.

    Oven:
        heat: how hot it is, "low" or "high".

    Raises:
        ValueError: if `grams` is wrong.
    """

    heat: str = "low"
    grams: int = 500
    kind: str = ""
    sieved: bool = True


def help_of(recipe, choices, shown, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    parser = argparse.ArgumentParser()
    add_recipe_options(option_groups(parser, recipe), recipe, choices, shown)
    return parser, parser.format_help()


def test_help_is_the_docstring_by_its_sections_with_the_values_of_a_recipe(monkeypatch):
    choices = {"heat": ("low", "high"), "kind": ("rye", "wheat")}
    parser, text = help_of(Dough, choices, Dough(grams=300, sieved=False), monkeypatch)
    words = " ".join(text.partition("Flour:")[2].split())
    assert words == (
        "--grams N how many grams of flour, which are 100 % of all. (default: 300) "
        "--kind TEXT which kind. One of rye, wheat. (default: none) "
        "--sieved, --no-sieved whether it was. (default: no) "
        'Oven: --heat TEXT how hot it is, "low" or "high". (default: low)'
    )
    given = parser.parse_args(["--grams", "3", "--no-sieved"])
    assert given_fields(given, Dough) == {"grams": 3, "sieved": False}
    assert "default" not in help_of(Dough, choices, None, monkeypatch)[1]


@pytest.mark.parametrize(
    ("recipe", "choices", "first"),
    [
        (recipes.Recipe, recipes.CHOICES, "--dataset"),
        (classification.ClassificationRecipe, classification.CHOICES, "--backbone"),
    ],
)
def test_every_field_has_a_text_in_the_help_of_80_columns(recipe, choices, first, monkeypatch):
    """The groups come in the order of the docstring; the last one is that of the run."""
    text = help_of(recipe, choices, recipe(), monkeypatch)[1]
    assert max(map(len, text.splitlines())) <= 80
    for field in dataclasses.fields(recipe):
        assert f"\n  --{field.name.replace('_', '-')}" in text
    assert text.count("(default:") + text.count("(default:\n") >= len(dataclasses.fields(recipe))
    assert text.index(first) < text.index("Schedule and optimiser:") < text.index("\nRun:\n")


def test_options_of_the_run_say_what_they_do(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    parser = argparse.ArgumentParser()
    add_run_options(parser.add_argument_group("Run"), workers=3)
    words = " ".join(parser.format_help().split())
    for text in ("--workers N data-loading processes. (default: 3)", "--device DEVICE cpu, cuda"):
        assert text in words
