"""Recordings made of people's own footage: with a known pulse, or with none and something else that beats.

They lie on disk as UBFC-rPPG's DATASET_2, each with a sheet that says what was done: `footage.json`. The
clip's sound is left out.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sspd_jax.errors import ConfigError
from sspd_jax.heart_rate import filters
from sspd_jax.simulation import footage as footages
from sspd_jax.simulation import known_pulse, own_pulse, pulse_free, sample_video
from sspd_jax.simulation.footage import Footage
from sspd_jax.simulation.recordings import appearing, check_run, film_missing, write_truth
from sspd_jax.video import decode, skin_traces
from sspd_jax.video.face_mesh import FaceNetworks, load_networks

VERSION = 1  # of the drawing: raise it whenever the same clip and seed give other recordings
SHEET = "footage.json"
LEAST_SECONDS, MOST_SECONDS = 4.0, 3600.0
LEAST_KBPS, MOST_KBPS = 50, 50_000
CRF = 23
OWN_REACH = 2.0  # the clip's own pulse beats in the skin's soft edge, too
MEASURED_HZ = (0.6, 4.5)  # of a pulse and its second harmonic
FPS = 30.0  # of the clock on which strengths are measured, Hz
ALL_KINDS = "all"


@dataclasses.dataclass(frozen=True)
class Codec:
    """How pictures are encoded.

    Attributes:
      encoder: FFmpeg's name of it.
      suffix: Of the container.
      options: Always given, by FFmpeg's names.
      crf: Largest constant rate factor; 0 where there is none to be chosen.
    """

    encoder: str
    suffix: str
    options: dict[str, str]
    crf: int = 0


CODECS = {
    "h264": Codec("libx264", ".mp4", {}, 51),
    "hevc": Codec("libx265", ".mp4", {"preset": "fast", "x265-params": "log-level=error"}, 51),
    # A negative speed does not follow the processor's: the same pictures give the same file.
    "vp8": Codec("libvpx", ".webm", {"deadline": "realtime", "cpu-used": "-4", "b": "20M"}, 63),
    "vp9": Codec("libvpx-vp9", ".webm", {"deadline": "realtime", "cpu-used": "6", "b": "0"}, 63),
    "mjpeg": Codec("mjpeg", ".mkv", {"qmin": "2", "qmax": "3"}),
    "lossless": Codec("ffv1", ".mkv", {}),
}
"""Name → codec."""


@dataclasses.dataclass(frozen=True)
class Encoding:
    """What a recording is encoded with.

    Attributes:
      codec: Name in `CODECS`.
      crf: Constant rate factor; None: `CRF`, or what the bit rate gives.
      bitrate_kbps: Bit rate to keep to, kbit/s, or None.
    """

    codec: str = "h264"
    crf: int | None = None
    bitrate_kbps: float | None = None

    def options(self) -> dict[str, str]:
        """Return the encoder's options by FFmpeg's names."""
        codec = CODECS[self.codec]
        if self.bitrate_kbps is not None:
            chosen = {"b": f"{self.bitrate_kbps:g}k"}
            if self.codec == "mjpeg":
                chosen |= {"qmin": "2", "qmax": "31"}  # free to follow the rate
        else:
            chosen = {"crf": str(CRF if self.crf is None else self.crf)} if codec.crf else {}
        return {**codec.options, **chosen}


@dataclasses.dataclass(frozen=True)
class Treatment:
    """What is done to a clip for one recording.

    Attributes:
      clip: Path of the clip.
      bpm: Mean rate of the pulse that is put in, bpm; None where there is none.
      kind: Name in `pulse_free.KINDS`; None where a pulse is put in.
    """

    clip: Path
    bpm: float | None = None
    kind: str | None = None

    def __str__(self) -> str:
        return f"{self.clip.name}, {f'{self.bpm:g} bpm' if self.kind is None else self.kind}"


def write_footage_recordings(
    out: str | Path,
    clips: Sequence[str | Path],
    *,
    bpm: Sequence[float] = (),
    kinds: Sequence[str] = (),
    strength: float = 0.6,
    seconds: float = 30.0,
    encoding: Encoding | None = None,
    seed: int = 0,
    workers: int = 1,
    on_written: Callable[[str], None] | None = None,
) -> list[Path]:
    """Write a recording of every clip with every rate, or of every clip in every pulse-free kind.

    Recordings are numbered clip by clip. Those that are there already are kept, so that clips can be added at
    the list's end.

    Args:
      out: Folder to write to; it is made if it is not there.
      clips: Paths of videos with a face.
      bpm: Mean heart rates to put in, bpm.
      kinds: Names in `pulse_free.KINDS` instead, or 'all'.
      strength: Amplitude of the pulse, per cent of the skin's green in linear light.
      seconds: Length of each recording, s; shorter clips are played to and fro.
      encoding: Codec and quality; by default H.264 at a constant rate factor of 23.
      seed: Seed of what is drawn.
      workers: Number of processes; what they write does not depend on it.
      on_written: Called with a line about each recording that was written.

    Returns:
      The recordings' folders, all of them.

    Raises:
      ConfigError: A setting is outside its range, or the folder was begun with others.
      UserError: A clip cannot be used, or the folder not be written to.
    """
    out, clips = Path(out), [Path(clip) for clip in clips]
    encoding = encoding or Encoding()
    kinds = list(pulse_free.KINDS) if ALL_KINDS in kinds else list(kinds)
    check_run(seed, workers)
    _validate(clips, bpm, kinds, strength, seconds, encoding)
    facts = {clip: _facts(clip) for clip in clips}  # what is broken is said before anything is written
    treatments = [Treatment(clip, rate) for clip in clips for rate in bpm]
    treatments += [Treatment(clip, kind=kind) for clip in clips for kind in kinds]
    settings = {
        "version": VERSION,
        "from": "pulse_free" if kinds else "footage",
        "strength_percent": strength,
        "seconds": seconds,
        "seed": seed,
        **dataclasses.asdict(encoding),
    }
    folders = [out / f"subject{number}" for number in range(1, len(treatments) + 1)]
    treatment_of = dict(zip(folders, treatments, strict=True))
    one = functools.partial(
        write_footage_recording,
        treatments=treatments,
        strength=strength,
        seconds=seconds,
        encoding=encoding,
        seed=seed,
    )

    def told(folder: Path) -> str:
        return f"{folder}: {treatment_of[folder]}{_in_words(folder)}"

    def check(folder: Path) -> None:
        _check_same(folder, treatment_of[folder], facts[treatment_of[folder].clip])

    film_missing(out, settings, folders, one, told, workers=workers, on_written=on_written, check=check)
    return folders


def write_footage_recording(
    folder: Path,
    *,
    number: int,
    treatments: Sequence[Treatment],
    strength: float,
    seconds: float,
    encoding: Encoding,
    seed: int,
) -> None:
    """Write one recording: vid.*, ground_truth.txt and footage.json; it appears when it is complete.

    Args:
      folder: Folder to write, such as OUT/subject7; it must not exist yet.
      number: Number of the recording, from 1; together with the seed it decides what is drawn.
      treatments: What is done for each recording of the list.
      strength: Amplitude of the pulse, per cent of the skin's green in linear light.
      seconds: Length, s.
      encoding: Codec and quality.
      seed: Seed of the list.

    Raises:
      UserError: The clip cannot be used.
    """
    treatment = treatments[number - 1]
    footage = _studied(treatment.clip, seconds)
    order, times_s = footages.schedule(footage.times_s, seconds)
    with appearing(folder) as aside:
        video = aside / f"vid{CODECS[encoding.codec].suffix}"
        sheet = {"version": VERSION, "source": _facts(treatment.clip), "seed": seed, "number": number}
        sheet |= {"frames": len(order), "fps": round((len(order) - 1) / times_s[-1], 4)}
        sheet["frames_of_the_clip"] = len(footage.times_s)
        sheet["face_found"] = round(float(footage.traces.found[order].mean()), 4)
        if treatment.kind is None:
            ppg, rate, told = _write_pulse(
                video, footage, order, times_s, treatment.bpm, strength / 100, encoding, [seed, number]
            )
        else:
            told = _write_pulse_free(video, footage, times_s, treatment.kind, encoding, [seed, number])
            ppg, rate = np.zeros(len(times_s)), np.full(len(times_s), np.nan)
        kbps = 8 * video.stat().st_size / times_s[-1] / 1000
        coded = {**dataclasses.asdict(encoding), "kbit_per_s": round(kbps, 1)}
        if encoding.bitrate_kbps is None and CODECS[encoding.codec].crf:
            coded["crf"] = CRF if encoding.crf is None else encoding.crf
        sheet |= {**told, "encoding": coded}
        write_truth(aside, ppg, rate, times_s)
        (aside / SHEET).write_text(json.dumps(sheet, indent=1) + "\n")


def _in_words(folder: Path) -> str:
    """Return what became of the pulse on its way through the codec."""
    pulse = json.loads((folder / SHEET).read_text())["pulse"]
    if pulse is None:
        return ""
    left = 100 * pulse["measured_percent_encoded"] / pulse["strength_percent"]
    return f", {pulse['strength_percent']:g} % put in, the codec left {max(0, round(left))} % of it"


def _write_pulse(
    video: Path,
    footage: Footage,
    order: np.ndarray,
    times_s: np.ndarray,
    bpm: float,
    strength: float,
    encoding: Encoding,
    seed: list[int],
) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
    """Write the video with a pulse; returns the truth (PPG, rate in bpm) and what is to be told."""
    own = own_pulse.measure_own_pulse(footage.traces)
    wave = known_pulse.draw_wave([*seed, 0], bpm, float(times_s[-1]))
    maps = known_pulse.draw_maps(np.random.default_rng([*seed, 1]), footage.mean_skin())
    gains = own.over_face(footage.maps.shape[-1])
    before, put_in = [], []  # mean linear light of the skin

    def pictures() -> Iterator[np.ndarray]:
        shown = zip(order, times_s, footages.play(footage, order), strict=True)
        for number, (frame, time_s, picture) in enumerate(shown):
            skin = footage.skin(frame)
            light = known_pulse.darkening(wave, maps, skin, strength, time_s)
            reach = np.minimum(1, OWN_REACH * skin)[..., None]
            laid = _lay(
                footage, frame, np.dstack([skin, light, reach * gains * own.change[frame].astype(np.float32)])
            )
            if laid is not None:
                values, rows, columns = laid
                box = np.ascontiguousarray(picture[rows, columns])
                native = values[..., 2:] if own.lines_bpm else None
                changed = known_pulse.change_light(box, values[..., 1], native)
                rng = np.random.default_rng([*seed, 2, number])
                on_skin = values[..., 0] > 0
                box_after = known_pulse.dithered(changed, on_skin, rng)
                cleaned = box if native is None else known_pulse.dithered(box / (1 + native), on_skin, rng)
                before.append(_mean_light(cleaned, values[..., 0]))
                put_in.append(_mean_light(box_after, values[..., 0]))
                picture[rows, columns] = box_after
            else:
                before.append(np.full(3, np.nan))
                put_in.append(np.full(3, np.nan))
            yield picture

    _encode(video, pictures(), times_s, encoding)
    encoded = list(_encoded_light(video, footage, order))
    # Against the picture without any pulse, of the same face in the same place: motion falls out.
    green = [np.maximum(np.stack(light)[:, 1], 1e-6) for light in (before, put_in, encoded)]
    ppg, rate = wave.at(times_s), wave.rate_at(times_s)
    told = {
        "pulse": {
            "bpm": bpm,
            "strength_percent": 100 * strength,
            "of": "the skin's green in linear light (sRGB), amplitude of one unit of PPG, mean over the skin",
            "colour": [round(float(c), 4) for c in known_pulse.PULSE_COLOUR],
            "measured_percent": _strength(green[1] / green[0], ppg, times_s),
            "measured_percent_encoded": _strength(green[2] / green[0], ppg, times_s),
        },
        "own_pulse": _own_told(own, footage.traces.skin[order, 1], _read_back(video), ppg, times_s),
    }
    return ppg, rate, told


def _write_pulse_free(
    video: Path,
    footage: Footage,
    times_s: np.ndarray,
    name: str,
    encoding: Encoding,
    seed: list[int],
) -> dict[str, Any]:
    """Write the video of a pulse-free kind; returns what is to be told."""
    kind = pulse_free.KINDS[name]
    rng = np.random.default_rng([*seed, 3])
    drawn = pulse_free.draw(rng)
    frozen = int(rng.choice(np.flatnonzero(footage.traces.found)))

    (still,) = footages.play(footage, np.array([frozen]))
    scene = pulse_free.look_at(footage, frozen, still)
    noises = (np.random.default_rng([*seed, 4, number]) for number in range(len(times_s)))
    pictures = (
        pulse_free.film(kind, scene, float(time_s), drawn, noise)
        for time_s, noise in zip(times_s, noises, strict=True)
    )
    options = kind.options(drawn, footage.fps) if encoding.codec in ("h264", "hevc") else {}
    _encode(video, pictures, times_s, encoding, options)
    return {
        "pulse": None,
        "pulse_free": {
            "kind": name,
            "says": kind.says,
            "frozen_frame": frozen,
            **dataclasses.asdict(drawn),
        },
    }


def _encode(video: Path, pictures, times_s, encoding: Encoding, more: dict[str, str] | None = None) -> None:
    codec = CODECS[encoding.codec]
    options = {**encoding.options(), **(more or {})}
    sample_video.write_video(video, pictures, times_s, codec=codec.encoder, options=options)


def _lay(footage: Footage, frame: int, maps: np.ndarray):
    region = footage.region(frame)
    return None if region is None else footages.onto_picture(maps, region, footage.size)


def _mean_light(picture: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the weighted mean of linear red, green and blue, float64 [3]."""
    light = known_pulse.to_light(picture)
    return np.tensordot(weights, light, 2).astype(np.float64) / max(float(weights.sum()), 1e-6)


