"""Publishing of many networks, one after the other: it goes on where it stopped."""

import logging
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from torchvision.models import WeightsEnum

from ccnet.publishing.pinning import write_pin
from ccnet.publishing.preparation import (
    ByHandError,
    by_hand,
    longer_card,
    prepare,
    read_member,
    read_own,
)
from ccnet.publishing.upload import is_published, upload
from ccnet.weights.hub import in_one_line
from ccnet.weights.pins import PINS, Pin, read_pins

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Subject:
    """Something to publish.

    Attributes:
        repo_id: where to, "owner/name".
        member: registered weights, or None for a network of one's own.
        file: path of their checkpoint, or of that network; None for where the weights come from.
    """

    repo_id: str
    member: WeightsEnum | None = None
    file: str | None = None

    def __str__(self) -> str:
        return str(self.member or self.file)


@dataclass(frozen=True)
class Options:
    """How to publish.

    Attributes:
        uploads: whether to upload; otherwise files are prepared where `output` says so.
        output: folder for the files, which stay there; None for a temporary one.
        private: whether new repositories are private.
        pins: the file of pins.
        progress: show progress bars.
    """

    uploads: bool = False
    output: Path | None = None
    private: bool = False
    pins: Path = PINS
    progress: bool = True


@dataclass(frozen=True)
class Outcome:
    """What became of a subject: `state` is a key of `STATES`, `text` says more."""

    subject: Subject
    state: str
    text: str = ""


STATES = {
    "published": "uploaded and read back",
    "pinned": "on the Hub already",
    "prepared": "files written and checked",
    "planned": "would be published",
    "by hand": "needs a file that only a person can fetch",
    "failed": "an error",
}


def publish_all(subjects: Iterable[Subject], options: Options) -> Iterator[Outcome]:
    """Publishes one subject after the other; the error of one is its outcome."""
    for subject in subjects:
        try:
            yield _publish(subject, options)
        except ByHandError as error:
            yield Outcome(subject, "by hand", in_one_line(error))
        except Exception as error:  # the next one may succeed, hours later and unattended
            logger.debug("%s", subject, exc_info=True)
            yield Outcome(subject, "failed", in_one_line(error))


def _publish(subject: Subject, options: Options) -> Outcome:
    pins = read_pins(options.pins) if options.pins.exists() else {}
    pin = pins.get(str(subject))
    if pin and pin["repo_id"] == subject.repo_id:
        if not options.uploads or is_published(pin):
            return Outcome(subject, "pinned", _address(pin))
        logger.warning("%s is gone, or has changed: it is published again", _address(pin))
    if not options.uploads and options.output is None:
        return _plan(subject)
    weights, plain = (
        read_member(subject.member, subject.file, progress=options.progress)
        if subject.member
        else (own := read_own(str(subject.file)), own)
    )
    name = subject.repo_id.rpartition("/")[2]
    place = tempfile.TemporaryDirectory() if options.output is None else nullcontext(options.output)
    with place as folder:
        prepared = prepare(Path(folder, name), weights, plain, subject.repo_id)
        if subject.member:
            prepared.files.update(longer_card(subject.member))
        checked = f"logits within {prepared.difference:.1g} of the file's"
        if not options.uploads:
            return Outcome(subject, "prepared", f"{Path(folder, name)}; {checked}")
        pin = upload(
            prepared.files, subject.repo_id, private=options.private, progress=options.progress
        )
    if subject.member:
        _keep(str(subject), pin, options.pins)
    return Outcome(subject, "published", f"{_address(pin)}; {checked}")


def _keep(name: str, pin: Pin, path: Path) -> None:
    """Writes a pin, or says which one could not be written."""
    try:
        write_pin(name, pin, path)
    except (OSError, ValueError) as error:
        raise OSError(f"{_address(pin)} is uploaded, but not pinned: {error}") from error


def _plan(subject: Subject) -> Outcome:
    """Says what would be done, and does nothing."""
    meta = subject.member.meta if subject.member else {}
    if subject.file:
        source = subject.file
    elif meta["sha256"]:
        source = f"the bundled {meta['file']}"
    elif meta["origin"]:
        source = Path(meta["origin"]["url"]).name
    else:
        raise by_hand(subject.member)
    return Outcome(subject, "planned", f"{source} -> {subject.repo_id}")


def _address(pin: Pin) -> str:
    return f"hf://{pin['repo_id']}@{pin['revision']}"


def table(outcomes: Iterable[Outcome]) -> str:
    """One line for each, and their numbers."""
    outcomes = list(outcomes)
    width = max((len(str(one.subject)) for one in outcomes), default=0)
    lines = [f"{one.state:<9}  {one.subject!s:<{width}}  {one.text}" for one in outcomes]
    counts = {state: sum(one.state == state for one in outcomes) for state in STATES}
    shown = [f"{count} {state}" for state, count in counts.items() if count]
    return "\n".join([*lines, ", ".join(shown)])
