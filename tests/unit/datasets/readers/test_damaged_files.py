"""Files that were damaged at random or on purpose: a reader lists the recording as broken, and goes on."""

import random
import shutil
import time

import dataset_files
import h5py
import numpy as np
import pytest
from fuzzing import MOST_CPU_S, mutate

from sspd_jax.datasets.readers import registry
from sspd_jax.datasets.recording import Broken, Recording
from sspd_jax.errors import UserError

TEXTS = (".txt", ".csv", ".json", ".xmp")


def damage(tmp_path, name, count, only=None):
    raw = tmp_path / "raw"
    dataset_files.WRITERS[name](raw, seconds=2)
    files = sorted(p for p in raw.rglob("*") if p.is_file() and (only is None or p.suffix in only))
    whole = {r.recording_id for r in registry.read(name, raw)}
    chance, broken = random.Random(0), 0
    for _ in range(count):
        path = chance.choice(files)
        kept = path.read_bytes()
        path.write_bytes(mutate(kept, chance))
        began = time.thread_time()  # of this thread: others of this process may have work of their own
        try:
            listed = registry.read(name, raw)
        except UserError as error:  # a table of the whole dataset: its folds, its protocols
            assert "fold" in path.parts or "protocols" in path.parts, error
            listed = []
        else:
            assert {r.recording_id for r in listed} == whole
        assert time.thread_time() - began < MOST_CPU_S
        sentences = [r.why for r in listed if isinstance(r, Broken)]
        assert all("\n" not in why and "; " in why for why in sentences), sentences
        assert len(sentences) < len(whole) or len(whole) == 1 or not listed
        broken += len(sentences)
        path.write_bytes(kept)
    shutil.rmtree(raw)
    return broken


@pytest.mark.parametrize("name", ["pure", "ubfc_rppg", "ubfc_rppg_1", "folder"])
def test_a_damaged_text_breaks_its_recording_alone(tmp_path, name):
    assert damage(tmp_path, name, 25, TEXTS) > 5


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(dataset_files.WRITERS))
def test_three_hundred_mutations_of_every_readers_files(tmp_path, name, record_property):
    # Most files of an image sequence are pictures, which are not read before they are prepared.
    broken = damage(tmp_path, name, 300)
    record_property("fuzz", {"command": f"reader {name}", "inputs": 300, "refused": broken, "faults": 0})
    assert broken > 2


def replaced(old, new):
    def do(path):
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new, 1))

    return do


def hdf5(**changes):
    def do(path):
        with h5py.File(path, "r+") as file:
            for name, value in changes.items():
                if name == "rate":
                    file.attrs["sample-rate-hz"] = value
                else:
                    del file[name]
                    file[name] = value

    return do


CRAFTED = [
    ("pure", "01-01/01-01.json", replaced('"Timestamp": 1', '"Timestamp": Infinity, "x": 1')),
    ("pure", "01-01/01-01.json", replaced('"Timestamp": 1', f'"Timestamp": 1{"0" * 40}, "x": 1')),
    ("pure", "01-01/01-01.json", replaced('"Timestamp": 1', '"Timestamp": "soon", "x": 1')),
    ("pure", "01-01/01-01.json", replaced('"waveform": ', '"waveform": [], "x": ')),
    ("pure", "01-01/01-01.json", lambda path: path.write_text("[" * 200_000)),
    ("pure", "01-01/01-01.json", lambda path: path.write_text('{"a":' * 200_000)),
    ("cohface", "1/0/data.hdf5", hdf5(pulse=np.zeros((3, 512)))),
    ("cohface", "1/0/data.hdf5", hdf5(pulse=1.0)),
    ("cohface", "1/0/data.hdf5", hdf5(time=2.0)),
    ("cohface", "1/0/data.hdf5", hdf5(rate=np.zeros(0))),
    ("cohface", "1/0/data.hdf5", hdf5(rate="fast")),
    ("cohface", "1/0/data.hdf5", hdf5(rate=np.inf)),
    ("vipl_hr", "data/p1/v1-2/source1/wave.csv", lambda path: path.write_text("Wave\n" + "1" * 131_073)),
    ("ubfc_phys", "s1/bvp_s1_T1.csv", lambda path: path.write_text("1" * 131_073)),
    ("ubfc_rppg_1", "DATASET_1/5-gt/gtdump.xmp", lambda path: path.write_text("1" * 131_073)),
    ("folder", "Zoë/a clip.csv", lambda path: path.write_text("time_s,ppg\n" + "1" * 131_073)),
    ("ubfc_rppg", "DATASET_2/subject1/ground_truth.txt", lambda path: path.write_text("1e999 " * 99 + "\n")),
]


@pytest.mark.parametrize(
    ("name", "path", "harm"), CRAFTED, ids=[f"{name}-{number}" for number, (name, *_) in enumerate(CRAFTED)]
)
def test_a_file_that_was_made_to_do_harm_breaks_its_recording_alone(tmp_path, name, path, harm):
    dataset_files.WRITERS[name](tmp_path, seconds=2)
    whole = [r.recording_id for r in registry.read(name, tmp_path)]
    harm(tmp_path / path)
    listed = registry.read(name, tmp_path)
    assert [r.recording_id for r in listed] == whole
    (broken,) = [r for r in listed if isinstance(r, Broken)]
    assert broken.why.startswith(str(tmp_path)) and "\n" not in broken.why and "; " in broken.why


@pytest.mark.parametrize(("dataset", "reader"), [("ubfc_rppg_1", "ubfc_rppg"), ("ubfc_rppg", "ubfc_rppg_1")])
def test_the_other_release_names_its_reader(tmp_path, dataset, reader):
    dataset_files.WRITERS[dataset](tmp_path, seconds=2)
    folder = next(tmp_path.iterdir())
    for source in (tmp_path, folder):
        with pytest.raises(UserError, match=rf"read it as {dataset} \(--config=ubfc1?\)"):
            registry.read(reader, source)
    assert all(isinstance(r, Recording) for r in registry.read(dataset, folder))
