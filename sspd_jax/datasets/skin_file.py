"""The skin's traces of a prepared recording: recorded while it is decoded, and read back.

    data_dir/skin/subject1.npy   float64 [frames, columns], a row for each frame of the video

A NumPy file that `numpy.load` opens. Its rows are at the frames' own times, not on the dataset's clock: it is
what `predict` records of the same video, before anything is interpolated. What the columns are stands in the
index, beside the recording, under `skin`:

- `format`: Number of this layout, `FORMAT`.
- `file`, `bytes`: Its name in the data directory, and its size.
- `columns`: Name of a field of `video.skin_traces.SkinTraces` → how many columns it has, in their order.
- `fps`: Frame rate at which `predict` would read the video, Hz.
- `lag_s`, `said`: As in `SkinTraces`.
- `fallback`: '' where the face was followed by its landmarks; else why it was not.
- `network`: Of the waves that the network that ships with the package read in the skin, `file` and `bytes` as
  above, and `name` and `digest` of the network, see `HostModel`. Absent where it was not asked: where the
  landmarks are missing it has not learned, and an earlier version asked none.

    data_dir/skin/subject1.network.npz

One wave for each unbroken part of the recording that is long enough, in their order: `start_s` and `fps`,
float64 [n], time of the first sample in s and rate in Hz; `length`, int64 [n], its samples; `values`,
float32, the samples of all, one wave after the other; `network` and `digest`, as above.
"""

from __future__ import annotations

import io
import math
import tempfile
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from etils import epath

from sspd_jax.checkpoints import host_network
from sspd_jax.datasets.format import ELSEWHERE
from sspd_jax.errors import UserError
from sspd_jax.heart_rate.wave import Wave
from sspd_jax.runtime import storage
from sspd_jax.video import decode, resample
from sspd_jax.video.face_detection import FaceDetector
from sspd_jax.video.face_mesh import load_networks
from sspd_jax.video.face_track import TrackedFace
from sspd_jax.video.files import SUFFIXES
from sspd_jax.video.skin_traces import FIELDS, WIDTH, SkinRecorder, SkinTraces, as_traces

FORMAT = 1
FOLDER = "skin"
ROWS_HELD = 512  # 300 KB, so that memory does not grow with the video
MEASURED_FRAMES = 2000  # by whose times a rate is measured
RATE_OFF = 0.02  # what a file states is farther off than that from the times that its dataset gives
COLUMNS = {name: math.prod(shape) for name, shape in FIELDS.items()}


class SkinRecord(NamedTuple):
    """What was seen of the skin in a prepared recording.

    Attributes:
      traces: One sample a frame, at the frames' own times.
      fps: Frame rate at which `predict` would read the video, Hz.
      fallback: '' where the face was followed by its landmarks; else why it was not, in a sentence.
      learned: Waves that the network that ships with the package read, one for each part; none where it was
        not asked, or where another network was, see `why_not_learned`.
    """

    traces: SkinTraces
    fps: float
    fallback: str
    learned: tuple[Wave, ...] = ()


