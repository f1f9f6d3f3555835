"""The files of a dataset, read and checked for its reader: videos, texts, tables, waves.

Whatever is wrong with one is a `UserError` whose one sentence names the file and the remedy.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import av
import numpy as np

from sspd_jax.datasets.recording import Broken, Ppg, Recording
from sspd_jax.errors import UserError
from sspd_jax.video import decode
from sspd_jax.video.files import SUFFIXES

COPY_IT = "copy the recording again from the dataset, or remove it"
LOOSE_END = 30  # frames by which a video and its text may differ: about a second, at the end
LEAST_VALUES = 30  # of a wave
SPANS = (0.8, 1.25)  # how long a wave may be, as a share of its video: a wrong rate is further off
LEAST_COMMON_S = 4.0  # of a wave with its own times and its video
NOTED_S = 1.0  # what a wave lacks at either end beyond that is noted
MOST_LOST = 0.5  # share of a wave's values that may be missing
EARLY_END = 0.1  # share of a video that may be missing at its end, and
EARLY_END_S = 2.0  # s, whichever is longer
SAME_TIME_S = 1e-4  # between a packet's time and its picture's: no camera is that fast

Item = TypeVar("Item")


def find_folder(source: str | os.PathLike, get_it: str) -> Path:
    """Return the dataset's folder as a path.

    Args:
      source: Folder that the user gives.
      get_it: What to do if it is not there, for messages.

    Raises:
      UserError: There is no such folder, or it cannot be read.

    Example:
      >>> find_folder("nowhere", "name the folder of the dataset")
      Traceback (most recent call last):
      sspd_jax.errors.UserError: nowhere: no such folder; name the folder of the dataset
    """
    source = Path(source)
    try:
        next(source.iterdir(), None)
    except NotADirectoryError as error:
        raise UserError(f"{source}: is a file, not the dataset's folder; {get_it}") from error
    except FileNotFoundError as error:
        raise UserError(f"{source}: no such folder; {get_it}") from error
    except OSError as error:
        raise UserError(f"{source}: cannot be read ({error.strerror.lower()}); {get_it}") from error
    return source


def list_each(
    items: Iterable[tuple[str, Item]], read: Callable[[str, Item], Recording]
) -> list[Recording | Broken]:
    """Read every recording; one that cannot be read is broken and does not hide the others.

    Args:
      items: Id of every recording, and what `read` needs to find it.
      read: Makes the recording, or raises UserError.

    Example:
      >>> def read(recording_id, number):
      ...     if number > 1:
      ...         raise UserError(f"{recording_id}.avi: missing; {COPY_IT}")
      ...     return Recording(recording_id, "anna", iter, None, Path(f"{recording_id}.avi"))
      >>> [type(listed).__name__ for listed in list_each([("visit1", 1), ("visit2", 2)], read)]
      ['Recording', 'Broken']
    """
    listed: list[Recording | Broken] = []
    for recording_id, item in items:
        try:
            listed.append(read(recording_id, item))
        except UserError as error:
            listed.append(Broken(recording_id, str(error)))
        except OSError as error:  # a link that leads to itself, a disk that fails
            where = error.filename or item
            reason = (error.strerror or str(error)).lower()
            listed.append(Broken(recording_id, f"{where}: cannot be read ({reason}); {COPY_IT}"))
        except Exception as error:  # what damage makes of a file no list foresees; the others are whole
            where = next((part for part in (item, *_parts(item)) if isinstance(part, Path)), recording_id)
            reason = " ".join(str(error).split())[:200] or "no further detail"
            listed.append(
                Broken(recording_id, f"{where}: is damaged ({type(error).__name__}: {reason}); {COPY_IT}")
            )
    return listed


def _parts(item: object) -> tuple[object, ...]:
    return tuple(item) if isinstance(item, tuple | list) else ()


# Texts and tables.


def read_text(path: Path, remedy: str = COPY_IT) -> str:
    """Read a text in UTF-8.

    Raises:
      UserError: It is missing, is no text, or cannot be read.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise UserError(f"{path}: missing; {remedy}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read as text; {remedy}") from error


