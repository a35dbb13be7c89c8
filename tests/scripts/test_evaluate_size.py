"""`scripts/evaluate.py` on weights of a run that learnt at another size than the images'."""

import pytest
from PIL import Image

from ccnet.datasets import StreetScenes
from ccnet.evaluation import evaluate
from ccnet.inference import InferenceProtocol
from ccnet.training.recipes import Recipe
from ccnet.weights import write_weights

SCENES = StreetScenes(2, size=(48, 64), seed=5)


@pytest.fixture
def camvid(tmp_path):
    """Rendered scenes in CamVid's layout."""
    for index, (image, labels) in enumerate(SCENES):
        for folder, array in (("val", image.movedim(0, -1)), ("valannot", labels)):
            (tmp_path / folder).mkdir(exist_ok=True)
            Image.fromarray(array.numpy()).save(tmp_path / folder / f"{index}.png")
    return tmp_path


@pytest.mark.parametrize("factor", [0.5, 1.5])
def test_options_that_are_noted_give_the_figures_of_the_run(
    load_script, make_model, camvid, capsys, factor
):
    script = load_script("evaluate")
    model, weights = make_model(11, label_set="camvid"), camvid / "best.safetensors"
    height, width = model.training_size = [int(factor * side) for side in SCENES.size]
    write_weights(weights, model.to_weights())
    command = ["camvid", "--root", str(camvid), "--weights", str(weights), "--device", "cpu"]
    script.main(command)
    note = f"note: the network learnt at {width}x{height} pixels, and saw no image at that size"
    options = f"--fit {width},{height} --antialias"
    assert f"\n{note}: {options} shows them as `predict` does\n" in capsys.readouterr().out
    script.main([*command, *options.split()])
    printed = capsys.readouterr().out
    scores = evaluate(model, SCENES, protocol=Recipe(size_factor=factor).protocol())
    assert scores.table() in printed
    assert "note:" not in printed


@pytest.mark.parametrize(
    ("training_size", "options"),
    [(None, {}), ((48, 64), {}), ((96, 128), {"scales": (2.0,)}), ((96, 128), {"fit": 64})],
)
def test_there_is_no_note_where_the_size_is_known_or_chosen(
    load_script, make_model, training_size, options
):
    model = make_model(11, label_set="camvid", training_size=training_size)
    protocol, sizes = InferenceProtocol(**options), [(30, 40), (48, 64)]
    assert load_script("evaluate").size_note(model, protocol, sizes) == ""