def _encoded_light(video: Path, footage: Footage, order: np.ndarray) -> Iterator[np.ndarray]:
    """Yield the skin's mean linear light in each frame of a written video, float64 [3]."""
    for frame, (_, picture) in zip(order, decode.frames(video), strict=True):
        laid = _lay(footage, frame, footage.skin(frame)[..., None])
        if laid is None:
            yield np.full(3, np.nan)
            continue
        weights, rows, columns = laid
        yield _mean_light(np.ascontiguousarray(picture[rows, columns]), weights[..., 0])


def _read_back(video: Path) -> np.ndarray:
    """Return the mean green of the skin in a written video as anybody finds it, float64 [t]."""
    return skin_traces.skin_traces(decode.frames(video), _networks()).skin[:, 1]


def _relative(green: np.ndarray, times_s: np.ndarray) -> np.ndarray:
    """Return green's relative change on a clock of `FPS`, float64 [k]; NaN is bridged."""
    seen = np.isfinite(green)
    even = np.interp(_clock(times_s), times_s[seen], green[seen])
    return even / even.mean() - 1


def _clock(times_s: np.ndarray) -> np.ndarray:
    return np.arange(0, times_s[-1], 1 / FPS)


def _fit(green: np.ndarray, ppg: np.ndarray, times_s: np.ndarray) -> tuple[float, np.ndarray]:
    """Return how strongly green follows the pulse, and what of its change does not, float64 [k]."""
    change = _relative(green, times_s)
    pulse = np.interp(_clock(times_s), times_s, ppg)
    seen, due = (filters.bandpass(x, *MEASURED_HZ, FPS, 2) for x in (change, pulse))
    slope = float(due @ seen / (due @ due))
    return -slope, change - slope * pulse


