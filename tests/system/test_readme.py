"""What README and docs tell people to type is typed here, in small: every command, every block of Python."""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from shared_files import PUBLISHED_WEIGHTS

from sspd_jax.simulation import sample_video

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
SMALL = {  # what stands in the text → what is at hand, so small that it takes seconds
    "/path/to/UBFC-rPPG": "recordings",
    "configs/ubfc.py": "configs/ubfc.py:smoke",
    "--config=configs/ubfc.py:smoke": (
        "--config=configs/ubfc.py:smoke --config.epochs=1 --config.batch_size=1 --no_progress "
        "--workdir=workdir/ubfc "
        "--config.data.train_people=\"('subject1',)\" --config.data.test_people=\"('subject38',)\""
    ),
    "--dataset=ubfc_rppg": "--dataset=ubfc_rppg --crop_size=68",  # of the smoke test
    "--data=PREPARED": "--data=data/ubfc_rppg_smoke",
    "--checkpoint=DIR": "--checkpoint=workdir/ubfc/network/target",
    "--output=OUT": "--output=out",
    "--people=subject38,subject39": "--people=subject38",
    "configs/folder.py": "configs/folder.py:smoke",
    "--config=configs/folder.py:smoke": (
        "--config=configs/folder.py:smoke --config.epochs=1 --config.batch_size=1 --no_progress "
        "--workdir=workdir/folder --config.data.workers=1"
    ),
    "configs/personal.py": "configs/personal.py --config.epochs=1 --config.health.clips=1 --no_progress",
    "/path/to/videos": "videos",
    "--from=my.mp4": "--from=my.mp4 --seconds=4 --workers=1",
    "recordings --preset=default --people=12": "others --preset=default --people=1 --seconds=3",
    "recordings --preset=webcam --people=12": "filmed --preset=webcam --people=1 --seconds=2 --size=160x160",
    "trust --preset=webcam --people=12": "twins --preset=webcam --people=1 --seconds=2 --size=160x160",
}
ELSEWHERE = {
    "--runner=beam": "test_datasets_processes.py runs Beam on this machine",
    "--workers=2": "test_datasets_processes.py",
    "configs/simulated_study.toml": "test_study.py runs a smaller one",
    "configs/mine.py": "the reader in the docs is run by test_readers.py; there is no such dataset",
    "configs/pure.py": "test_datasets_training.py writes PURE's files and runs it",
    "--process_id=": "test_interruptions.py starts two",
    "--dataset=pure": "test_datasets_checker.py and test_inspect_recordings.py",
    "sspd_jax web": "npm fetches for it; test_web_page.py runs it where npm can",
    "--workdir=workdir/smoke": "the same command without it is run here, as small",
}
NOT_TYPED = {  # what a page tells people to type and no test does: why not
    "git clone": "it downloads",
    "make demo": "minutes of training; .ci/run runs it",
    "make test": "these tests are it",
    "make setup": "it made the environment that these tests run in",
    "make address": "it changes the repository; test_docs.py runs it on a copy",
    "pip install": "it downloads; test_package.py installs the wheel without",
    "gcloud": "it needs a TPU pod",
    "srun": "it needs Slurm",
    "python benchmarks/": "needs real footage, and hours",
    "test -d": "part of the Slurm script",
    "cd /shared": "part of the Slurm script",
    "python -m http.server": "it serves until it is stopped; test_web_page.py serves the page",
    "--config.data.data_dir=/shared": "part of the Slurm script",
    "#": "a comment",
}
ANSWERS = {"python -m sspd_jax live": (1, "camera 0: cannot be opened")}  # there is none here


def commands():
    """Every command once, in the order of the pages."""
    found = []
    for page in PAGES:
        found += re.findall(r"^    (python (?:-m sspd_jax|examples/).*)$", page.read_text(), re.MULTILINE)
    return list(dict.fromkeys(line.split("  #")[0].strip() for line in found))