def read_table(path: Path, columns: tuple[str, ...], remedy: str = COPY_IT) -> dict[str, np.ndarray]:
    """Read columns of a CSV file by the names in its first line.

    Args:
      path: Path of the file.
      columns: Columns to read; others are passed over.
      remedy: What to do if it cannot be read, for messages.

    Returns:
      Column → float64 [rows]; an empty cell is NaN.

    Raises:
      UserError: It cannot be read, lacks a column, or holds something that is no number.
    """
    rows = list(csv.reader(io.StringIO(read_text(path, remedy))))
    rows = [row for row in rows if any(cell.strip() for cell in row)]
    names = [cell.strip() for cell in rows[0]] if rows else []
    for column in columns:
        if column not in names:
            found = ", ".join(names[:5]) or "nothing"
            raise UserError(f"{path}: has no column {column} in its first line (found: {found}); {remedy}")
    places = [names.index(column) for column in columns]
    return dict(zip(columns, _numbers(path, rows[1:], places, 2, remedy), strict=True))


def read_columns(path: Path, count: int) -> list[np.ndarray]:
    r"""Read a CSV file that has no names: its first `count` columns, float64 [rows] each.

    Raises:
      UserError: It cannot be read, has fewer columns, or holds something that is no number.

    Example:
      >>> import tempfile
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     path = Path(folder) / "wave.csv"
      ...     _ = path.write_text("0.0, 61\n0.1, 64\n")
      ...     [column.tolist() for column in read_columns(path, 2)]
      [[0.0, 0.1], [61.0, 64.0]]
    """
    rows = [row for row in csv.reader(io.StringIO(read_text(path))) if any(cell.strip() for cell in row)]
    return _numbers(path, rows, range(count), 1, COPY_IT)


def _numbers(path, rows, places, first_line, remedy) -> list[np.ndarray]:
    values = np.empty((len(list(places)), len(rows)))
    for line, row in enumerate(rows):
        for column, place in enumerate(places):
            cell = row[place].strip() if place < len(row) else None
            try:
                if cell is None:
                    raise ValueError("a value is missing")
                values[column, line] = float(cell) if cell else np.nan
            except ValueError as error:
                raise UserError(
                    f"{path}: line {line + first_line} holds something that is no number ({error}); {remedy}"
                ) from error
    return list(values)


# Waves.


def check_ppg(
    file: Path,
    times_s: np.ndarray,
    values: np.ndarray,
    remedy: str = COPY_IT,
    where: str = "the wave",
    notes: list[str] | None = None,
) -> Ppg:
    """Check a contact pulse wave and its times.

    Args:
      file: File that it is from, for messages.
      times_s: Times since the video's first frame, s, [m].
      values: Values, [m].
      remedy: What to do, for messages.
      where: Name of the wave in the file, for messages.
      notes: To which a sentence on missing values is added; None where none may be missing.

    Returns:
      The wave, float64; values that are missing (NaN) are left out of it.

    Raises:
      UserError: There are too few values, more than half are missing, one is infinite, or the times do not
        increase.

    Example:
      >>> check_ppg(Path("wave.csv"), np.arange(40) / 20, np.ones(40)).times_s[-1]
      np.float64(1.95)
      >>> check_ppg(Path("wave.csv"), [0.0, 0.1], [1.0, 2.0])
      Traceback (most recent call last):
      sspd_jax.errors.UserError: wave.csv: the wave has 2 values, too few for a pulse; ...
    """
    times_s, values = np.asarray(times_s, np.float64).ravel(), np.asarray(values, np.float64).ravel()
    if len(values) != len(times_s):
        raise UserError(f"{file}: {where} has {len(values)} values at {len(times_s)} times; {remedy}")
    if len(values) < LEAST_VALUES:
        raise UserError(f"{file}: {where} has {len(values)} values, too few for a pulse; {remedy}")
    lost = np.isnan(values)
    with_holes = notes is not None and lost.sum() <= MOST_LOST * len(values)
    for name, line in ((where, values), ("its time", times_s)):
        bad = np.flatnonzero(~np.isfinite(line) & ~(lost & with_holes & (name == where)))
        if len(bad):
            raise UserError(
                f"{file}: value {bad[0] + 1} of {name} is {line[bad[0]]:g}, and {len(bad)} in all are not "
                f"finite; {remedy}"
            )
    back = np.flatnonzero(np.diff(times_s) <= 0)
    if len(back):
        raise UserError(
            f"{file}: the times of {where} do not increase (value {back[0] + 2}: "
            f"{times_s[back[0] + 1]:.10g} s after {times_s[back[0]]:.10g} s); {remedy}"
        )
    if lost.any():
        notes.append(f"{lost.sum()} of {len(values)} values of {where} are missing in {file.name}")
    return Ppg(times_s[~lost], values[~lost])


