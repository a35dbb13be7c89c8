"""The pipeline: what is in flight, what ends it, and which pictures go through together."""

import errno
import time
from itertools import chain
from types import SimpleNamespace

import pytest
import torch

from ccnet.inference import InferenceProtocol
from ccnet.jobs.results import Standing
from ccnet.prediction_run import pipeline
from ccnet.prediction_run.pipeline import Pipeline
from ccnet.prediction_run.progress import Progress
from ccnet.prediction_run.sharing import Share
from ccnet.prediction_run.stages import Picture


class Stages:
    """Stages of pictures that are sizes: they do nothing but note what was done."""

    memory_limit = 8.5

    def __init__(self, sizes, batch_size=1, on_segment=lambda: None, on_write=lambda: None):
        self.sizes, self.batch_size = sizes, batch_size
        self.on_segment, self.on_write = on_segment, on_write
        self.read_ahead, self.most, self.together, self.written = 0, 0, [], []

    def read(self, job):
        height, width = self.sizes[int(job.name)]
        self.read_ahead += 1
        self.most = max(self.most, self.read_ahead)
        return Picture(job, standing=Standing.NONE, pixels=torch.empty(0), size=(height, width))

    def group(self, picture):
        return self.batch_size, (picture.size,)

    def segment(self, pictures, count):
        self.on_segment()
        self.together.append([int(picture.job.name) for picture in pictures])
        return 0.0

    def write(self, picture):
        self.on_write()
        self.read_ahead -= 1
        self.written.append(int(picture.job.name))


def make(stages, limit=None, records=None, workers=2):
    numbers = range(len(stages.sizes))
    jobs = [SimpleNamespace(name=str(number), picture=f"{number}.png") for number in numbers]
    share = Share(range(len(jobs)), limit=limit)
    progress = Progress(len(jobs), is_shown=False)
    return Pipeline(jobs, share, stages, records, lambda picture: None, progress, workers)


def test_pictures_are_read_ahead_but_so_many(monkeypatch):
    stages = Stages([(9, 9)] * 40)
    assert make(stages).run().segmented == 40
    assert stages.written == list(range(40)) == list(chain(*stages.together))
    assert 2 <= stages.most <= 3 + 1 + 3


def test_of_large_pictures_fewer_are_in_flight():
    large = (1, 2 * pipeline.PIXELS)
    stages = Stages([large] * 5 + [(9, 9)] * 5 + [large] * 3)
    assert make(stages).run().segmented == 13
    assert stages.written == list(range(13))
    alone = Stages([large] * 5)
    make(alone).run()
    assert alone.most == 1


