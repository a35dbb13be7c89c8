"""Imports: silent and cheap, in one direction, without extras."""

import ast
import sys

import pytest

ORDER = [
    *("files", "schema", "console", "distributed", "precision", "attention_kernel", "attention"),
    *("baselines", "norm", "classes", "losses", "images", "transforms", "visualization"),
    *("datasets", "inference", "weights", "backbone", "heads", "reconfiguration", "model"),
    *("zoo", "evaluation", "training"),
]
"""A module may import those before it. A package counts as one module."""

ORDER_WITHIN = {
    "images": [
        *("formats", "profiles", "jpeg2000", "opacity", "tiff", "tiff_samples", "samples"),
        "decoding",
    ],
    "inference": [
        *("protocol", "command_line", "replica", "result", "windows", "segment", "image_files"),
    ],
    "weights": [
        *("file_kinds", "pickle_calls", "pickle_check", "seals", "pickles", "families", "registry"),
        *(
            "serialization",
            "assumptions",
            "state_dicts",
            "measurement",
            "python_config",
            "openmmlab",
        ),
        *("conversion", "hub", "downloads", "sources", "model_card", "hub_mixin"),
    ],
    "evaluation": ["scores", "charts", "reports", "evaluate", "candidates"],
    "training": [
        *("recipes", "termination", "checkpoint", "history", "augmentation", "data"),
        *("optimization", "objective", "setup", "monitor", "engine"),
    ],
}
"""Likewise for the modules of a package."""

REQUIRED = {"torch", "torchvision", "numpy", "PIL", "huggingface_hub", "safetensors", "ccnet"}

EXTRAS = {
    "images": {"pillow_heif"},
    "datasets": {"tqdm"},
    "training": {"tqdm"},
    "evaluation": {"matplotlib"},
}
"""What a package may import beyond that."""

STRICT = ("-W", "error", "-W", "ignore::ResourceWarning")
"""Warnings are errors, but that PyTorch 2.6 leaves the removal of a folder to the interpreter."""

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
import ccnet.evaluation.reports
weights = [path for path in opened if path.endswith((".safetensors", ".pt", ".pth", ".bin"))]
assert opened, "the audit hook saw nothing"
assert not weights, weights
assert not sockets, sockets
extras = {"matplotlib", "onnx", "onnxruntime", "tensorboard", "ccnet.training", "hubconf"}
assert not extras & sys.modules.keys(), extras & sys.modules.keys()
"""


def _imports(path):
    """Full dotted names of all imports of a file, inside functions too."""
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


def test_import_is_silent_and_reads_no_weights(run_python, tmp_path):
    result = run_python(*STRICT, "-c", WATCHED_IMPORT, cwd=tmp_path)
    assert result.stdout == ""
    assert result.stderr == ""


def test_listings_are_complete(sources):
    assert {name[0] for name in sources} == set(ORDER)
    for package, order in ORDER_WITHIN.items():
        modules = {name[1] for name in sources if name[0] == package}
        assert modules - {"__init__"} == set(order)


def test_imports_run_one_way(sources):
    for name, path in sources.items():
        for imported in _imports(path):
            parts = imported.split(".")
            if parts[0] != "ccnet":
                continue
            assert len(parts) > 1, f"{path} imports the package that it is part of"
            if parts[1] != name[0]:
                assert ORDER.index(parts[1]) < ORDER.index(name[0]), f"{path} imports {imported}"
            elif name[0] in ORDER_WITHIN and name[1] != "__init__":
                order = ORDER_WITHIN[name[0]]
                earlier = order[: order.index(name[1])]
                assert parts[2] in earlier, f"{path} imports {imported}"


def test_weights_know_nothing_of_the_model(sources):
    imported = {
        one for name, path in sources.items() if name[0] == "weights" for one in _imports(path)
    }
    assert not {"ccnet.model", "ccnet.backbone", "ccnet.heads", "ccnet.zoo"} & imported


def test_extras_are_needed_by_training_and_evaluation_alone(sources):
    standard = sys.stdlib_module_names
    for name, path in sources.items():
        allowed = REQUIRED | EXTRAS.get(name[0], set())
        roots = {imported.split(".")[0] for imported in _imports(path)}
        assert roots <= allowed | standard, path


def test_no_file_is_past_300_lines(repository):
    for folder in ("ccnet", "scripts", "tests"):
        for path in (repository / folder).rglob("*.py"):
            assert len(path.read_text().splitlines()) <= 300, path