def evenly(values: np.ndarray, rate_hz: float) -> np.ndarray:
    """Return the times of values at a constant rate, float64 [m], s, from 0 on.

    Example:
      >>> evenly(np.ones(3), 60.0).tolist() == [0, 1 / 60, 2 / 60]
      True
    """
    return np.arange(len(np.ravel(values))) / rate_hz


def check_clocked(
    file: Path,
    times_s: np.ndarray,
    video: Path,
    video_s: float | None,
    notes: list[str],
    remedy: str = COPY_IT,
) -> None:
    """Check a wave that has times of its own: it may begin late and end early, and is noted where it does.

    Args:
      file: File of the wave.
      times_s: Its times, s since the video's first frame.
      video: File of the video.
      video_s: Length of the video, s; None if the file does not have it.
      notes: To which a sentence is added where the wave lacks more than a second of the video.
      remedy: What to do, for messages.

    Raises:
      UserError: The wave is much longer than the video, or they have less than a second in common.
    """
    if not video_s:
        return
    common_s = min(times_s[-1], video_s) - max(times_s[0], 0.0)
    if times_s[-1] - times_s[0] > SPANS[1] * video_s or common_s < min(LEAST_COMMON_S, SPANS[0] * video_s):
        raise UserError(
            f"{file}: its wave lasts {times_s[-1] - times_s[0]:.1f} s, from {times_s[0]:.1f} s on, and "
            f"{video.name} {video_s:.1f} s: one is cut off, or the times are not seconds since the first "
            f"frame; {remedy}"
        )
    if times_s[0] > NOTED_S or times_s[-1] < video_s - NOTED_S:
        notes.append(
            f"the contact pulse wave covers {max(times_s[0], 0.0):.1f}–{min(times_s[-1], video_s):.1f} s of "
            f"{video_s:.1f} s: only those are tested on"
        )


def check_span(file: Path, wave_s: float, video: Path, video_s: float | None, remedy: str = COPY_IT) -> None:
    """Check that a wave lasts about as long as its video: a wrong rate or a cut-off file shows here.

    For waves whose rate is assumed; `check_clocked` is for those with times of their own.

    Args:
      file: File of the wave.
      wave_s: Length of the wave, s.
      video: File of the video.
      video_s: Length of the video, s; None if the file does not have it.
      remedy: What to do, for messages.

    Raises:
      UserError: It does not.

    Example:
      >>> check_span(Path("wave.csv"), 60.0, Path("video.avi"), 59.0)
      >>> check_span(Path("wave.csv"), 60.0, Path("video.avi"), 30.0)
      Traceback (most recent call last):
      sspd_jax.errors.UserError: wave.csv: its wave lasts 60.0 s and video.avi 30.0 s: one is cut off, ...
    """
    if video_s and not SPANS[0] <= wave_s / video_s <= SPANS[1]:
        raise UserError(
            f"{file}: its wave lasts {wave_s:.1f} s and {video.name} {video_s:.1f} s: one is cut off, or has "
            f"another rate than the dataset's; {remedy}"
        )