@pytest.mark.parametrize("batch_size", [1, 2, 3, 8])
def test_pictures_of_one_size_go_through_together(batch_size):
    sizes = [(9, 9 + index % 2) for index in range(12)]
    stages = Stages(sizes, batch_size)
    assert make(stages).run().segmented == 12
    assert sorted(stages.written) == list(range(12))
    for names in stages.together:
        assert len(names) <= batch_size
        assert len({sizes[name] for name in names}) == 1
    fewest = 2 * -(-6 // batch_size)
    assert fewest <= len(stages.together) <= fewest + 2


LARGE = (1, pipeline.PIXELS)


@pytest.mark.parametrize(
    ("sizes", "limit", "counts"),
    [
        ([LARGE] * 8, 8.5, [4, 4]),
        ([LARGE] * 9, 8.5, [4, 4, 1]),
        ([LARGE] * 4, 1.0, [2, 2]),
        ([(9, 9)] * 6, 8.5, [4, 2]),
        ([(9, width) for width in range(1, 5)], 8.5, [1] * 4),
    ],
)
def test_batches_are_whole_where_there_is_memory(sizes, limit, counts):
    stages = Stages(sizes, 4, on_write=lambda: time.sleep(0.02))
    stages.memory_limit = limit
    report = make(stages, workers=1).run()
    assert list(map(len, stages.together)) == counts
    assert report.filled == 4 * len(counts) - len(sizes)
    assert sorted(stages.written) == list(range(len(sizes)))
    assert stages.most <= max(4 + 4, len(sizes))


def test_a_limit_ends_a_run():
    stages = Stages([(9, 9)] * 10)
    running = make(stages, limit=4)
    assert running.run().segmented == 4
    assert stages.written == [0, 1, 2, 3]


@pytest.mark.parametrize("limit", [None, 3])
def test_progress_goes_from_nothing_to_all(limit):
    running, shown = make(Stages([(9, 9)] * 10), limit), []
    running.progress = SimpleNamespace(show=shown.append)
    running.run()
    assert min(shown) >= 0
    assert shown == sorted(shown)
    assert shown[-1] == (limit or 10)


def count_to(number, act):
    calls = iter(range(1, 1000))

    def hook():
        if next(calls) == number:
            act()

    return hook


def raiser(error):
    def act():
        raise error

    return act


def test_an_interrupted_run_has_written_what_was_computed():
    stages = Stages([(9, 9)] * 10, on_segment=count_to(5, raiser(KeyboardInterrupt())))
    running = make(stages)
    with pytest.raises(KeyboardInterrupt):
        running.run()
    assert stages.written == [0, 1, 2, 3]
    assert running.report.segmented == 4


def test_a_full_disk_ends_a_run_with_one_line():
    full = OSError(errno.ENOSPC, "No space left on device", "out/3.png")
    stages, reads = Stages([(9, 9)] * 300), []
    read = stages.read
    stages.read = lambda job: reads.append(job) or read(job)

    def write():
        if len(stages.written) >= 3:
            raise full

    stages.on_write = write
    report = make(stages).run()
    assert (report.segmented, report.failed, len(report.stops)) == (3, 0, 1)
    assert "No space left on device: 'out/3.png': make room and run again" in report.stops[0]
    assert len(stages.together) < 15
    assert len(reads) < 20


def test_records_that_cannot_be_written_end_a_run():
    records = SimpleNamespace(add=lambda entry: raiser(OSError(errno.EIO, "broken"))())
    stages = Stages([(9, 9)] * 30)
    stages.write = lambda picture: setattr(picture, "entry", {"name": picture.job.name})
    report = make(stages, records=records).run()
    assert len(report.stops) == 1
    assert len(stages.together) < 15


def test_other_failures_cost_one_picture():
    stages = Stages([(9, 9)] * 9, on_write=count_to(2, raiser(OSError(errno.EIO, "broken"))))
    report = make(stages, workers=1).run()
    assert (report.segmented, report.failures) == (8, ["1.png: [Errno 5] broken"])


def pictures_of(*shapes):
    return [torch.randint(0, 256, (3, *shape), dtype=torch.uint8) for shape in shapes]


PROTOCOLS = {
    "plain": {},
    "flipped scales": {"flip": True, "scales": (0.5, 1.0), "average": "probabilities"},
    "fitted": {"fit": (64, 48), "antialias": True},
}


@pytest.mark.parametrize("name", PROTOCOLS)
def test_a_result_does_not_depend_on_the_others_of_its_batch(model, name):
    protocol = InferenceProtocol(**PROTOCOLS[name])
    images = pictures_of((33, 44), (33, 44), (33, 44))
    if name == "fitted":
        images[1] = pictures_of((66, 88))[0]  # seen at the same size
    together = model._segment_together(images, 3, protocol)
    assert [one.labels.shape for one in together] == [image.shape[1:] for image in images]
    for image, result in zip(images, together, strict=True):
        alone = model._segment_together([image], 3, protocol)
        assert alone == [result]
        single = model.predict(image, protocol)
        assert (single.labels == result.labels).float().mean() > 0.999
        assert (single.view_size, single.image.tolist()) == (result.view_size, image.tolist())


def test_batches_are_filled_up(model):
    seen = []
    with model.register_forward_pre_hook(lambda module, given: seen.append(len(given[0]))):
        model._segment_together(pictures_of((33, 44)), 3, InferenceProtocol())
    assert seen == [3]


def test_a_batch_is_no_larger_than_the_memory_limit(model):
    size, protocol = (512, 512), InferenceProtocol()
    sizes = [model._batch_size(size, protocol, limit, 64) for limit in (1e-6, 0.5, 1.0, 1000.0)]
    assert sizes[0] == 1
    assert 1 < sizes[1] < sizes[2] < sizes[3] == 64
    windows = InferenceProtocol("slide", crop=64)
    assert model._batch_size(size, windows, 1000.0, 64) == 1
