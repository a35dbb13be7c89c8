"""Fingerprint: whether a run is resumed with the data that it began with."""

import hashlib
import json
import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from ccnet.datasets.identity import FORM, identify, unidentified
from ccnet.datasets.wording import in_short
from ccnet.distributed import from_rank_zero, rank
from ccnet.files import atomic_write
from ccnet.schema import check_nesting, reason_of, shown
from ccnet.training.checkpoint import ContentsError

logger = logging.getLogger(__name__)

THREADS = 16
"""Number of files that are opened at a time: those of a network drive wait for each other."""

USES = {"train": "train on", "val": "validate on"}
"""What the data sets of a run are for."""

_PLACES = ("set", "part", "share")
"""What a sample's record says of the data set that it is in, not of the sample."""


class Fingerprint:
    """What tells the data of a run from others, sample by sample, in their order.

    No picture is decoded: a sample is what `ccnet.datasets.identity` says of it. Rank 0 looks at
    the files; every rank must make a fingerprint, and check it.

    Args:
        run_dir: the folder of the run, for `data.jsonl`, with a line for each sample.
        sets: the data sets, by names in `USES`.

    Attributes:
        summary: the number of samples of each set, the SHA-256 of their lines and the version of
            their form, JSON-able.
        is_new: whether the checkpoint that was checked has another summary, or none.

    Raises:
        OSError: if a file cannot be read.
        ValueError: if a data set's own `identify` returns anything but JSON-able values by names.
    """

    def __init__(self, run_dir: Path, sets: Mapping[str, Any]) -> None:
        self.run_dir, self.path, self._lines = run_dir, run_dir / "data.jsonl", dict[str, str]()
        self.summary = from_rank_zero(lambda: self._look(sets))
        self.is_new = False

    def _look(self, sets: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
        self._lines = {name: "".join(_lines(name, dataset)) for name, dataset in sets.items()}
        if overlap := _overlap(self._lines.get("train", ""), self._lines.get("val", "")):
            logger.warning("%s", overlap)
        for kind in sorted({kind for dataset in sets.values() for kind in unidentified(dataset)}):
            logger.info(
                "%s has no method identify(index): a resumed run sees only whether its type and "
                "length are as before",
                kind,
            )
        return {
            name: {"samples": lines.count("\n"), "sha256": _digest(lines), "form": FORM}
            for name, lines in self._lines.items()
        }

    def check(self, saved: Any, *, accept: bool) -> None:
        """Compares the data with those of a checkpoint.

        Args:
            saved: the `summary` in it; None in one of an earlier version.
            accept: go on with other data, and say so in the log.

        Raises:
            ContentsError: if the summary is of another type.
            ValueError: if they differ and this is not accepted; says how.
        """
        self.is_new = saved != self.summary
        if not self.is_new:
            return
        if saved is not None and not isinstance(saved, Mapping):
            raise ContentsError(
                f"the newest checkpoint of the run in {self.run_dir} does not fit it: data is "
                f"{type(saved).__name__}: move it away to resume from the one before"
            )
        if saved is None:
            logger.warning(
                "the run in %s did not record its data, so that a change of them would not be "
                "noticed: recorded from now on",
                self.run_dir,
            )
            return
        changes, overlap = from_rank_zero(lambda: self._compare(saved))
        if not accept:
            raise ValueError(
                f"the run in {self.run_dir} has {changes}: restore the data, choose another "
                "folder, or go on with these (--accept-changed-data, accept_changed_data=True)"
                + (f", but {overlap}" if overlap else "")
            )
        logger.warning("going on with changed data: the run had %s", changes)
        if overlap:
            logger.warning("%s", overlap)

    def is_as_before(self, saved: Any, name: str) -> bool:
        """Whether a set is the one of a checkpoint, or that of an earlier version."""
        return not isinstance(saved, Mapping) or saved.get(name) == self.summary[name]

    def save(self) -> None:
        """Writes `data.jsonl`, on rank 0."""
        if rank() == 0:
            with atomic_write(self.path) as temporary:
                temporary.write_text("".join(self._lines.values()), encoding="utf-8")

    def _compare(self, saved: Mapping[str, Any]) -> tuple[str, str]:
        earlier = self._earlier(saved)
        overlap = _overlap(earlier.get("train", ""), self._lines.get("val", ""), "were")
        return "; ".join(self._changes(saved, earlier)), overlap

    def _changes(self, saved: Mapping[str, Any], earlier: Mapping[str, str]) -> Iterator[str]:
        for name, now in self.summary.items():
            before = saved.get(name)
            if before == now:
                continue
            if isinstance(before, Mapping) and before.get("form") != now["form"]:
                yield f"images to {USES[name]} that another version recorded"
                continue
            count = before.get("samples") if isinstance(before, Mapping) else 0
            head = f"{count} images to" if count != now["samples"] else "other images to"
            text = f"{head} {USES[name]}"
            text += f", not {now['samples']}" if count != now["samples"] else ""
            details = []
            if name in earlier:
                details = list(_differences(_samples(earlier[name]), _samples(self._lines[name])))
            yield f"{text} ({'; '.join(details)})" if details else text

    def _earlier(self, saved: Mapping[str, Any]) -> dict[str, str]:
        """The lines of the sets in data.jsonl, if they are those that were saved."""
        found = dict.fromkeys(self.summary, "")
        try:
            for line in self.path.read_text(encoding="utf-8").splitlines(keepends=True):
                found[json.loads(line)["set"]] += line
        except (OSError, ValueError, KeyError, TypeError):
            return {}
        return {
            name: lines
            for name, lines in found.items()
            if isinstance(saved.get(name), Mapping) and saved[name].get("sha256") == _digest(lines)
        }


def _lines(name: str, dataset: Any) -> Iterator[str]:
    def line(index: int) -> str:
        found = identify(dataset, index)
        try:
            check_nesting(found)
            record = {"name": "", **found}
            if not isinstance(record["name"], str):
                raise TypeError(f"its name is {shown(record['name'])}, no text")
            return json.dumps({"set": name, **found}) + "\n"
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"{type(dataset).__qualname__}: identify({index}) must return JSON-able values by "
                f"names, such as a dict of texts: {reason_of(error)}"
            ) from error

    with ThreadPoolExecutor(THREADS) as pool:
        yield from pool.map(line, range(len(dataset)))


