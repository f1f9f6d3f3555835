"""Write a web page that reads a pulse in the browser: static files, which any web server serves.

The page is in the folder `web_page` beside this module, and `server` serves the same for `sspd_jax live`.
What it shares with the package is not written twice: the networks, the weights of the confidence, and which
landmarks bound which part of the skin are taken from here when it is written. The runtime that the networks
need comes from the npm registry, by a lock file with hashes.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import tempfile
from importlib import resources
from pathlib import Path

import numpy as np

from sspd_jax.checkpoints import export, host_network
from sspd_jax.errors import UserError
from sspd_jax.heart_rate import confidence
from sspd_jax.method import architecture
from sspd_jax.runtime import storage
from sspd_jax.video import face_track, models, skin_map

_ELSEWHERE = "choose another folder"
_SOURCES = "web_page"
_SOURCE = "own_camera.mjs"  # what the page reads from, under the name that it asks for: source.mjs
_NOT_SERVED = ("package.json", "package-lock.json", "offline.js", "live_stream.mjs", "forget.js")
_RUNTIME = "node_modules/@litertjs"
# One of the two is loaded, whichever the browser can run; neither needs a header that static servers lack.
_WASM = ("litert_wasm_internal", "litert_wasm_compat_internal")
_LARGE = 4_000_000  # bytes; what is larger is kept for use without a network when it was loaded once


def write(folder: str | os.PathLike) -> int:
    """Write the page into a new folder.

    Args:
      folder: It must not exist yet, or be empty. It appears when it is complete.

    Returns:
      Size of all files in bytes.

    Raises:
      UserError: The folder holds something or cannot be written; npm is absent or brings nothing; a face
        model is missing.
      ConfigError: A package is not installed, see `export.export`.
    """
    folder = Path(folder)
    with storage.storing(folder, _ELSEWHERE):
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise UserError(f"{folder}: exists already; delete it or {_ELSEWHERE}")
        folder.absolute().parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.absolute().parent, prefix=f".{folder.name}.") as scratch:
            made = Path(scratch) / "site"
            _write_into(made, Path(scratch))
            size = sum(file.stat().st_size for file in made.rglob("*") if file.is_file())
            if folder.exists():
                folder.rmdir()
            made.rename(folder)
    return size


def _write_into(made: Path, scratch: Path) -> None:
    (made / "models").mkdir(parents=True)
    sources = resources.files(__package__) / _SOURCES
    for source in sources.iterdir():
        if source.name not in _NOT_SERVED:
            name = "source.mjs" if source.name == _SOURCE else source.name
            (made / name).write_bytes(source.read_bytes())
    for name in models.SHA256:
        (made / "models" / name).write_bytes(models.load_model(name))
    export.export(None, made / "models" / "pulse.tflite", "tflite", form="stream")
    (made / "parts.json").write_text(json.dumps(parts(), separators=(",", ":")))
    shutil.copyfile(confidence.WEIGHTS, made / "confidence.json")
    for name in ("package.json", "package-lock.json"):
        (scratch / name).write_bytes((sources / name).read_bytes())
    _install(scratch)
    _copy_runtime(scratch / _RUNTIME, made / "litert")
    files = sorted(file for file in made.rglob("*") if file.is_file())
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{file.relative_to(made)}\0".encode() + file.read_bytes())
    kept = ["./", *(file.relative_to(made).as_posix() for file in files if file.stat().st_size < _LARGE)]
    worker = (sources / "offline.js").read_text().replace("VERSION", digest.hexdigest()[:16])
    (made / "offline.js").write_text(worker.replace('["FILES"]', json.dumps(kept)))


def parts() -> dict[str, object]:
    """Return what the page must know of faces and of the network, as JSON's types.

    Returns:
      Landmarks of the oval, the holes in it and the parts of the skin; those that turn with the head; the
      frontal face, 468 · 3 numbers; side of the network's pictures in pixels, what is added to them before
      they are rounded, and the network's lag in samples.
    """
    model = host_network.shipped()
    return {
        "oval": skin_map.OVAL,
        "holes": skin_map.HOLES,
        "patches": skin_map.PATCHES,
        "core": skin_map.CORE,
        "left": face_track.LEFT_POINTS,
        "right": face_track.RIGHT_POINTS,
        "template": np.round(face_track.TEMPLATE, 5).ravel().tolist(),
        "cropSize": model.crop_size,
        "dither": np.round(skin_map.dither(model.crop_size), 4).ravel().tolist(),
        "lag": architecture.lag(model.layers),
    }


def _install(folder: Path) -> None:
    """Let npm fetch what the lock file names, without running anything of it."""
    npm = shutil.which("npm")
    if npm is None:
        raise UserError("npm is not installed, and the page's runtime comes by it; install Node.js")
    command = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
    environment = dict(os.environ)
    if not os.access(environment.get("HOME") or "/nowhere", os.W_OK):  # npm gives up without one
        environment["HOME"] = environment["npm_config_cache"] = str(folder)
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, errors="replace", check=False
    )
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()] or ["it gave no reason"]
        why = lines[0].removeprefix("npm error ")
        raise UserError(f"npm cannot fetch the page's runtime ({why}); try again with a network")


def _copy_runtime(installed: Path, to: Path) -> None:
    (to / "wasm").mkdir(parents=True)
    # A browser looks for a file, not for a package's name.
    code = (installed / "core" / "dist" / "index.js").read_text()
    code = code.replace('"@litertjs/wasm-utils"', '"./wasm_utils.js"')
    (to / "index.js").write_text(_without_map(code))
    utils = (installed / "wasm-utils" / "dist" / "index.js").read_text()
    (to / "wasm_utils.js").write_text(_without_map(utils))
    for name in _WASM:
        for end in ("js", "wasm"):
            shutil.copyfile(installed / "core" / "wasm" / f"{name}.{end}", to / "wasm" / f"{name}.{end}")


def _without_map(code: str) -> str:
    return (
        "\n".join(line for line in code.splitlines() if not line.startswith("//# sourceMappingURL=")) + "\n"
    )
