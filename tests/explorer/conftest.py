"""An explorer of a small random network and small pictures, and its server."""

import threading
from contextlib import contextmanager

import numpy as np
import pytest
from PIL import Image

from ccnet.explorer import Explorer, serve

SIZES = ((33, 49), (48, 40))


@pytest.fixture(scope="module")
def picture_paths(tmp_path_factory):
    """Two random pictures as files."""
    folder, noise = tmp_path_factory.mktemp("pictures"), np.random.default_rng(7)
    paths = [folder / "lying.png", folder / "standing.png"]
    for path, size in zip(paths, SIZES, strict=True):
        Image.fromarray(noise.integers(0, 256, (*size, 3), dtype=np.uint8)).save(path)
    return paths


@pytest.fixture(scope="module")
def weights(weights_file):
    return str(weights_file)


@pytest.fixture(scope="module")
def explorer(picture_paths, weights):
    return Explorer(picture_paths, weights)


@pytest.fixture(scope="session")
def serving():
    """Runs a server in a thread inside a `with` block, which gets its address."""

    @contextmanager
    def run(explorer, **options):
        with serve(explorer, **options) as server:
            thread = threading.Thread(target=server.serve_forever, args=(0.01,))
            thread.start()
            try:
                yield server
            finally:
                server.shutdown()
                thread.join()

    return run