class SkinWriter:
    """Records the face in frames that pass through, and writes its traces aside; `commit` names the files.

    What the network sees is kept in a file without a name until the rate of the frames is known.
    """

    def __init__(self, data_dir: epath.Path, recording_id: str, video: Path, crop_size: int | None = None):
        """Load the face networks and open the file aside.

        Args:
          data_dir: Folder of the prepared dataset.
          recording_id: Id of the recording, a plain file name.
          video: File that the frames come from, if it is one.
          crop_size: Side of the pictures that `crops_beside` hands out, pixels; None for none.

        Raises:
          StorageError: The file cannot be opened.
        """
        networks, self.fallback = load_networks()
        self._network = None if self.fallback else host_network.shipped()
        of_network = [] if self._network is None else [self._network.crop_size]
        of_dataset = [] if crop_size is None else [crop_size]
        self._recorder = SkinRecorder(networks, crop_size=of_network + of_dataset)
        self._number = len(of_network)  # of the dataset's pictures
        self._video, self._times_s = video, []
        self._rows = 0
        self.path = data_dir / FOLDER / f"{recording_id}.npy"
        self._learned = data_dir / FOLDER / f"{recording_id}.network.npz"
        self._folder = None
        with storage.storing(self.path, ELSEWHERE):
            if storage.is_remote(self.path):
                self._folder = tempfile.TemporaryDirectory(prefix="sspd_jax-")
                self._aside = epath.Path(self._folder.name) / self.path.name
            else:
                self.path.parent.mkdir(exist_ok=True)
                self._aside = storage.aside(self.path)
            self._file = self._aside.open("wb")
            self._pictures = tempfile.TemporaryFile(dir=self._aside.parent)  # noqa: SIM115
            self._write_head()

    def __enter__(self) -> SkinWriter:
        return self

    def __exit__(self, *_: object) -> None:
        for file in (self._file, self._pictures):
            with suppress(OSError):
                file.close()
        with suppress(OSError):
            self._aside.unlink(missing_ok=True)
        if self._folder is not None:
            self._folder.cleanup()

    def watch(self, frames: Iterable[tuple[float, np.ndarray]]) -> Iterator[tuple[float, np.ndarray]]:
        """Pass frames on, (time in s, uint8 [h, w, 3] RGB), each recorded before it is passed."""
        for number, (time_s, rgb) in enumerate(frames, 1):
            self._recorder.see(time_s, rgb)
            if number <= MEASURED_FRAMES:
                self._times_s.append(time_s)
            if number % ROWS_HELD == 0:
                self._write(self._recorder.take())
            self._keep_pictures()
            yield time_s, rgb

    def face(self) -> FaceDetector:
        """Return a detector that finds the recorded face in the frame that was passed on last."""
        return TrackedFace(self._recorder.tracker)

    def crops_beside(self, frames: Iterable[object]) -> Iterator[tuple[float, np.ndarray]]:
        """Hand out pictures of the skin alone, (time in s, uint8 [crop_size, crop_size, 3] RGB).

        Args:
          frames: What makes the watched frames go by, one after the other.
        """
        return self._recorder.crops_beside(frames, self._number)

    def commit(self) -> dict[str, Any]:
        """Finish the file and give it its name.

        Returns:
          What stands in the index, see the module's docstring.

        Raises:
          StorageError: It cannot be written.
        """
        end = self._recorder.finish()
        self._write(self._recorder.take())
        fps = _rate_of(self._video, self._times_s)
        network = self._read_pictures(fps)
        with storage.storing(self.path, ELSEWHERE):
            self._file.seek(0)
            self._write_head()
            self._file.close()
            size = self._aside.stat().length
            if self._folder is None:
                self._aside.replace(self.path)
            else:
                self._aside.copy(self.path, overwrite=True)
        return {
            "format": FORMAT,
            "file": f"{FOLDER}/{self.path.name}",
            "bytes": size,
            "columns": COLUMNS,
            "fps": fps,
            "lag_s": end.lag_s,
            "said": [list(one) for one in end.said],
            "fallback": self.fallback,
            **network,
        }

    def _keep_pictures(self) -> None:
        if self._network is None:
            return
        with storage.storing(self._learned, ELSEWHERE):
            for time_s, picture in self._recorder.take_crops():
                self._pictures.write(np.float64(time_s).tobytes())
                self._pictures.write(picture.tobytes())

    def _kept_pictures(self, size: int) -> Iterator[tuple[float, np.ndarray]]:
        self._pictures.seek(0)
        while time := self._pictures.read(8):
            pixels = np.frombuffer(self._pictures.read(3 * size * size), np.uint8)
            yield float(np.frombuffer(time)[0]), pixels.reshape(size, size, 3)

    def _read_pictures(self, fps: float) -> dict[str, Any]:
        """Let the network read what was kept, and write its waves."""
        if self._network is None:
            return {}
        self._keep_pictures()  # those that the end of the recording brought
        waves = host_network.read(self._network, self._kept_pictures(self._network.crop_size), fps)
        packed = io.BytesIO()
        np.savez(
            packed,
            start_s=np.array([wave.start_s for wave in waves], "<f8"),
            fps=np.array([wave.fps for wave in waves], "<f8"),
            length=np.array([len(wave.values) for wave in waves], "<i8"),
            values=np.concatenate([np.zeros(0, "<f4"), *(wave.values for wave in waves)]).astype("<f4"),
            network=self._network.name,
            digest=self._network.digest,
        )
        storage.write_bytes(self._learned, packed.getvalue(), otherwise=ELSEWHERE)
        network = {
            "file": f"{FOLDER}/{self._learned.name}",
            "bytes": packed.tell(),
            "name": self._network.name,
            "digest": self._network.digest,
        }
        return {"network": network}

    def _write_head(self) -> None:
        # NumPy leaves room in it for the number of rows to grow.
        head = {"descr": "<f8", "fortran_order": False, "shape": (self._rows, WIDTH)}
        np.lib.format.write_array_header_1_0(self._file, head)

    def _write(self, rows: np.ndarray) -> None:
        with storage.storing(self.path, ELSEWHERE):
            self._file.write(rows.astype("<f8").tobytes())
        self._rows += len(rows)


