"""torch.hub.load("OWNER/NAME"): this repository's archive, downloaded as from GitHub."""

import re

import pytest
from hub_archive import FROM_GITHUB, GitHub, archive
from PIL import Image

VERSIONS = """
def version(name, **options):
    for module in [one for one in sys.modules if one.partition(".")[0] == "ccnet"]:
        del sys.modules[module]  # as in a process of its own
    options = {"in_channels": 8, "trust_repo": True, "verbose": False, **options}
    torch.hub.load(name, "criss_cross_attention_2d", **options)
    ccnet = sys.modules["ccnet"]
    return f"{ccnet.__version__} {ccnet.__file__.split('/')[-3]}"

for name in sys.argv[2:]:
    print(version(name.removesuffix(" anew"), force_reload=name.endswith(" anew")))
"""

REFUSED = """
torch.hub.load(sys.argv[2], "entry", source="local")
try:
    torch.hub.load("OWNER/NAME", "ccnet_resnet18", trust_repo=True)
except ImportError as error:
    print(error)
"""
"""After another repository's package."""

INSTALLED = """
options = {"trust_repo": True, "weights": None}
model = torch.hub.load("OWNER/NAME", "ccnet_resnet18", **options)
print(sys.modules[type(model).__module__].__file__)
for module in [one for one in sys.modules if one.partition(".")[0] == "ccnet"]:
    del sys.modules[module]
import ccnet
try:
    torch.hub.load("OWNER/NAME", "ccnet_resnet18", **options)
except ImportError as error:
    print(error)
"""
"""First before it is imported, then after."""


@pytest.fixture(scope="module")
def code(repository):
    """The package of this repository without its weights, in versions of its own."""
    text = (repository / "ccnet" / "__init__.py").read_text()

    def code(version, **options):
        changed = re.sub(r'(?m)^__version__ = ".*"$', f'__version__ = "{version}"', text)
        return archive(repository, {"ccnet/__init__.py": changed}, **options)

    return code


@pytest.fixture
def run(run_forked, tmp_path):
    """Runs a program for which `github` is GitHub, beside what it loads."""

    def run(github, program, *arguments, home="torch", **variables):
        variables = {"PYTHONPATH": "", "TORCH_HOME": str(tmp_path / home), **variables}
        arguments = (github.address, *arguments)
        return run_forked("-c", FROM_GITHUB + program, *arguments, cwd=tmp_path, **variables).stdout

    return run


def first_lines(repository):
    """What the README shows first, with the repository on GitHub; the pictures it reads, writes."""
    readme = (repository / "README.md").read_text()
    block = re.search(r"## Use it\n+```python\n(.*?)```", readme, re.DOTALL)[1]
    load = re.search(r'torch\.hub\.load\(\s*"OWNER/NAME".*?\)', readme, re.DOTALL)[0]
    lines = re.sub(r"torch\.hub\.load\(.*\)", " ".join(load.split()), block)
    return lines, *(re.search(rf'\.{call}\("(.*?)"\)', lines)[1] for call in ("predict", "save"))


def test_first_lines_of_the_readme(repository, code, run, tmp_path):
    lines, picture, overlay = first_lines(repository)
    (tmp_path / picture).parent.mkdir(exist_ok=True)
    Image.new("RGB", (96, 64), (90, 120, 60)).save(tmp_path / picture)
    with GitHub({"main": code("1", weights=True)}) as github:
        run(github, lines)
    with Image.open(tmp_path / overlay) as result:
        assert result.size == (96, 64)
    assert "/OWNER/NAME/zipball/main" in github.asked


def test_every_kind_of_name_is_downloaded_once(code, run):
    archives = {"main": code("1"), "v1.0": code("2"), "feature/x": code("3")}
    names = ("OWNER/NAME", "OWNER/NAME:v1.0", "OWNER/NAME:feature/x")
    with GitHub(archives) as github:
        printed = run(github, VERSIONS, *names, *names).splitlines()
        folders = ["1 OWNER_NAME_main", "2 OWNER_NAME_v1.0", "3 OWNER_NAME_feature_x"]
        assert [line for line in printed if not line.startswith("Downloading")] == folders * 2
        assert sum("/codeload/" in path for path in github.asked) == 3
        archives["main"] = code("4")
        names = ("OWNER/NAME", "OWNER/NAME anew", "OWNER/NAME:main")
        printed = run(github, VERSIONS, *names).splitlines()
        versions = [line[0] for line in printed if not line.startswith("Downloading")]
        assert versions == ["1", "4", "4"]


def test_another_repository_with_a_package_of_this_name_is_named(code, run, tmp_path):
    other = tmp_path / "hub" / "other_repository_main"
    (other / "ccnet").mkdir(parents=True)
    (other / "ccnet" / "__init__.py").touch()
    (other / "hubconf.py").write_text("import ccnet\ndef entry():\n    return ccnet\n")
    with GitHub({"main": code("1")}) as github:
        printed = run(github, REFUSED, other)
    assert f"already imported a package 'ccnet' from {other}/ccnet/__init__.py" in printed
    assert "OWNER_NAME_main/ccnet/__init__.py. Load this repository in a separate" in printed


def test_installed_package_is_left_aside_unless_it_is_in_use(code, run, repository):
    with GitHub({"main": code("1")}) as github:
        printed = run(github, INSTALLED, PYTHONPATH=str(repository)).splitlines()
    loaded, error = printed[-2:]
    assert loaded.endswith("torch/hub/OWNER_NAME_main/ccnet/model.py")
    assert f"already imported a package 'ccnet' from {repository}/ccnet/__init__.py" in error
