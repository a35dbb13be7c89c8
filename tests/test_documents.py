"""The documents: their snippets run as printed, and their command lines have such options."""

import doctest
import re
import shutil
from importlib import import_module
from pathlib import Path

import pytest
from documents import command_lines, command_of, snippets
from PIL import Image

import ccnet
from ccnet.commands import COMMANDS
from ccnet.commands.predict import DEMO_SEED
from ccnet.datasets import StreetScenes
from ccnet.images import decode_image

REPOSITORY = Path(__file__).resolve().parents[1]

PAGES = [
    *(REPOSITORY / name for name in ("README.md", "REPRODUCTION.md")),
    *sorted((REPOSITORY / "docs").glob("*.md")),
    *sorted((REPOSITORY / "weights").glob("*.md")),
]

EXAMPLES = [
    ".".join(path.relative_to(REPOSITORY).with_suffix("").parts)
    for path in sorted((REPOSITORY / "ccnet").rglob("*.py"))
    if ">>>" in path.read_text()
]
"""Modules with examples in their docstrings."""

SMALLER = {
    "97, 97": "9, 13",
    "StreetScenes(20,": "StreetScenes(5, size=(64, 96),",
    "RandomCrop(240)": "RandomCrop(48)",
    "range(10)": "range(1)",
    "max_epochs=10": "max_epochs=1, accelerator='cpu', logger=False, enable_checkpointing=False",
    'if torch.cuda.is_available() else "cpu"': 'if False else "cpu"',
}
"""What a test has in place of texts in the snippets, to take seconds."""


@pytest.fixture
def run(repository, weights_file, make_model, tmp_path, monkeypatch):
    """Runs snippets one after the other, in the same names, in what is as good as a clone."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "docs").mkdir()
    (tmp_path / "hubconf.py").symlink_to(repository / "hubconf.py")
    with Image.open(repository / "docs" / "sample.jpg") as sample:
        sample.reduce(4).save("docs/sample.jpg")
    (tmp_path / "runs" / "mine").mkdir(parents=True)
    shutil.copy(weights_file, "runs/mine/best.safetensors")

    def without_download(weights):
        assert weights in ccnet.CCNet_ResNet101_Weights.__members__
        return make_model()

    monkeypatch.setattr(ccnet, "ccnet_resnet101", without_download)
    names = {}

    def run(code):
        for text, smaller in SMALLER.items():
            code = code.replace(text, smaller)
        exec(compile(code, "snippet", "exec"), names)
        return names

    return run


@pytest.fixture
def own_data(run, repository):
    """The folder `my-data` of the README."""
    (code,) = (code for code in snippets(repository / "README.md") if "StreetScenes(20" in code)
    run(code)


def test_what_is_made_smaller_is_there():
    code = "".join(code for page in PAGES for code in snippets(page))
    assert not [text for text in SMALLER if text not in code]


def test_readme_runs_from_top_to_bottom(run, repository):
    blocks = snippets(repository / "README.md")
    assert len(blocks) >= 6
    for code in blocks:
        names = run(code)
    with Image.open("overlay.png") as overlay:
        assert overlay.size == (96, 64)
    assert names["y"].shape == (1, 512, 9, 13)
    assert names["model"].training
    assert names["model"].label_set.categories == ("elsewhere", "road")
    assert names["model"].aux_head is not None


def test_own_loop_trains_validates_and_saves(run, own_data, repository, capsys):
    plain, _ = snippets(repository / "docs" / "own-loop.md")
    model = run(plain)["model"]
    assert capsys.readouterr().out.startswith("epoch 0: loss ")
    saved = ccnet.CCNet.from_pretrained("runs/own-loop")
    assert saved.label_set.categories == ("elsewhere", "road")
    assert (saved.head.cca.gamma == model.head.cca.gamma).all()


def test_merging_classes_keeps_what_masks_look_like(run, repository, tmp_path):
    code = next(code for code in snippets(repository / "docs" / "data.md") if "table = " in code)
    for folder in ("all-masks", "my-data/masks"):
        (tmp_path / folder).mkdir(parents=True)
    mask = Image.new("P", (6, 1))
    mask.putpalette(range(18))
    mask.putdata(range(6))
    mask.save(tmp_path / "all-masks" / "0.png")
    run(code)
    with Image.open(tmp_path / "my-data" / "masks" / "0.png") as merged:
        assert [*merged.tobytes()] == [0, 1, 2, 3, 1, 1]
        assert merged.getpalette()[:18] == [*range(18)]


@pytest.mark.filterwarnings("ignore")  # Lightning's own
def test_lightning_trains_both_heads(run, own_data, repository):
    pytest.importorskip("lightning")
    _, code = snippets(repository / "docs" / "own-loop.md")
    names = run(code)
    before = names["Segmenter"](["elsewhere", "road"]).model.state_dict()
    after = ccnet.CCNet.from_pretrained("runs/lightning").state_dict()
    changed = [name for name in before if (before[name] != after[name]).any()]
    for part in ("backbone", "head", "aux_head"):
        of_part = [name for name in changed if name.startswith(f"{part}.")]
        assert any(name.endswith(".weight") for name in of_part)
        assert any(name.endswith(".running_mean") for name in of_part)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_command_lines_of_documents_have_their_options(page, repository, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for words in command_lines(page):
        if found := command_of(words, repository):
            command, arguments = found
            if arguments and "--help" not in arguments:  # else it is only mentioned
                command.parse_arguments(arguments)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_documents_name_commands_rather_than_their_scripts(page, repository):
    scripts = (repository / "scripts").glob("*.py")
    thin = [one.name for one in scripts if "from ccnet.commands." in one.read_text()]
    named = rf"`(?:scripts/)?(?:{'|'.join(map(re.escape, thin))})\b[^`]*`"
    assert len(thin) == len(COMMANDS)
    assert not re.findall(named, page.read_text())


@pytest.mark.parametrize("name", COMMANDS)
def test_examples_of_every_command_have_its_options(name, repository, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    command = import_module(f"ccnet.commands.{name}")
    found = [command_of(words, repository) for words in command_lines(command.__doc__)]
    assert command in [one for one, _ in found]
    for one, arguments in found:
        if "--help" not in arguments:
            one.parse_arguments(arguments)


@pytest.mark.parametrize("name", EXAMPLES)
def test_examples_of_docstrings_run(name, model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for picture in ("street.jpg", "square.jpg"):
        Image.new("RGB", (250, 170)).save(picture)
    module, report = import_module(name), []
    names = {**vars(ccnet), **vars(module), "model": model}
    for example in doctest.DocTestFinder().find(module, extraglobs=names):
        doctest.DocTestRunner().run(example, out=report.append)
    assert not report, "".join(report)


def test_sample_is_the_rendered_street(repository):
    path = repository / "docs" / "sample.jpg"
    scene, _ = StreetScenes(1, seed=DEMO_SEED)[0]
    difference = decode_image(path).int() - scene.int()
    assert difference.abs().float().mean() < 6
    assert path.stat().st_size < 150_000


def anchors(page):
    """Of headings, as GitHub makes them."""
    titles = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        path, _, anchor = target.partition("#")
        if re.match(r"[a-z]+:", path):
            continue
        linked = (page.parent / path).resolve() if path else page
        assert linked.exists(), target
        assert not anchor or anchor in anchors(linked), target