def _strength(green: np.ndarray, ppg: np.ndarray, times_s: np.ndarray) -> float:
    return round(100 * _fit(green, ppg, times_s)[0], 4)


def _own_told(
    own: own_pulse.OwnPulse, before: np.ndarray, after: np.ndarray, ppg: np.ndarray, times_s: np.ndarray
) -> dict[str, Any]:
    """Tell what was taken out and what is left around each line, of the skin's mean green [t], 0 to 255."""

    def around(change, line):
        band = own_pulse.in_bands(1 + change, _clock(times_s), (line,))
        return round(float(100 * math.sqrt(2) * band.std()), 4)

    found = {"lines_bpm": [round(line, 1) for line in own.lines_bpm]}
    if not np.isfinite(after).any():  # the codec left no face to be found
        return found
    strength, left = _fit(after, ppg, times_s)
    return {
        **found,
        "found_percent": [around(_relative(before, times_s), line) for line in own.lines_bpm],
        "left_percent": [around(left, line) for line in own.lines_bpm],
        "beside_put_in_percent": round(100 * strength, 4),
        "of": "the skin's mean green as pixel values, before and in the written video, within 0.2 Hz of a "
        "line, without the pulse that was put in",
    }


@functools.lru_cache(maxsize=1)  # a clip's recordings are written one after the other
def _studied(clip: Path, seconds: float) -> Footage:
    return footages.study(clip, seconds, _networks())