def _digest(lines: str) -> str:
    return hashlib.sha256(lines.encode()).hexdigest()


def _samples(lines: str) -> list[dict[str, Any]]:
    """The samples of lines, under names of their own."""
    times: Counter[str] = Counter()
    samples = []
    for index, line in enumerate(lines.splitlines()):
        sample = {"name": f"sample {index}", **json.loads(line)}
        times[sample["name"]] += 1
        again = f" ({times[sample['name']]})" if times[sample["name"]] > 1 else ""
        samples.append({**sample, "name": f"{sample['name']}{again}"})
    return samples


def _overlap(trained: str, val: str, are: str = "are") -> str:
    """Says which of the samples to validate on are, or were, trained on; nothing if none is."""
    samples = _samples(val)
    named = (
        {"name": f"sample {at}", **json.loads(line)} for at, line in enumerate(trained.splitlines())
    )
    seen = {_content(sample) for sample in named} - {None}
    names = [sample["name"] for sample in samples if _content(sample) in seen]
    if not names:
        return ""
    return (
        f"{len(names)} of the {len(samples)} images to validate on ({in_short(names)}) {are} "
        "trained on: their score is too high: leave these copies out, or validate on other images"
    )


def _content(sample: Mapping[str, Any]) -> str | None:
    """What a picture is known by, whatever its set and mask; None if by its type alone."""
    parts = {name: value for name, value in sample.items() if name not in _PLACES}
    if len(parts) == 1:
        return None
    return json.dumps(parts.get("image", parts))


def _differences(
    before: Sequence[Mapping[str, Any]], now: Sequence[Mapping[str, Any]]
) -> Iterator[str]:
    """Says how samples differ: which are new or gone, what differs in others, or their order."""
    old, new = ({sample["name"]: sample for sample in samples} for samples in (before, now))
    for kind, one, other in (("new", new, old), ("gone", old, new)):
        names = [name for name in one if name not in other]
        if names:
            yield f"{kind}: {in_short(names)}"
    both = [(sample, new[name]) for name, sample in old.items() if name in new]
    for part in dict.fromkeys(part for pair in both for sample in pair for part in sample):
        names = [one["name"] for one, other in both if one.get(part) != other.get(part)]
        if names:
            yield f"another {part} of {len(names)}: {in_short(names)}"
    if old == new:
        moved = (a["name"] for a, b in zip(before, now, strict=False) if a["name"] != b["name"])
        yield f"another order, from {next(moved, 'the end')} on"