def by_second(times_s: np.ndarray, values: np.ndarray) -> list[float | None]:
    """Average what a device says, second by second, to be kept in `Recording.meta`.

    Args:
      times_s: Times, s, [m].
      values: Values, [m]; those that are not finite do not count.

    Returns:
      One number for every second from 0 to the last time, None where there is none.
    """
    second = np.floor(np.asarray(times_s, np.float64)).astype(int)
    values = np.asarray(values, np.float64)
    keep = np.isfinite(values) & (second >= 0)
    length = int(second.max()) + 1 if len(second) else 0
    total = np.bincount(second[keep], values[keep], length)
    count = np.bincount(second[keep], minlength=length)
    return [round(float(t / n), 3) if n else None for t, n in zip(total, count, strict=True)]


# Videos.


def find_video(folder: Path, stem: str) -> Path:
    """Find a dataset's video, `stem`.avi as its owner gives it away, or another container of that name.

    Args:
      folder: Folder that holds it.
      stem: Name of the file without the suffix.

    Returns:
      Its path; where there is none, the path that it should have.

    Raises:
      UserError: There are several, and none is an AVI file.
    """
    right = folder / f"{stem}.avi"
    if os.path.lexists(right) or not folder.is_dir():
        return right
    found = sorted(p for p in folder.iterdir() if p.stem == stem and p.suffix.lower() in SUFFIXES)
    if len(found) > 1:
        names = ", ".join(path.name for path in found)
        raise UserError(f"{folder}: holds more than one video of the same name ({names}); keep one")
    return found[0] if found else right


def look_into(video: Path, remedy: str = COPY_IT) -> decode.Video:
    """Read a video's facts and one frame of it.

    Raises:
      UserError: It is missing, or is no video.

    Example:
      >>> look_into(Path("nowhere.avi"))
      Traceback (most recent call last):
      sspd_jax.errors.UserError: nowhere.avi: missing; copy the recording again from the dataset, or remove it
    """
    if not os.path.lexists(video):
        raise UserError(f"{video}: missing; {remedy}")
    try:
        facts = decode.read_facts(video)
    except UserError as error:
        # The video's own remedies (record it again) are not for a dataset.
        raise UserError(f"{str(error).partition(';')[0]}; {remedy}") from error
    return facts


def require_whole(video: Path, remedy: str = COPY_IT) -> None:
    """Check that an AVI file is as long as it says.

    Raises:
      UserError: It is shorter.
    """
    if not is_whole(video):
        raise UserError(f"{video}: breaks off before its end; {remedy}")


def is_whole(video: Path) -> bool:
    """Tell whether an AVI file is as long as its first chunk says; true of what is no AVI file."""
    with video.open("rb") as file:
        head = file.read(8)
    stated = int.from_bytes(head[4:8], "little")
    return head[:4] != b"RIFF" or stated + 8 <= video.stat().st_size


def picture_count(video: Path, expected: int | None = None) -> int | None:
    """Return how many pictures a file holds, None if it does not say.

    They are counted, without decoding them, only on suspicion: where the file is shorter than it says, or
    says another number than is expected.
    """
    with decode.open_media(video) as container:
        stream = container.streams.video[0]
        stated = stream.frames or None
        plausible = expected is None or stated is None or abs(stated - expected) <= LOOSE_END
        if is_whole(video) and plausible and not (expected is None and stated is None):
            return stated
        try:
            return sum(packet.size > 0 for packet in container.demux(stream))
        except av.FFmpegError:
            return None  # reading the frames will tell


def does_not_fit(video: Path, pictures: int | str, text: str, values: int, remedy: str) -> UserError:
    """Say that a video and the text beside it have not equally many frames."""
    return UserError(f"{video}: has {pictures} frames where {text} has {values} values; {remedy}")


