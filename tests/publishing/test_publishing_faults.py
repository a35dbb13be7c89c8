"""What goes wrong when publishing ends in one clear error, and nothing wrong is pinned."""

import pytest
from hub_server import NOWHERE, HubServer, Repository, assert_equal, connect, uploads
from hub_uploads import OWNER
from rehearsal import BY_HAND, LATE, SMALL

import ccnet
from ccnet.publishing.upload import check_account, is_published, upload

pytestmark = [pytest.mark.slow, uploads]
NAMES = ("model.safetensors", "README.md")


@pytest.fixture
def server(tmp_path, monkeypatch):
    with HubServer() as server:
        connect(monkeypatch, server.address, tmp_path / "home")
        monkeypatch.setenv("HF_TOKEN", "hf_secret")
        yield server


@pytest.fixture
def files(tmp_path):
    for name in NAMES:
        (tmp_path / name).write_text(f"---\nlicense: mit\n---\n{name}")
    return {name: tmp_path / name for name in NAMES}


def test_same_files_again_make_no_new_commit(server, files):
    pin = upload(files, "us/model")
    assert is_published(pin)
    assert upload(files, "us/model") == pin
    files["README.md"].write_text("---\nlicense: mit\n---\nanother card")
    assert upload(files, "us/model")["revision"] != pin["revision"]
    assert is_published(pin)
    assert len(server.requests("PUT", "")) == 1


def test_private_repository_is_read_with_the_token_alone(server, files, monkeypatch):
    pin = upload(files, "us/model", private=True)
    assert is_published(pin)
    monkeypatch.setenv("HF_TOKEN", "hf_other")
    assert not is_published(pin)
    monkeypatch.delenv("HF_TOKEN")
    assert not is_published(pin)


def test_branch_that_moved_is_left_alone(server, files):
    server.before_commit = lambda repository: repository.commit({"theirs": b""})
    with pytest.raises(OSError, match="hf://us/model: somebody else committed meanwhile"):
        upload(files, "us/model")
    assert server.repositories["us/model"].files.keys() == {"theirs"}


@pytest.mark.parametrize("status", [429, 503])
def test_busy_server_is_asked_again(server, files, monkeypatch, status):
    monkeypatch.setattr("time.sleep", lambda _: None)
    upload(files, "us/model")
    files["README.md"].write_text("---\nlicense: mit\n---\nanother card")
    repository = server.repositories["us/model"]
    repository.failures = [status]
    server.after_commit = lambda repository: repository.failures.append(status)
    pin = upload(files, "us/model")  # whose commit is made, but not confirmed
    assert pin["revision"] == repository.head
    assert len(repository.history) == 2
    repository.failures = [status]
    assert is_published(pin)
    repository.failures = [status] * 1000
    with pytest.raises(OSError, match=f"^hf://us/model: the server answered {status}$"):
        upload(files, "us/model")


def test_file_that_the_hub_has_changed_is_noticed(server, files, monkeypatch):
    commit = Repository.commit
    changed = {"model.safetensors": b"another"}
    monkeypatch.setattr(Repository, "commit", lambda self, _: commit(self, changed))
    with pytest.raises(ValueError, match=r"hf://us/model@.*/README\.md|is not what was uploaded"):
        upload(files, "us/model")


@pytest.mark.parametrize("problem", ["changed", "gone", "rewritten"])
def test_pin_of_what_is_no_longer_there(server, files, problem):
    pin = upload(files, "us/model")
    repository = server.repositories["us/model"]
    if problem == "changed":
        repository.files["model.safetensors"] = b"another"
    elif problem == "gone":
        del server.repositories["us/model"]
    else:
        repository.commit({"theirs": b""})
        repository.history.clear()
    assert not is_published(pin)


