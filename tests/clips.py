"""Short films for tests, and a network that finds the same everywhere."""

import struct
from fractions import Fraction

import numpy as np
import pytest
import torch

from ccnet.classes import LabelSet
from ccnet.inference import Segmentation

av = pytest.importorskip("av", reason="needs the extra video")

GREEN = LabelSet(("all",), ((0, 200, 0),))
STEADY = [40 * index for index in range(10)]
UNEVEN = [0, 40, 80, 200, 500, 520, 530, 900, 1000, 1600]
MILLISECONDS = Fraction(1, 1000)


class Network:
    """Finds that a picture is all of one class."""

    def __init__(self, interrupted_at=None):
        self.seen, self.interrupted_at = [], interrupted_at

    def predict(self, image, protocol=None, *, memory_limit):
        if len(self.seen) == self.interrupted_at:
            raise KeyboardInterrupt
        self.seen.append(image)
        image = torch.from_numpy(image).movedim(-1, 0)
        return Segmentation(torch.zeros(image.shape[1:], dtype=torch.uint8), GREEN, image)


def picture(index, height, width):
    """Ever lighter grey with a white upper left corner."""
    pixels = np.full((height, width, 3), min(255, 20 * index), np.uint8)
    pixels[: height // 3, : width // 3] = 255
    return pixels


def four_corners(_, height, width):
    """Quarters in red, green, blue and black."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[: height // 2, : width // 2, 0] = 255
    pixels[: height // 2, width // 2 :, 1] = 255
    pixels[height // 2 :, : width // 2, 2] = 255
    return pixels


def corners_of(pixels):
    """The colours of the corners of what `four_corners` draws, row by row."""
    names = {0: "K", 4: "R", 2: "G", 1: "B"}
    corners = [pixels[3, 3], pixels[3, -4], pixels[-4, 3], pixels[-4, -4]]
    return "".join(names[int((corner > 128) @ [4, 2, 1])] for corner in corners)


def record(path, times=STEADY, size=(36, 48), sound=None, aspect=None, drawn=picture):
    codec = "vp9" if path.suffix == ".webm" else "h264"
    with av.open(str(path), "w") as file:
        stream = file.add_stream(codec, rate=25)
        stream.height, stream.width = size[0] + size[0] % 2, size[1] + size[1] % 2
        stream.pix_fmt, stream.codec_context.time_base = "yuv420p", MILLISECONDS
        if any(side % 2 for side in size):  # as screen recorders write them
            stream.height, stream.width, stream.pix_fmt = *size, "yuv444p"
        if aspect:
            stream.codec_context.sample_aspect_ratio = aspect
        track = file.add_stream(sound, rate=48000, layout="stereo") if sound else None
        for index, time in enumerate(times):
            frame = av.VideoFrame.from_ndarray(drawn(index, *size), format="rgb24")
            frame.pts, frame.time_base = time, MILLISECONDS
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
        if track:
            kind = track.codec_context.format.name
            shape = (2, 19200) if kind.endswith("p") else (1, 2 * 19200)
            wave = np.zeros(shape, np.float32 if "flt" in kind else np.int16)
            heard = av.AudioFrame.from_ndarray(wave, format=kind, layout="stereo")
            heard.sample_rate, heard.pts = 48000, 0
            file.mux(track.encode(heard))
            file.mux(track.encode(None))
    return path


def record_sound(path):
    with av.open(str(path), "w") as file:
        track = file.add_stream("aac", rate=44100)
        heard = av.AudioFrame.from_ndarray(np.zeros((1, 9999), np.float32), "fltp", "mono")
        heard.sample_rate, heard.pts = 44100, 0
        file.mux(track.encode(heard))
        file.mux(track.encode(None))


def turn(path, matrix):
    """Writes a display matrix (a, b, c, d) into an MP4 file's track header."""
    content = bytearray(path.read_bytes())
    start = content.index(b"tkhd") + 44
    a, b, c, d = (65536 * one for one in matrix)
    content[start : start + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(content)


def read(path):
    """Pictures (H, W, 3), and their times in milliseconds."""
    with av.open(str(path)) as file:
        frames = list(file.decode(video=0))
        times = [round(1000 * frame.pts * frame.time_base) for frame in frames]
        return [frame.to_ndarray(format="rgb24").astype(int) for frame in frames], times


def sound_of(path):
    """The packets of the sound, and their times in milliseconds."""
    with av.open(str(path)) as file:
        found = [one for one in file.demux(audio=0) if one.size] if file.streams.audio else []
        return [bytes(one) for one in found], [
            round(1000 * one.pts * one.time_base) for one in found
        ]
