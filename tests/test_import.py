"""Importing the package is silent and cheap, and its modules import each other in one direction."""

import ast
import sys

import pytest

ORDER = [
    "files",
    "processes",
    "pictures",
    "attention_kernel",
    "attention",
    "baselines",
    "norm",
    "classes",
    "losses",
    "random_crop",
    "transforms",
    "visualization",
    "scores",
    "metrics",
    "charts",
    "protocol",
    "windows",
    "inference",
    "backbone",
    "heads",
    "serialization",
    "model_card",
    "model",
    "conversion",
    "weights",
    "download",
    "pretrained",
    "zoo",
    "candidates",
    "street_scenes",
    "datasets",
    "evaluation",
    "reports",
    "training",
]
"""A module may import those before it. A package such as `training` counts as one module."""

TRAINING_ORDER = [
    *("recipes", "checkpoint", "data", "optimization", "objective", "setup"),
    *("termination", "monitor", "engine"),
]

REQUIRED = {"torch", "torchvision", "numpy", "PIL", "huggingface_hub", "safetensors", "ccnet"}

EXTRAS = {"training": {"tqdm"}, "metrics": {"torchmetrics"}, "charts": {"matplotlib"}}
"""What a module may import beyond that."""

WATCHED_IMPORT = """
import sys
opened, sockets = [], []
def watch(event, arguments):
    if event == "open" and isinstance(arguments[0], str):
        opened.append(arguments[0])
    elif event.startswith("socket."):
        sockets.append(event)
sys.addaudithook(watch)
import ccnet
weights = [path for path in opened if path.endswith((".safetensors", ".pt", ".pth", ".bin"))]
assert opened, "the audit hook saw nothing"
assert not weights, weights
assert not sockets, sockets
extras = {"matplotlib", "onnx", "onnxruntime", "tensorboard", "ccnet.training", "hubconf"}
assert not extras & sys.modules.keys(), extras & sys.modules.keys()
"""


def _imports(path):
    """Full dotted names of all that a file imports, inside functions too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import"
            if node.module == "ccnet":
                yield from (f"ccnet.{name.name}" for name in node.names)
            else:
                yield node.module


@pytest.fixture(scope="module")
def sources(repository):
    """Every module of the package but `ccnet` itself: its path by its dotted name's parts."""
    package = repository / "ccnet"
    files = {
        path.relative_to(package).with_suffix("").parts: path for path in package.rglob("*.py")
    }
    return {name: path for name, path in files.items() if name != ("__init__",)}


def test_importing_is_silent_and_reads_no_weights(run_python, tmp_path):
    result = run_python("-W", "error", "-c", WATCHED_IMPORT, cwd=tmp_path)
    assert result.stdout == ""
    assert result.stderr == ""


def test_every_module_has_its_place(sources):
    assert {name[0] for name in sources} == set(ORDER)
    training = {name[1] for name in sources if name[0] == "training"}
    assert training - {"__init__"} == set(TRAINING_ORDER)


def test_modules_import_in_one_direction(sources):
    for name, path in sources.items():
        for imported in _imports(path):
            parts = imported.split(".")
            if parts[0] != "ccnet":
                continue
            assert len(parts) > 1, f"{path} imports the package that it is part of"
            if parts[1] != name[0]:
                assert ORDER.index(parts[1]) < ORDER.index(name[0]), f"{path} imports {imported}"
            elif name[0] == "training":
                earlier = TRAINING_ORDER[: TRAINING_ORDER.index(name[1])]
                assert parts[2] in earlier, f"{path} imports {imported}"


def test_extras_are_needed_by_training_and_reports_alone(sources):
    standard = sys.stdlib_module_names
    for name, path in sources.items():
        allowed = REQUIRED | EXTRAS.get(name[0], set())
        roots = {imported.split(".")[0] for imported in _imports(path)}
        assert roots <= allowed | standard, path
