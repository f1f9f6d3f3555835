"""The soak driver tells what grows from what is flat, and goes on where it was stopped."""

import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[3] / "benchmarks" / "robustness"))
import soak


def rows(**grows):
    """Forty seconds of a part that holds something, and what grows a second."""
    held = {"memory_mb": 400.0, "threads": 9.0, "descriptors": 12.0}
    return [
        {"part": "live", "run": "1", "time_s": str(second), "done": str(second), "of": "40"}
        | {name: str(value + second * grows.get(name, 0)) for name, value in held.items()}
        for second in range(1, 41)
    ]


@pytest.mark.parametrize(
    ("grows", "flat"),
    [
        ({}, True),
        ({"memory_mb": 0.2}, True),
        ({"memory_mb": 2}, False),
        ({"threads": 1}, False),
        ({"descriptors": 1}, False),
    ],
)
def test_what_grows_is_not_flat(grows, flat):
    line = soak.table(rows(**grows)).splitlines()[2]
    assert line.startswith("| live | 40 of 40 | 40 |") and line.endswith("| yes |" if flat else "| **no** |")


def test_a_process_is_seen_from_outside():
    held = soak.look_at(os.getpid())
    assert held["memory_mb"] > 20 and held["threads"] >= 1 and held["descriptors"] >= 3
    assert soak.look_at(2**22 + 1) is None


def test_the_last_run_counts_and_a_line_that_was_cut_off_does_not(tmp_path):
    header = ",".join(soak.FIELDS)
    (tmp_path / "soak.csv").write_text(f"{header}\nlive,1,1.0,40,40,400,9,12\nlive,2,1.0,3,40,40")
    (row,) = soak.read_rows(tmp_path)
    assert row["run"] == "1" and soak.is_finished(tmp_path, "live", 40)
    assert not soak.is_finished(tmp_path, "live", 41) and not soak.is_finished(tmp_path, "training", 40)
