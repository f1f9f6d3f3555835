"""Small datasets in the files and folders of the real ones, for tests of what reads them.

Everybody has a known pulse: `BPM[0]` is the first person's, `BPM[1]` the second's.
"""

import functools
import json

import cv2
import h5py
import numpy as np
import scipy.io

from sspd_jax.simulation import sample_video

BPM = (72.0, 102.0)
SIDE = 112  # pixels: the face is found, and files stay small


@functools.cache
def pictures(fps, seconds, bpm):
    """A face with a pulse: uint8 [t, 112, 112, 3]."""
    times_s = np.arange(round(fps * seconds)) / fps
    shrunk = [
        cv2.resize(p, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
        for p in sample_video.face_frames(times_s, bpm, 0)
    ]
    return np.array(shrunk)


def wave(rate_hz, seconds, bpm, offset_s=0.0):
    """Times (s) and values of its contact pulse wave."""
    times_s = np.arange(round(rate_hz * seconds)) / rate_hz + offset_s
    return times_s, sample_video.ppg(times_s, bpm)


def avi(path, fps, seconds, bpm, codec="mjpeg", options=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    frames = pictures(fps, seconds, bpm)
    sample_video.write_video(path, frames, np.arange(len(frames)) / fps, codec=codec, options=options)


def column(path, values, header=None):
    lines = [*([header] if header else []), *(f"{v:.6f}" for v in values)]
    path.write_text("\n".join(lines) + "\n")


def ubfc_rppg(root, seconds=6):
    for number, bpm in enumerate(BPM, 1):
        folder = root / "DATASET_2" / f"subject{number}"
        avi(folder / "vid.avi", 30, seconds, bpm)
        times_s, values = wave(30, seconds, bpm)
        rows = (values, np.full(len(values), bpm), times_s)
        text = "\n".join(" ".join(f"{v:.7e}" for v in row) for row in rows)
        (folder / "ground_truth.txt").write_text(text + "\n")


def ubfc_rppg_1(root, seconds=6):
    for number, bpm in zip((5, 11), BPM, strict=True):
        folder = root / "DATASET_1" / f"{number}-gt"
        avi(folder / f"vid of {number}.avi", 30, seconds, bpm)
        times_s, values = wave(62, seconds, bpm)
        rows = [f"{1000 * t:.0f},{bpm:.0f},98,{v:.5f}" for t, v in zip(times_s, values, strict=True)]
        (folder / "gtdump.xmp").write_text("\n".join(rows) + "\n")


PURE_START_NS = 1392643993642815000


def pure(root, seconds=6, layout="A", dropped=(), people=2):
    """Layout A or B; the first two values of the wave are corrupt, as they can be."""
    for person, bpm in list(zip(("01", "02"), BPM, strict=True))[:people]:
        name = f"{person}-01"
        folder = root / name / name if layout == "A" else root / name
        truth = root / name / f"{name}.json" if layout == "A" else root / f"{name}.json"
        folder.mkdir(parents=True)
        images = []
        for number, picture in enumerate(pictures(30, seconds, bpm)):
            stamp = PURE_START_NS + number * 1_000_000_000 // 30
            if number in dropped:
                continue
            images.append({"Timestamp": stamp})
            cv2.imwrite(
                str(folder / f"Image{stamp}.png"), picture[..., ::-1], (cv2.IMWRITE_PNG_COMPRESSION, 1)
            )
        # The oximeter's clock begins 0.1 s before the camera.
        times_s, values = wave(60, seconds + 0.1, bpm, -0.1)
        values = np.rint(1000 + 500 * values)
        values[:2] = -9999
        package = [
            {
                "Timestamp": PURE_START_NS + round(1e9 * t),
                "Value": {
                    "waveform": int(v),
                    "pulseRate": int(bpm),
                    "o2saturation": 98,
                    "signalStrength": 5,
                },
            }
            for t, v in zip(times_s, values, strict=True)
        ]
        truth.write_text(json.dumps({"/FullPackage": package, "/Image": images}))


def cohface(root, seconds=6):
    for person, bpm in zip(("1", "2"), BPM, strict=True):
        for clip in ("0", "2"):
            folder = root / person / clip
            avi(folder / "data.avi", 20, seconds, bpm, "mpeg4", {"qmin": "2", "qmax": "2"})
            times_s, values = wave(256, seconds, bpm)
            with h5py.File(folder / "data.hdf5", "w") as file:
                file["pulse"], file["time"], file["respiration"] = (
                    values,
                    times_s + 3.5,
                    np.zeros(len(values)),
                )
                file.attrs["sample-rate-hz"] = np.array([256.0])
                file.attrs["illumination"] = np.array([b"lamp" if clip == "0" else b"natural"])
    for protocol, clips in (("all", ("0", "2")), ("clean", ("0",)), ("natural", ("2",))):
        for part, person in (("train", "1"), ("test", "2"), ("dev", None)):
            path = root / "protocols" / protocol / f"{part}.txt"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("".join(f"{person}/{clip}/data\n" for clip in clips if person))


def hdf5_mat(path, **variables):
    """A MATLAB 7.3 file: HDF5 behind 512 bytes, axes reversed, texts as codes."""
    with h5py.File(path, "w", userblock_size=512) as file:
        for name, value in variables.items():
            if isinstance(value, str):
                file[name] = np.array([[ord(c)] for c in value], np.uint16)
                file[name].attrs["MATLAB_class"] = np.bytes_("char")
            else:
                value = np.asarray(value)
                value = value.reshape(value.shape if value.ndim > 1 else (1, -1))
                chunks = (*value.shape[:0:-1], min(7, value.shape[0])) if value.ndim == 4 else None
                file.create_dataset(name, data=value.T, chunks=chunks, compression="gzip" if chunks else None)
                file[name].attrs["MATLAB_class"] = np.bytes_("double")
    with path.open("r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(124) + b"\x00\x02IM")


def mmpd(root, seconds=6, version=5, motion="Watching Videos"):
    for number, bpm in enumerate(BPM, 1):
        folder = root / f"subject{number}"
        folder.mkdir(parents=True)
        content = {
            "video": pictures(30, seconds, bpm).astype(np.float32) / 255,
            "GT_ppg": wave(30, seconds, bpm)[1],
            "light": "LED-low",
            "motion": motion,
            "exercise": "False",
            "skin_color": np.array([[4]]),
            "gender": "female",
            "glasser": "True",
            "hair_cover": "False",
            "makeup": "False",
        }
        if version == 5:
            scipy.io.savemat(folder / f"p{number}_0.mat", content)
        else:
            hdf5_mat(folder / f"p{number}_0.mat", **content)


def ubfc_phys(root, seconds=6):
    for number, bpm in enumerate(BPM, 1):
        for task in ("T1", "T2"):
            avi(root / f"s{number}" / f"vid_s{number}_{task}.avi", 35, seconds, bpm)
            column(root / f"s{number}" / f"bvp_s{number}_{task}.csv", wave(64, seconds, bpm)[1])


VIPL_FPS = 25


def vipl_hr(root, seconds=6, sources=("source1", "source2", "source4")):
    for number, bpm in enumerate(BPM, 1):
        for source in sources:
            folder = root / "data" / f"p{number}" / "v1-2" / source
            fps = 30 if source == "source2" else VIPL_FPS
            avi(folder / "video.avi", fps, seconds, bpm)
            column(folder / "wave.csv", wave(60, seconds, bpm)[1], "Wave")
            column(folder / "gt_HR.csv", [bpm] * seconds, "HR")
            column(folder / "gt_SpO2.csv", [98] * seconds, "SpO2")
            if source != "source2":
                # Uneven, as they are: every second frame 4 ms late.
                times_ms = 1000 * np.arange(fps * seconds) / fps + 4 * (np.arange(fps * seconds) % 2)
                (folder / "time.txt").write_text("\n".join(f"{t:.0f}" for t in times_ms) + "\n")
    (root / "fold").mkdir()
    for number in (1, 2):
        scipy.io.savemat(root / "fold" / f"fold{number}.mat", {f"fold{number}": np.array([[number]])})


def scamps(root, seconds=6, name="RawFrames"):
    root.mkdir(parents=True, exist_ok=True)
    for number, bpm in enumerate(BPM, 1):
        video = pictures(30, seconds, bpm).astype(np.float64) / 255
        content = {name: video, "d_ppg": wave(30, seconds, bpm)[1], "d_br": np.zeros(30 * seconds)}
        hdf5_mat(root / f"P{number:06d}.mat", **content)


def folder(root, seconds=6, labelled=True):
    """Two people's folders, names with spaces and of other scripts, one video deeper than the other."""
    for path, bpm in zip((root / "Zoë" / "a clip.mp4", root / "李" / "day 1" / "b.mkv"), BPM, strict=True):
        path.parent.mkdir(parents=True, exist_ok=True)
        frames = pictures(30, seconds, bpm)
        sample_video.write_video(
            path, frames, np.arange(len(frames)) / 30, options={"crf": "3", "preset": "ultrafast"}
        )
        if labelled:
            times_s, values = wave(64, seconds, bpm)
            rows = [f"{t:.6f},{v:.6f}" for t, v in zip(times_s, values, strict=True)]
            path.with_suffix(".csv").write_text("time_s,ppg\n" + "\n".join(rows) + "\n")


WRITERS = {
    "ubfc_rppg": ubfc_rppg,
    "ubfc_rppg_1": ubfc_rppg_1,
    "pure": pure,
    "cohface": cohface,
    "mmpd": mmpd,
    "ubfc_phys": ubfc_phys,
    "vipl_hr": vipl_hr,
    "scamps": scamps,
    "folder": folder,
}
"""By the names of the readers."""
