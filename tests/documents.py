"""What documents have people run: snippets of Python, and command lines."""

import re
import shlex
from importlib import import_module
from pathlib import Path

from ccnet.commands import COMMANDS

COMMAND_LINE = re.compile(r"^(?:\w+=\S+ )?(?:ccnet|python|torchrun) .*$", re.MULTILINE)

STANDS_FOR = {
    "RECIPE": "finetune",
    "DATASET": "camvid",
    "NETWORK": "ccnet_resnet50",
    "ENUM.MEMBER": "CCNet_ResNet18_Weights.CAMVID",
    "[--root": "--root",
    "FOLDER]": "FOLDER",
    "[options]": None,
}
"""Words that documents have in place of one of a few."""


def snippets(page):
    """The Python code of a page, block by block."""
    return re.findall(r"^```python\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)


def command_lines(page):
    """The command lines of a page or a module's docstring, each as its words, comments aside."""
    if isinstance(page, Path):
        text = page.read_text()
        blocks = re.findall(r"^```(?:bash|text)\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
        spans = re.findall(r"(?<!`)`((?:ccnet|python|torchrun)\s[^`]*)`", text)
    else:
        blocks, spans = re.findall(r"^    ((?:\\\n|.)*)", page, re.MULTILINE), []
    whole = "\n".join(block.replace("\\\n", " ") for block in blocks)
    for line in (*COMMAND_LINE.findall(whole), *(" ".join(span.split()) for span in spans)):
        words = (STANDS_FOR.get(word, word) for word in shlex.split(line, comments=True))
        yield [word for word in words if word is not None]


def command_of(words, repository):
    """The module of `ccnet.commands` that a command line is for, and its arguments, or None.

    Scripts that are no commands are None, but have to exist.
    """
    for index, word in enumerate(words):
        if word == "ccnet" and words[index + 1 :][:1]:
            name, rest = words[index + 1], words[index + 2 :]
            return (import_module(f"ccnet.commands.{name}"), rest) if name in COMMANDS else None
        if word.startswith("scripts/"):
            source = (repository / word).read_text()
            found = re.search(r"from ccnet\.commands\.(\w+) import main", source)
            module = found and import_module(f"ccnet.commands.{found[1]}")
            return (module, words[index + 1 :]) if module else None
    return None
