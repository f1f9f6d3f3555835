"""Where output goes, and in which letters: devices, pipes and links stay; names of strangers do no harm."""

import csv
import io
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from scored_people import people

from sspd_jax.errors import StorageError
from sspd_jax.evaluation import protocol, render, scoring, table
from sspd_jax.runtime import storage, text
from sspd_jax.simulation import sample_video
from sspd_jax.video import encode

ROOT = Path(__file__).parents[3]


def run(code, *arguments, **settings):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **settings.pop("environment", {})}
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], env=environment, capture_output=True, **settings
    )


# Places to write to.


def test_a_link_stays_and_its_target_is_written(tmp_path):
    target, link, chain = tmp_path / "real" / "a.json", tmp_path / "link.json", tmp_path / "chain.json"
    target.parent.mkdir()
    target.write_text("old")
    link.symlink_to(Path("real") / "a.json")
    chain.symlink_to(link)
    for path in (link, chain):
        storage.write_text(path, path.name)
        assert path.is_symlink() and not target.is_symlink() and target.read_text() == path.name
    dangling = tmp_path / "dangling.json"
    dangling.symlink_to(tmp_path / "real" / "new.json")
    storage.write_text(dangling, "new")
    assert dangling.is_symlink() and (tmp_path / "real" / "new.json").read_text() == "new"
    assert sorted(p.name for p in target.parent.iterdir()) == ["a.json", "new.json"]


def test_a_pipe_is_written_through(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    found = []
    reader = threading.Thread(target=lambda: found.append(pipe.read_text()))
    reader.start()
    storage.write_text(pipe, "through")
    reader.join(10)
    assert found == ["through"] and pipe.is_fifo()


def test_a_device_is_written_through_and_stays_one(tmp_path):
    mine, device = os.openpty()  # a terminal of our own: never a device of the machine
    try:
        name = Path(os.ttyname(device))
        (tmp_path / "link").symlink_to(name)
        for path in (name, tmp_path / "link"):
            storage.write_text(path, "through")
            assert os.read(mine, 100) == b"through"
        assert name.is_char_device() and (tmp_path / "link").is_symlink()
    finally:
        os.close(mine)
        os.close(device)


@pytest.mark.parametrize("name", ["/dev/stdout", "link"])
def test_standard_output_gets_what_is_written_to_it_beside_what_is_printed(tmp_path, name):
    code = "import sys; from sspd_jax.runtime import storage; print('one', flush=True);"
    code += "storage.write_text(sys.argv[1], 'two\\n'); print('three')"
    if name == "link":
        (tmp_path / "link").symlink_to("/proc/self/fd/1")
        name = str(tmp_path / "link")
    assert run(code, name).stdout == b"one\ntwo\nthree\n"
    with (tmp_path / "out").open("ab") as out:  # as `>>` does: what is there already must stay
        subprocess.run(
            [sys.executable, "-c", code, name],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=out,
            check=True,
        )
    assert (tmp_path / "out").read_text() == "one\ntwo\nthree\n"


def test_the_longest_name_that_a_disk_takes_is_written_and_a_longer_one_is_a_sentence(tmp_path):
    longest = tmp_path / ("é" * 125 + ".json")
    storage.write_text(longest, "whole")
    assert longest.read_text() == "whole" and list(tmp_path.iterdir()) == [longest]
    for check in (storage.check_name, lambda path: storage.write_text(path, "")):
        check(longest)
        for name in ("n" * 256, "é" * 128):
            with pytest.raises(StorageError, match=r"cannot be written .*; choose another place"):
                check(tmp_path / name)
    assert list(tmp_path.iterdir()) == [longest]


def test_a_film_is_written_under_any_name_and_to_a_disk_alone(tmp_path):
    frames = [(number / 10, np.zeros((16, 16, 3), np.uint8)) for number in range(3)]
    longest, link, pipe = tmp_path / ("n" * 251 + ".mp4"), tmp_path / "link.mp4", tmp_path / "pipe.mp4"
    encode.write_video(longest, frames)
    link.symlink_to(longest)
    longest.write_bytes(b"old")
    os.mkfifo(pipe)
    writers = (
        encode.write_video,
        lambda path, _: sample_video.write_video(path, [picture for _, picture in frames], [0, 0.1, 0.2]),
    )
    for write in writers:
        longest.write_bytes(b"old")
        write(link, frames)
        assert link.is_symlink() and len(longest.read_bytes()) > 100
        for name in (pipe, tmp_path / ("n" * 252 + ".mp4")):
            with pytest.raises(StorageError, match="cannot be written"):
                write(name, frames)
    assert pipe.is_fifo() and len(list(tmp_path.iterdir())) == 3


def test_a_name_that_is_no_utf8_is_written_as_its_bytes(tmp_path):
    storage.write_text(tmp_path / "a.csv", os.fsdecode(b"caf\xe9.mp4\n"))
    assert (tmp_path / "a.csv").read_bytes() == b"caf\xe9.mp4\n"


# Terminals.


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "utf-8"])
def test_any_terminal_takes_what_commands_print(encoding):
    code = "from sspd_jax.runtime import text; text.use_any_terminal(); print('1–2 ± 李 \\udce9')"
    done = run(code, environment={"PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"})
    assert done.returncode == 0, done.stderr
    expected = {
        "ascii": "1-2 +/- \\u674e \\udce9",
        "latin-1": "1-2 ± \\u674e \\udce9",
        "cp1252": "1–2 ± \\u674e \\udce9",
        "utf-8": "1–2 ± 李 \\udce9",
    }
    assert done.stdout.decode(encoding).strip() == expected[encoding]