@functools.lru_cache(maxsize=1)
def _networks() -> FaceNetworks | None:
    return load_networks()[0]


@functools.lru_cache(maxsize=64)
def _facts(clip: Path) -> dict[str, Any]:
    """Return what a sheet tells of a clip: its name, not where it lies, and its content's digest."""
    facts = decode.read_facts(clip)
    with clip.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {
        "name": clip.name,
        "sha256": digest,
        "codec": facts.codec,
        "width": facts.width,
        "height": facts.height,
        "fps": facts.fps and round(facts.fps, 4),
    }


def _check_same(folder: Path, treatment: Treatment, facts: dict[str, Any]) -> None:
    """Check that a recording that is there is what would be written."""
    try:
        sheet = json.loads((folder / SHEET).read_text())
        made = (
            sheet["source"]["sha256"],
            (sheet["pulse"] or {}).get("bpm"),
            sheet.get("pulse_free", {}).get("kind"),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        made = None
    if made != (facts["sha256"], treatment.bpm, treatment.kind):
        raise ConfigError(
            f"{folder}: is another recording than {treatment}; add clips and rates at the end of a list, or "
            "choose another folder"
        )


def _validate(clips, bpm, kinds, strength, seconds, encoding: Encoding) -> None:
    if not clips:
        raise ConfigError("no clip is named; give --from=CLIP")
    if not bpm and not kinds:
        raise ConfigError("neither a heart rate nor a pulse-free kind is named; give one")
    if bpm and kinds:
        raise ConfigError("a pulse-free recording has no heart rate; give one or the other")
    low, high = known_pulse.HEART_RATES_BPM
    for rate in bpm:
        if not low <= rate <= high:
            raise ConfigError(f"a heart rate of {rate:g} bpm is outside {low:g} to {high:g}; give one inside")
    for kind in kinds:
        if kind not in pulse_free.KINDS:
            raise ConfigError(
                f"pulse-free kind {kind!r} is none of {', '.join(pulse_free.KINDS)}, {ALL_KINDS}"
            )
    low, high = known_pulse.STRENGTHS
    if not low <= strength <= high:
        raise ConfigError(f"a strength of {strength:g} % is outside {low:g} to {high:g}; give one inside")
    if not LEAST_SECONDS <= seconds <= MOST_SECONDS:
        raise ConfigError(
            f"{seconds:g} s are outside {LEAST_SECONDS:g} to {MOST_SECONDS:g}; give a length inside"
        )
    validate_encoding(encoding)


def validate_encoding(encoding: Encoding) -> None:
    """Check a codec and its quality.

    Raises:
      ConfigError: There is no such codec, or it has no such quality.
    """
    if encoding.codec not in CODECS:
        raise ConfigError(f"codec {encoding.codec!r} is none of {', '.join(CODECS)}")
    codec = CODECS[encoding.codec]
    if encoding.crf is not None:
        if encoding.bitrate_kbps is not None:
            raise ConfigError("a bit rate and a constant rate factor exclude each other; give one")
        if not codec.crf:
            raise ConfigError(f"the codec {encoding.codec} has no constant rate factor; leave --crf out")
        if not 0 <= encoding.crf <= codec.crf:
            raise ConfigError(
                f"a constant rate factor of {encoding.crf} is outside 0 to {codec.crf} for {encoding.codec}"
            )
    if encoding.bitrate_kbps is not None:
        if encoding.codec == "lossless":
            raise ConfigError("lossless pictures have no bit rate to be chosen; leave --bitrate out")
        if not LEAST_KBPS <= encoding.bitrate_kbps <= MOST_KBPS:
            raise ConfigError(
                f"a bit rate of {encoding.bitrate_kbps:g} kbit/s is outside {LEAST_KBPS} to {MOST_KBPS}"
            )