def lines_to_type():
    """Every line that a page shows as something to type: indented by four, or in a block for a shell."""
    found = []
    for page in PAGES:
        text = page.read_text()
        blocks = re.findall(r"^```(?:sh|bash)\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
        found += [line.strip() for block in blocks for line in block.splitlines() if line.strip()]
        text = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
        words = "python|pip|make|gcloud|sspd_jax|srun|git"
        found += re.findall(rf"^ {{4,}}((?:{words}) .*)$", text, re.MULTILINE)
    return found


def test_every_line_to_type_is_run_or_a_reason_says_why_not():
    typed = commands()
    unknown = [
        line
        for line in lines_to_type()
        if line.split("  #")[0].strip() not in typed and not any(part in line for part in NOT_TYPED)
    ]
    assert not unknown
    for part in NOT_TYPED:
        assert any(part in line for line in lines_to_type()), part


def test_there_are_commands_and_each_is_run_here_or_elsewhere():
    assert len(commands()) >= 15
    for part in ELSEWHERE:
        assert any(part in command for command in commands()), part


@pytest.fixture(scope="module")
def home(tmp_path_factory, compiled):
    """A folder with what the pages take for granted."""
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in compiled.items():
            patch.setenv(name, value)
        furnish(home)
        yield home


def furnish(home):
    for name in ("configs", "examples"):
        (home / name).symlink_to(ROOT / name)
    (home / "data").mkdir()
    (home / "data" / "simulated_faces").symlink_to(ROOT / "data" / "simulated_faces")
    sample_video.write_face_video(home / "my.mp4", seconds=11, bpm=72)
    (home / "videos").mkdir()
    for person in ("ann", "bob"):
        shutil.copy(home / "my.mp4", home / "videos" / f"{person}.mp4")
    np.save(home / "crops.npy", np.random.default_rng(0).integers(0, 256, (61, 151, 151, 3), np.uint8))
    assert type_in(home, "python -m sspd_jax simulate recordings --people=2 --seconds=12")[0] == 0
    (home / "recordings" / "subject2").rename(home / "recordings" / "subject38")  # one to test on


def type_in(home, command):
    """Run a command; returns its exit code and what it said."""
    program, *arguments = shlex.split(command)
    assert program == "python"
    done = subprocess.run(
        [sys.executable, *arguments], cwd=home, capture_output=True, text=True, timeout=600, check=False
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.slow
def test_every_command_does_what_the_page_says(home):
    if PUBLISHED_WEIGHTS.exists():
        shutil.copy(PUBLISHED_WEIGHTS, home / "ubfc.pth")
    for command in commands():
        if any(part in command for part in ELSEWHERE):
            continue
        if not PUBLISHED_WEIGHTS.exists() and ("checkpoints/ubfc" in command or "ubfc.stablehlo" in command):
            continue
        small = command
        for long, short in SMALL.items():
            small = small.replace(long, short)
        if "compare" in command:
            for name in ("a", "b"):
                shutil.copytree(home / "workdir" / "ubfc", home / "workdir" / name, dirs_exist_ok=True)
        code, said = type_in(home, small)
        right, words = ANSWERS.get(command, (0, ""))
        assert code == right and words in said, f"{small}\n{said[-2000:]}"
        assert "Traceback" not in said, small


@pytest.mark.slow
def test_every_block_of_python_runs(home):
    # docs/datasets.md has others, which test_datasets_readers.py runs.
    text = "".join(page.read_text() for page in PAGES if page.name != "datasets.md")
    blocks = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert len(blocks) >= 5
    given = "import numpy as np\nclips = np.zeros((4, 97, 68, 68, 3), np.uint8)\n"
    for block in blocks:
        script = home / "block.py"
        script.write_text(given + block.replace("camera.camera(0)", 'camera.as_live("my.mp4", speed=50)'))
        code, said = type_in(home, "python block.py")
        assert code == 0, f"{block}\n{said[-2000:]}"
