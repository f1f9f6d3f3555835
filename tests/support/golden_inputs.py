"""The golden numbers, and the inputs that `golden/README.md` says they belong to."""

import importlib.util
import json
import zlib
from pathlib import Path

import numpy as np

_FOLDER = Path(__file__).parents[1] / "golden"
_spec = importlib.util.spec_from_file_location("golden_recipe", _FOLDER / "recipe.py")
recipe = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(recipe)

FPS = 30.0
SCALE_LENGTHS = (56, 50, 46)


def load(name):
    """Read a file of golden numbers as a dict."""
    with np.load(_FOLDER / f"{name}.npz") as numbers:
        return dict(numbers)


def state_dict():
    """Make the weights that forward passes and training steps start from, as PyTorch names them."""
    return recipe.weights(json.loads((_FOLDER / "state_dict_layout.json").read_text()))


def video(name):
    """Make frame differences [2, 64, 128, 128, 3], RGB (the recipe's frames are BGR)."""
    return np.diff(recipe.frames(name, 2, 65, 128), axis=1)[..., ::-1].copy()


def features(prefix):
    """Make the features of three scales: 'po' for the online network, 'pt' for the target."""
    made = []
    for i, length in enumerate(SCALE_LENGTHS):
        beat = np.sin(2 * np.pi * 1.3 * np.arange(length) / FPS)[None, :, None]
        made.append(
            0.5 * recipe.signal(f"{prefix}{i}", (2, length, 256))
            + beat * recipe.signal(f"dir{i}", (1, 1, 256))
        )
    return tuple(f.astype(np.float32) for f in made)


def wave(name):
    """Make the waves of two clips: 'wo' of the online network, 'wt' of the target."""
    return recipe.signal(name, (2, 64))


def probe(name, array):
    """Summarise a tensor by its norm and its product with a random direction of the name's own."""
    flat = np.asarray(array, np.float64).ravel()
    direction = np.random.default_rng(zlib.crc32(f"probe{name}".encode())).standard_normal(flat.size)
    return np.linalg.norm(flat), flat @ direction
