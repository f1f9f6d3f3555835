"""Pictures and files as programs hold them: one stream comes of all; what cannot be meant is a sentence."""

import io

import numpy as np
import PIL.Image
import pytest

from sspd_jax.errors import ConfigError, UserError
from sspd_jax.video import inputs

PICTURES = np.random.default_rng(0).integers(0, 256, (5, 6, 8, 3), np.uint8)
PICTURES[0] = 0  # black first: what is white shows later


def taken(video, fps=10.0):
    return list(inputs.timed_pictures(video, fps))


def numbered(video):
    return ((number / 10, picture) for number, picture in enumerate(video))


@pytest.mark.parametrize(
    "video",
    [
        PICTURES,
        list(PICTURES),
        tuple(PICTURES),
        (picture for picture in PICTURES),
        numbered(PICTURES),
        [list(pair) for pair in numbered(PICTURES)],
        PICTURES.tolist(),
        [PIL.Image.fromarray(picture) for picture in PICTURES],
        PICTURES.astype(np.int64),
        PICTURES.astype(np.float64),
        (PICTURES / 255).astype(np.float32),
        PICTURES.astype(np.uint16) * 257,
        PICTURES.transpose(0, 3, 1, 2),
        np.concatenate([PICTURES, PICTURES[..., :1]], -1),
        memoryview(PICTURES),
    ],
)
def test_every_kind_of_pictures_comes_out_the_same(video):
    assert not inputs.is_file(video)
    times_s, pictures = zip(*taken(video), strict=True)
    assert times_s == (0, 0.1, 0.2, 0.3, 0.4)
    np.testing.assert_array_equal(np.stack(pictures), PICTURES)
    assert {picture.dtype for picture in pictures} == {np.dtype(np.uint8)}


@pytest.mark.parametrize(
    ("video", "words"),
    [
        (PICTURES[0], r"is one picture, uint8 \[6, 8, 3\]; give all of them"),
        (PICTURES[..., 0], r"the video is uint8 \[5, 6, 8\]; give \[t, h, w, 3\]"),
        (list(PICTURES[..., 0]), r"picture 0 is uint8 \[6, 8\]: it has no colours"),
        (PICTURES > 9, "picture 0 is bool"),
        (PICTURES.astype(np.int64) - 1, "picture 0 is int64 .* from -1 to -1, not 0 to 255"),
        (PICTURES / 127.5 - 1, "from -1 to -1, not 0 to 255"),
        (PICTURES.astype(np.uint16) * 4, "up to 10.., and what is white is not known"),
        (np.where(PICTURES > 250, np.nan, 1.0), "from nan to nan"),
        (
            [PICTURES[0], PICTURES[1, :4]],
            "picture 1 has 8 × 4 pixels, the first 8 × 6; make them equally large",
        ),
        ([(0.0, PICTURES[0]), (0.0, PICTURES[1])], "picture 1 is of 0 s, the one before of 0;"),
        ([[[1, 2], [3]]], "picture 0 is no array"),
        ([], "holds no picture"),
        ([b"a", b"b"], "is a list of files"),
        ({"a": 1}, "a video cannot be dict"),
        (3, "a video cannot be int"),
    ],
)
def test_what_is_no_picture_is_one_sentence(video, words):
    with pytest.raises(ConfigError, match=words) as caught:
        taken(video)
    assert len(str(caught.value).splitlines()) == 1


def test_a_stream_is_taken_one_by_one_and_closed():
    seen = []

    def stream():
        try:
            for picture in PICTURES:
                seen.append(len(seen))
                yield picture
        finally:
            seen.append("closed")

    frames = inputs.timed_pictures(stream(), 10)
    next(frames)
    assert seen == [0]
    frames.close()
    assert seen == [0, "closed"]


class Upload:
    """As Starlette has it: `read` is a coroutine, the file lies inside."""

    filename = "C:/videos/me.avi"

    def __init__(self, content):
        self.file = io.BytesIO(content)

    async def read(self):
        raise AssertionError


@pytest.mark.parametrize(
    ("video", "name"),
    [
        (b"content", "the upload"),
        (bytearray(b"content"), "the upload"),
        (memoryview(b"content"), "the upload"),
        (io.BytesIO(b"content"), "the upload"),
        (Upload(b"content"), "me.avi"),
    ],
)
def test_a_file_of_any_kind_has_a_path_for_a_while(video, name):
    assert inputs.is_file(video)
    with inputs.as_path(video) as (path, called):
        assert path.read_bytes() == b"content" and called == name
        assert name == "the upload" or path.suffix == ".avi"
    assert not path.exists()


def test_an_open_file_keeps_its_name_and_goes_on_from_where_it_stands(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"xcontent")
    with (tmp_path / "a.mp4").open("rb") as file:
        file.read(1)
        with inputs.as_path(file) as (path, name):
            assert (path.read_bytes(), name) == (b"content", "a.mp4")
        with pytest.raises(UserError, match=r"a.mp4: has no byte left .* \.seek\(0\)"), inputs.as_path(file):
            pass


def test_messages_know_an_upload_by_its_name():
    with pytest.raises(ConfigError) as caught, inputs.as_path(Upload(b"content")) as (path, _):
        raise ConfigError(f"{path}: is no good")
    assert str(caught.value) == "me.avi: is no good"


@pytest.mark.parametrize(
    ("colour", "swapped"), [((180, 120, 90), False), ((90, 120, 180), True), ((100, 100, 105), False)]
)
def test_blue_skin_may_be_exchanged_channels(colour, swapped):
    colours = np.array([colour, (np.nan,) * 3], float)
    assert inputs.looks_swapped(colours) == swapped
    assert not inputs.looks_swapped(colours[1:])