def numbered_frames(
    video: Path,
    times_s: np.ndarray,
    stated_fps: float | None,
    text: str,
    remedy: str = COPY_IT,
    *,
    text_ends_early: bool = False,
) -> Iterator[tuple[float, np.ndarray]]:
    """Decode a video with the times of the text beside it.

    Frame and time belong together by the frame's number: one that cannot be decoded and is skipped must not
    shift those after it. An AVI file's own clock counts pictures; any other container may have uneven times,
    and the number is then the place of the frame's time among those of all the file's pictures.

    Args:
      video: Video to decode.
      times_s: Times of the frames, s, [frames].
      stated_fps: Frame rate in the file's header, Hz, or None.
      text: Name of the file with the times, for messages.
      remedy: What to do, for messages.
      text_ends_early: Frames beyond the last time are left out, however many there are.

    Yields:
      Time in s and uint8 [h, w, 3] RGB.

    Raises:
      UserError: There are more or fewer frames than times; it is raised at the end.
    """
    number = -1
    stored_s = None if video.suffix.lower() == ".avi" else _picture_times(video)
    for order, (file_s, rgb) in enumerate(decode.frames(video)):
        if stored_s is not None:
            counted = int(np.searchsorted(stored_s, file_s - SAME_TIME_S))
        else:
            counted = order if stated_fps is None else round(file_s * stated_fps)
        number = max(number + 1, counted)
        if number >= len(times_s):
            if text_ends_early:
                return
            if number >= len(times_s) + LOOSE_END:
                raise does_not_fit(video, f"more than {number}", text, len(times_s), remedy)
            continue
        yield float(times_s[number]), rgb
    if number + 1 < len(times_s) - LOOSE_END:
        raise does_not_fit(video, number + 1, text, len(times_s), remedy)


def _picture_times(video: Path) -> np.ndarray | None:
    """Read the times of all pictures undecoded: float64 [n], s after the first; None where it has none."""
    times_s = []
    with decode.open_media(video) as container:
        try:
            for packet in container.demux(container.streams.video[0]):
                if packet.size and packet.pts is None:
                    return None
                if packet.size:
                    times_s.append(float(packet.pts * packet.time_base))
        except av.FFmpegError:
            pass  # reading the frames will tell
    stored_s = np.sort(times_s)  # they are stored in the order of decoding
    return stored_s - stored_s[0] if len(stored_s) else None


def timed_frames(
    video: Path, duration_s: float | None, remedy: str = COPY_IT
) -> Iterator[tuple[float, np.ndarray]]:
    """Decode a video with its own times.

    Args:
      video: Video to decode.
      duration_s: Length in the file's header, s, or None.
      remedy: What to do, for messages.

    Yields:
      Time in s and uint8 [h, w, 3] RGB.

    Raises:
      UserError: The file breaks off before the end that its header has; it is raised at the end.

    Example:
      Half a second of a simulated face:

      >>> import tempfile
      >>> from sspd_jax.simulation import sample_video
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     video = Path(folder) / "video.mp4"
      ...     sample_video.write_face_video(video, seconds=0.5, fps=10)
      ...     [round(time_s, 1) for time_s, _ in timed_frames(video, 0.5)]
      [0.0, 0.1, 0.2, 0.3, 0.4]
    """
    damage = decode.Damage()
    last_s = 0.0
    for last_s, rgb in decode.frames(video, damage):
        yield last_s, rgb
    short_s = (duration_s or 0.0) - last_s
    if damage.cut_off or short_s > max(EARLY_END_S, EARLY_END * (duration_s or 0.0)):
        header = f" where its header says {duration_s:.1f} s" if duration_s else ""
        raise UserError(f"{video}: breaks off at {last_s:.1f} s{header}; {remedy}")


def tell_json(value: Any) -> Any:
    """Turn a value out of a data file (NumPy, bytes) into JSON's types, for `Recording.meta`."""
    value = np.asarray(value)
    if value.dtype.kind in "SO":
        value = np.array([v.decode(errors="replace") if isinstance(v, bytes) else str(v) for v in value.flat])
    return value.item() if value.size == 1 else value.ravel().tolist()
