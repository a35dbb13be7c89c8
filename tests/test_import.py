"""Imports: silent and cheap, in one direction, without extras."""

import ast
import sys
from itertools import takewhile

import pytest

import ccnet

ORDERS = {
    "": [
        *(
            "files",
            "schema",
            "options",
            "console",
            "command_line",
            "launchers",
            "distributed",
            "locks",
            "precision",
        ),
        *("attention_kernel", "attention"),
        *("baselines", "norm", "class_tables", "class_fields", "classes", "losses"),
        *("images", "transforms", "visualization"),
        *("datasets", "inference", "jobs", "weights", "backbones", "freezing", "heads", "economy"),
        "reconfiguration",
        *(
            "model",
            "zoo",
            "deployment",
            "evaluation",
            "training",
            "publishing",
            "explorer",
            "prediction_run",
            "video",
            "commands",
            "__main__",
        ),
    ],
    "attention_kernel": [
        *("multiplication", "lines", "results", "dense"),
        *("batched", "blockwise", "small_maps", "autograd"),
    ],
    "images": [
        *(
            "formats",
            "bitmap",
            "orientation",
            "profiles",
            "jpeg2000",
            "opacity",
            "tiff",
            "tiff_samples",
            "samples",
            "arrays",
            "content",
        ),
        *("decoding", "channels"),
    ],
    "visualization": [
        *("palettes", "legend", "labels", "notebook"),
        *("attention", "attention_paths", "record", "heat", "marks", "attention_figure"),
    ],
    "inference": [
        *(
            "protocol",
            "command_line",
            "logits",
            "windows",
            "footprint",
            "memory",
            "replica",
            "marked_png",
            "polygons",
            "annotations",
            "result",
            "forward",
            "segment",
            "prediction",
        ),
    ],
    "jobs": ["outputs", "jobs", "search", "results"],
    "weights": [
        *("file_kinds", "tensors", "pickles", "families", "entries", "pins", "registry"),
        *("serialization", "assumptions", "conversion", "hashes", "retries", "timed_requests"),
        *("fetching", "hub", "origins", "imagenet", "downloads", "sources", "backbones"),
        *("model_card", "hub_mixin"),
    ],
    "explorer": [
        *("bounded", "pictures", "networks", "views", "answers", "query", "server"),
    ],
    "publishing": ["preparation", "upload", "pinning", "zoo"],
    "weights.pickles": ["calls", "dry_run", "seals", "reading"],
    "weights.conversion": [
        *("state_dicts", "measurement", "python_config", "recorded_classes"),
        *("openmmlab", "convert"),
    ],
    "datasets": [
        *(
            "mixture",
            "identity",
            "wording",
            "color_index",
            "label_maps",
            "labeled_images",
            "ade20k",
            "camvid",
            "cityscapes",
        ),
        *("labelmefacade", "voc", "mask_folder", "street_scenes", "renumbered", "selection"),
    ],
    "datasets.mask_folder": [
        *("pairing", "memory", "survey", "classes_file", "palettes", "numbering", "orientation"),
        *("case", "colors", "judgement", "meaning", "dataset"),
    ],
    "backbones": ["resnet", "timm_network", "timm_weights", "choice"],
    "economy": ["layers", "blocks", "choice"],
    "prediction_run": [
        *("sharing", "command_line", "record_lines", "records", "progress", "report", "stages"),
        *("pipeline", "run", "loading"),
    ],
    "video": ["reading", "sound", "writing", "film", "command_line"],
    "deployment": ["optimized", "exported"],
    "deployment.optimized": [
        *("data_flow", "folding", "convolution", "blocks", "fusion", "network", "optimization"),
        "command_line",
    ],
    "deployment.exported": [
        *("contract", "programs", "formats", "comparison", "int8", "export", "network"),
    ],
    "deployment.exported.formats": [
        *("openvino_runtime", "onnx_metadata", "onnx_files", "torch_files", "registry"),
    ],
    "deployment.exported.int8": ["calibration", "quantization"],
    "evaluation": ["splits", "scores", "charts", "reports", "evaluate", "candidates", "data"],
    "training": [
        *(
            "camera",
            "recipe_fields",
            "recipes",
            "named_recipes",
            "termination",
            "run_log",
            "command_line",
            "precision",
        ),
        *("checkpoint", "trackers", "run_folder", "progress", "changes"),
        *("restoration", "average", "learner", "fingerprint", "history", "learnt_size"),
        *("import_path", "transform_name", "alignment", "own_augmentation", "samples"),
        *("augmentation", "order", "data"),
        *("optimization", "holdout", "objective", "setup", "summary", "monitor", "validation"),
        "engine",
        *("class_folder", "classification", "pretraining"),
    ],
    "commands": [
        "attention",
        "convert",
        "evaluate",
        "explore",
        "export",
        "predict",
        "pretrain",
        "publish",
        "publish_zoo",
        "train",
    ],
}
"""By package, its modules and packages: each may import those before it."""

REQUIRED = {"torch", "torchvision", "numpy", "PIL", "huggingface_hub", "safetensors", "ccnet"}

EXTRAS = {
    "images": {"pillow_heif"},
    "inference": {"pycocotools"},
    "backbones": {"timm"},
    "datasets": {"tqdm"},
    "deployment": {"onnx", "onnxruntime", "openvino", "tqdm"},
    "training": {"tqdm", "wandb"},
    "evaluation": {"matplotlib"},
    "prediction_run": {"tqdm"},
    "video": {"av", "tqdm"},
    "commands": {"tqdm"},
}
"""What a package may import beyond that."""

USERS = {"commands", "__main__"}
"""What uses the package as others do, and may import it as a whole."""

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
from ccnet import *
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
    for package, order in ORDERS.items():
        above = tuple(package.split(".")) if package else ()
        modules = {name[len(above)] for name in sources if name[: len(above)] == above}
        assert modules - {"__init__"} == set(order)


@pytest.mark.parametrize("name", ["nope", "nope.x", "model.x", "", "_nope", "1"])
def test_package_has_no_other_names(name):
    assert not hasattr(ccnet, name)


def test_imports_run_one_way(sources):
    for name, path in sources.items():
        for imported in _imports(path):
            root, *parts = imported.split(".")
            is_name_of_all = not parts or parts[0] not in ORDERS[""]
            is_version = parts == ["__version__"]  # which is there before all modules
            if root != "ccnet" or is_version or (name[0] in USERS and is_name_of_all):
                continue
            pairs = zip(name, parts, strict=False)
            shared = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
            assert len(parts) > shared, f"{path} imports the package that it is part of"
            order = ORDERS.get(".".join(name[:shared]))
            if order and name[shared] != "__init__":
                earlier = order[: order.index(name[shared])]
                assert parts[shared] in earlier, f"{path} imports {imported}"


def test_weights_know_nothing_of_the_model(sources):
    imported = {
        one for name, path in sources.items() if name[0] == "weights" for one in _imports(path)
    }
    assert not {"ccnet.model", "ccnet.backbones", "ccnet.heads", "ccnet.zoo"} & imported


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