@pytest.mark.parametrize(
    "name",
    [
        *("predict", "prepare", "main", "live"),
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("evaluate", "compare", "study")),
    ],
)
def test_help_is_shown_on_any_terminal(name):
    code = "import sys; from sspd_jax.__main__ import main; sys.exit(main(sys.argv[1:]))"
    done = run(code, name, "--help", environment={"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"})
    assert done.returncode == 0 and b"usage" in done.stdout, done.stderr


WORKS_ON = """
import logging, sys
logging.basicConfig(format="%(message)s")  # who logs has the stream of before
from sspd_jax.cli import common
def work():
    for number in range(3):
        print(number, flush=True); print("aside", file=sys.stderr)
    logging.warning("logged")
    open(sys.argv[1], "w").write("whole")
sys.exit(common.run(work))
"""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is full")
@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize(
    ("redirection", "code"),
    [(">/dev/full", 1), ("2>/dev/full", 0), (">&-", 0), ("2>&-", 0), ("<&- >&- 2>&-", 0)],
)
def test_the_work_goes_on_where_what_is_printed_has_no_place(tmp_path, redirection, code, unbuffered):
    command = f'exec "$@" {redirection}'
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": unbuffered}
    done = subprocess.run(
        ["sh", "-c", command, "sh", sys.executable, "-c", WORKS_ON, tmp_path / "out"],
        env=environment,
        capture_output=True,
        text=True,
    )
    said = (
        "error: standard output: cannot be written (no space left on device); make room, or print elsewhere\n"
    )
    printed = {">/dev/full": "aside\n" * 3 + "logged\n" + said, ">&-": "aside\n" * 3 + "logged\n"}.get(
        redirection, ""
    )
    assert (done.returncode, done.stderr) == (code, printed)
    assert done.stdout == ("0\n1\n2\n" if redirection.startswith("2") else "")
    assert (tmp_path / "out").read_text() == "whole"


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_what_commands_print_does_not_steer_the_terminal(unbuffered):
    code = "import sys; from sspd_jax.runtime import text; text.use_any_terminal();"
    code += "print('a\\x1b[2J\\x9b1m\\u202eb\\x07 李\\tc\\rd'); print('\\x1b]0;', file=sys.stderr)"
    done = run(code, environment={"PYTHONUNBUFFERED": unbuffered, "PYTHONIOENCODING": "utf-8"})
    assert done.stdout.decode() == "a\\x1b[2J\\x9b1m\\u202eb\\x07 李\tc\rd\n"
    assert done.stderr == b"\\x1b]0;\n"


def test_an_error_does_not_steer_the_terminal(capsys):
    from sspd_jax.cli import common
    from sspd_jax.errors import UserError

    def fail():
        raise UserError("a\x1b[2J\nb.mp4: the file is empty")

    assert common.run(fail) == 1
    assert capsys.readouterr().err == "error: a\\x1b[2J\\nb.mp4: the file is empty\n"


# Spreadsheets.


@pytest.mark.parametrize(
    "name", ["=1+1", "+cmd", "-2", "@SUM(A1)", "'=1", "  =1", "\t=1", "plain", "'quoted'"]
)
def test_a_formula_is_a_text_in_a_spreadsheet_and_comes_back(name, tmp_path):
    safe = text.spreadsheet_safe(name)
    assert not safe.lstrip().startswith(text.FORMULA)
    assert text.from_spreadsheet(safe) == name
    made = people(1.0, count=2)
    rows = [
        table.dataclasses.replace(row, person=name, recording=name, facts={"meta.light": name})
        for row in scoring.score_segment(made[0], protocol.default())
    ]
    written = table.write(rows, protocol.default())
    cells = [cell for line in csv.reader(io.StringIO(written)) for cell in line]
    numbers = [cell for cell in cells if cell.startswith("-")]
    assert all(float(cell) < 0 for cell in numbers)
    assert safe in cells and not any(cell.startswith(("=", "+", "@", "\t")) for cell in cells)
    (tmp_path / "windows.csv").write_text(written)
    back, _ = table.read(tmp_path / "windows.csv")
    assert {(row.person, row.recording, row.facts["meta.light"]) for row in back} == {(name, name, name)}
    assert "=1" not in render.tidy_csv([{"a": "=1"}]).replace("'=1", "")


# No home.


def test_without_a_home_nothing_is_cached_and_the_work_goes_on():
    code = """
import os, pwd
os.environ.pop("HOME", None); os.environ.pop("XDG_CACHE_HOME", None); os.environ.pop("SSPD_JAX_CACHE", None)
def unknown(*_): raise KeyError("no passwd entry")
pwd.getpwuid = unknown
from sspd_jax.runtime import compilation_cache
print(compilation_cache.default_directory(), compilation_cache.enable())
os.environ["SSPD_JAX_CACHE"] = "~/cache"
print(compilation_cache.default_directory())
"""
    done = run(code)
    assert done.returncode == 0, done.stderr
    assert done.stdout == b"None None\nNone\n"
