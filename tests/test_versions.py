"""Versions: the bounds of pyproject.toml are those of the constraints that are tested."""

import re
import sys

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

TOOLS = {"mypy", "pre-commit", "ruff"}
"""What checks the code but runs no test: only pinned, in constraints.txt."""


@pytest.fixture(scope="module")
def project(repository):
    return tomllib.loads((repository / "pyproject.toml").read_text(encoding="utf-8"))["project"]


@pytest.fixture(scope="module")
def bounds(project):
    """The lower bounds of every package, in all extras."""
    groups = project["dependencies"], *project["optional-dependencies"].values()
    listed = [requirement for group in groups for requirement in group]
    found = {}
    for requirement in listed:
        name, bound = re.fullmatch(r"([\w-]+)(?:\[[\w,-]+\])?(?:>=([\d.]+))?", requirement).groups()
        if name != project["name"]:
            found.setdefault(name, set()).add(bound)
    return found


def pins(repository, name):
    text = (repository / name).read_text(encoding="utf-8")
    return dict(re.findall(r"^([\w-]+)==([\d.]+)", text, re.MULTILINE))


def number(version):
    """As a tuple without trailing zeros, so that 8.0 is 8.0.0."""
    numbers = [int(part) for part in version.split(".")]
    while numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)


def test_every_bound_is_the_oldest_tested_version(repository, bounds):
    oldest = pins(repository, "constraints-oldest.txt")
    assert {name for name, found in bounds.items() if None in found} == TOOLS
    for name in bounds.keys() - TOOLS:
        assert {number(bound) for bound in bounds[name]} == {number(oldest[name])}, name


def test_newest_tested_versions_are_allowed(repository, bounds):
    newest = pins(repository, "constraints.txt")
    assert newest.keys() == bounds.keys()
    for name in bounds.keys() - TOOLS:
        assert all(number(newest[name]) >= number(bound) for bound in bounds[name]), name


def test_both_ends_are_run(repository, project):
    """By the workflow: the oldest Python with the oldest versions, and the newest of both."""
    workflow = (repository / ".github" / "workflows" / "test.yml").read_text(encoding="utf-8")
    runs = dict(re.findall(r'python: "([\d.]+)"\s+target: ([\w-]+)', workflow))
    oldest = project["requires-python"].removeprefix(">=")
    assert runs.pop(oldest) == "test-oldest"
    assert set(runs.values()) == {"test"}