def _rate_of(video: Path, times_s: list[float]) -> float:
    """Return the rate at which `predict` reads a video: what its file states, if its times agree."""
    measured = round(resample.native_rate(np.array(times_s)).fps, 3)
    stated = measured  # pictures, arrays of MATLAB, frames made in memory
    if video.suffix.lower() in SUFFIXES:
        with suppress(UserError, OSError):
            stated = decode.reading_rate(video)
    if abs(stated / min(measured, decode.MOST_READING_FPS) - 1) > RATE_OFF:
        stated = measured  # the dataset's own times are other ones
    return min(stated, decode.MOST_READING_FPS)


def is_whole(data_dir: epath.Path, facts: Mapping[str, Any]) -> bool:
    """Return whether the files that a recording's facts speak of are there, as long as they say."""
    files = [facts, facts["network"]] if "network" in facts else [facts]
    try:
        return all((data_dir / file["file"]).stat().length == file["bytes"] for file in files)
    except OSError:
        return False


def is_known(facts: Mapping[str, Any] | None) -> bool:
    """Return whether a recording has traces, and in the layout of this version."""
    if not isinstance(facts, Mapping) or not isinstance(facts.get("columns"), Mapping):
        return False
    return facts.get("format") == FORMAT and list(facts["columns"].items()) == list(COLUMNS.items())


def why_not_learned(facts: Mapping[str, Any]) -> str:
    """Return why `auto` has no network's wave of a recording, where `predict` has one; '' where it has."""
    network, today = facts.get("network"), host_network.shipped()
    if facts.get("fallback") or (network and network.get("digest") == today.digest):
        return ""
    if network:
        name = network.get("name", today.name)
        return f"it was prepared with another network than today's ({name}); prepare again to have it"
    return "an earlier version prepared it, without a network; prepare again to have one"


def read(data_dir: epath.Path, facts: Mapping[str, Any]) -> SkinRecord | None:
    """Read the skin's traces of a recording.

    Args:
      data_dir: Folder of the prepared dataset.
      facts: What `SkinWriter.commit` returned.

    Returns:
      The record; None where it is of another version's layout.

    Raises:
      UserError: The file is missing or damaged.
    """
    if not is_known(facts):
        return None
    try:
        path = data_dir / facts["file"]
        fps, lag_s, fallback = float(facts["fps"]), float(facts["lag_s"]), facts["fallback"]
        said = tuple((float(time_s), sentence) for time_s, sentence in facts["said"])
        if not (0 < fps <= decode.MOST_READING_FPS and 0 <= lag_s < math.inf):
            raise ValueError("no rate at which anything is read")
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise UserError(f"{data_dir}: its index is damaged; delete it and prepare again") from error
    try:
        with path.open("rb") as file:
            table = np.load(file, allow_pickle=False)
    except FileNotFoundError as error:
        raise UserError(f"{path}: is missing; prepare again, the others stay") from error
    except (OSError, ValueError, EOFError) as error:
        raise _damaged(path) from error
    if table.ndim != 2 or table.shape[1] != WIDTH or table.dtype != np.float64:
        raise _damaged(path)
    # Times that run anywhere would ask for a clock that is longer than any memory.
    if not (np.isfinite(table[:, 0]).all() and (np.diff(table[:, 0]) > 0).all()):
        raise _damaged(path)
    learned = ()
    if facts.get("network") and not why_not_learned(facts):
        learned = _read_learned(data_dir / facts["network"]["file"])
    return SkinRecord(as_traces(table, lag_s=lag_s, said=said), fps, fallback, learned)


def _read_learned(path: epath.Path) -> tuple[Wave, ...]:
    try:
        kept = np.load(io.BytesIO(path.read_bytes()), allow_pickle=False)
        parts = np.split(kept["values"], np.cumsum(kept["length"]))
        if len(parts.pop()):
            raise ValueError("there are more values than waves")
        return tuple(
            Wave(values, float(fps), float(start_s))
            for values, fps, start_s in zip(parts, kept["fps"], kept["start_s"], strict=True)
        )
    except FileNotFoundError as error:
        raise UserError(f"{path}: is missing; prepare again, the others stay") from error
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise _damaged(path) from error


def _damaged(path: epath.Path) -> UserError:
    return UserError(f"{path}: is damaged; delete it and prepare again, the others stay")