def test_account_is_checked_before_anything_is_fetched(server, rehearsal, monkeypatch):
    check_account("us")
    check_account("someone")
    with pytest.raises(ValueError, match="the token is of someone and us, not of them"):
        check_account("them")
    with monkeypatch.context() as patch:
        patch.setitem(OWNER["auth"]["accessToken"], "role", "read")
        with pytest.raises(ValueError, match="the token may only read: make one that may write"):
            check_account("us")
    monkeypatch.setenv("HF_TOKEN", "")
    assert "no token" in rehearsal.publish("--yes", status=1)
    connect(monkeypatch, NOWHERE, rehearsal.folder)
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    assert f"error: {NOWHERE}: [" in rehearsal.publish("--yes", status=1)
    assert not rehearsal.server.asked


def test_dry_run_says_what_would_be_done_and_asks_nobody(rehearsal):
    printed = rehearsal.publish("--only", "*ADE20K*", "--only", str(BY_HAND))
    assert printed.count("planned") == 4 + 1
    assert f"{SMALL}.pth -> us/{SMALL.meta['file'].removesuffix('.safetensors')}" in printed
    assert "--file FILE" in printed
    assert "4 planned, 1 by hand\nNothing was done" in printed
    assert not rehearsal.server.asked
    assert rehearsal.pins.read_text() == "{}"


def test_network_that_is_registered_wrong_is_refused(rehearsal, tmp_path):
    rehearsal.offer(SMALL, align_corners=True)  # the registry says otherwise
    printed = rehearsal.publish("--only", str(SMALL), "--output", tmp_path, status=1)
    assert "computes something else" in printed


def test_files_can_be_prepared_without_an_upload(rehearsal, tmp_path):
    printed = rehearsal.publish("--only", "CAMVID", "--output", tmp_path)
    assert "; logits within 0 of the file's\n1 prepared" in printed
    names = {path.name for path in (tmp_path / "ccnet_resnet18_camvid").iterdir()}
    assert names == {"README.md", "config.json", "example.png", "model.safetensors"}
    assert not rehearsal.server.requests("POST", "")


@pytest.mark.parametrize("channels", [3, 4])
def test_network_of_ones_own_has_its_licence_and_its_channels(
    rehearsal, make_model, tmp_path, channels
):
    model = make_model(3, in_channels=channels, aux_channels=0)
    model.card_details = {"license": "CC-BY-4.0"}
    model.save_pretrained(tmp_path / "mine")
    options = ("--name", "street", "--file", tmp_path / "mine", "--output", tmp_path / "out")
    assert f"prepared   {tmp_path / 'mine'}" in rehearsal.publish(*options)
    folder = tmp_path / "out" / "street"
    card = (folder / "README.md").read_text()
    assert "license: cc-by-4.0" in card
    assert f"batch (N, {channels}, H, W)" in card
    assert ("![" in card) == (folder / "example.png").exists() == (channels == 3)
    again = ccnet.CCNet.from_pretrained(folder)
    assert_equal(again.state_dict(), model.state_dict())
    assert again.card_details == model.card_details


OPTIONS = {
    ("--only", "CAMVI"): "the registry has no CAMVI: did you mean CAMVID?",
    ("--owner", "a/b"): "cannot be a repository",
    ("--name", "x"): "--name is of a network of your own",
    ("--file", "x.pth"): "--file needs --name",
    ("--file", "x.pth", "--only", "*"): "not with 20",
    ("--yes", "--pins", "/nowhere/pins.json"): "cannot be written to",
    ("--pins", __file__): "test_publishing_faults.py is not JSON",
}


@pytest.mark.parametrize(("options", "message"), OPTIONS.items(), ids=map(" ".join, OPTIONS))
def test_options_that_do_not_go_together(rehearsal, options, message, capsys):
    rehearsal.publish(*options, status=2)
    assert message in capsys.readouterr().err


def test_file_that_is_not_there_is_one_failure(rehearsal):
    printed = rehearsal.publish("--yes", "--file", "none", "--name", "x", status=1)
    assert "failed     none  no weights at none" in printed


def test_checkpoint_of_another_member_is_refused(rehearsal):
    path = rehearsal.save(LATE)
    options = ("--yes", "--only", str(SMALL), "--file", path)
    assert "is not the published file" in rehearsal.publish(*options, status=1)
