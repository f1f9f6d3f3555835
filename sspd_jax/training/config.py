"""Experiments as configurations: defaults, forms, checks.

A file in `configs/` has `get_config(variants: str)` that starts from `default()` and applies the
variants a user names after a colon: `configs/ubfc.py:released,smoke`. Everything that can be wrong with a
configuration is said by `validate`, in one place, before any work begins.
"""

from __future__ import annotations

import contextvars
import copy
import inspect
import math
import operator
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import ml_collections
from absl import flags
from ml_collections import config_flags

from sspd_jax.checkpoints.renamed_keys import EARLIER_TABLES, REMOVED, RENAMED
from sspd_jax.datasets import splits
from sspd_jax.datasets.readers.registry import READERS
from sspd_jax.errors import ConfigError, did_you_mean
from sspd_jax.heart_rate import estimators
from sspd_jax.inference.windows import REGIONS
from sspd_jax.method import losses, param_labels, spectrum, target_ema, views
from sspd_jax.method.settings import (
    CROP_SIZE,
    FPS,
    NetworkSettings,
    network_settings,
    network_table,
)
from sspd_jax.runtime import distributed
from sspd_jax.training import presets
from sspd_jax.training.compiled import STEP_COMPILERS
from sspd_jax.training.step import StepConfig, make_optimizer
from sspd_jax.video.crop import BOX, FACE_CROPS, SKIN
from sspd_jax.video.face_detection import DETECTORS
from sspd_jax.video.skin_traces import MAP_SIZE

_READING_FILE = contextvars.ContextVar("_READING_FILE", default=False)
"""Whether `default` is called for a file, which may set keys in tables of earlier versions."""


def default(form: Mapping[str, Any] = presets.PAPER) -> ml_collections.ConfigDict:
    """Build the configuration of the published training, in the given form.

    Args:
      form: Table out of `sspd_jax.training.presets`.

    Returns:
      A new, unlocked ConfigDict.
    """
    config = ml_collections.ConfigDict(
        {
            "seed": 0,
            "init_from": "",  # a checkpoint, or a run's work directory, to go on from; '': a fresh network
            "fps": FPS,  # Hz, of the clips
            "clip_frames": 300,  # difference frames in a clip (T); one more frame is read
            "crop_size": CROP_SIZE,  # pixels, height and width of the face crops that views are made from
            "face_crop": BOX,  # what they show: the face in its 'box', or its 'skin' alone
            "batch_size": 12,  # clips in a step
            "epochs": 30,  # each draws one random window of every recording
            "network": network_table(NetworkSettings()),
            "views": {},
            "terms": {},
            # Clips that the networks read again at the end of every epoch, changed in ways that leave the
            # pulse alone, see sspd_jax.method.diagnostics.probe; 0: none.
            # With a patience the training ends when so many epochs brought no network that is trusted more,
            # and the one that is trusted most is what it gives; 0: the last one, after all epochs.
            "health": {"clips": 0, "patience": 0},
            # Slowest speed that the online network's view of a clip is played at, see
            # sspd_jax.method.time_stretch; 1: always its own.
            "time_stretch": {"min_speed": 1.0},
            "optimizer": {"learning_rate": 1e-3, "b1": 0.9, "b2": 0.999, "eps": 1e-8, "frozen": ()},
            "target": {"momentum": 0.9},  # at the first step; it rises to 1 by a cosine
            "data": {
                "name": "ubfc_rppg",  # which reader understands the recordings
                "source": "",  # where the recordings are; '' once they are prepared
                "data_dir": "data/ubfc_rppg",  # where the prepared dataset is, or lands
                "keep_going": False,  # prepare without the recordings that cannot be
                "workers": 0,  # recordings prepared at once; 0: one for each core, 8 at most
                # 'haar' or 'yunet' (which needs its model's path); follow_every_s 0: one box for all frames.
                "face": {"detector": "haar", "model": "", "follow_every_s": 0.0},
                # Whether the skin's traces are recorded beside the crops, which the evaluation reads.
                "skin": True,
                # Whether the frames to learn from lie in the memory of all devices together, and batches are
                # cut out there: 'always', 'never', or 'auto': on GPU and TPU if they take a quarter of it.
                "on_device": "auto",
                # Who is learned from and who is tested on, see sspd_jax.datasets.splits.of_dataset.
                "split": {"kind": "people", "name": "", "folds": 5, "fold": 0, "seed": 0},
                "train_people": (),
                "test_people": (),
            },
            "evaluation": {
                "reader": "target",  # which of the two networks is the primary one, fixed before testing
                "hr_estimator": "spectrum",  # from wave to rate, see sspd_jax.heart_rate.estimators
                "window_s": 10.0,  # s
                "stride_s": 10.0,  # s
                "region": "skin",  # what classical methods read, 'skin' as predict does, or 'crop'
            },
            # The last ones are kept, beside the best by the label-free score. One is made at the end of every
            # epoch, and every so many steps (0: no others).
            "checkpoint": {"keep": 3, "every_steps": 0},
            "log_every": 5,  # steps between two lines of the log
            "parallel": "jit",  # how a step is spread over devices: 'jit' or 'pmap' (one process only)
            "distributed": "off",  # 'auto': several processes, see docs/pods.md
            "compilation_cache": True,  # keep what was compiled in the work directory
        }
    )
    apply_form(config, form)
    if _READING_FILE.get():
        config.update({table: {} for table in EARLIER_TABLES})
    return config


def apply_form(config: ml_collections.ConfigDict, form: Mapping[str, Any]) -> None:
    """Write a form's views, network variant, terms and what else it sets into a configuration, in place."""
    form = copy.deepcopy(dict(form))
    config.views = form["views"]
    config.terms = form["terms"]
    config.network.update(form["network"])
    config.health.update(form.get("health", {"clips": 0, "patience": 0}))
    config.time_stretch.update(form.get("time_stretch", {"min_speed": 1.0}))


SMOKE_CROP_SIZE = 68  # pixels


def apply_smoke(config: ml_collections.ConfigDict) -> None:
    """Shrink an experiment, in place, to one that any machine runs in seconds.

    Its crops are prepared beside the experiment's own, whose size is another: a trial is in nobody's way.
    """
    if config.crop_size != SMOKE_CROP_SIZE:
        config.data.data_dir += "_smoke"
    config.network.update(
        input_size=58, stages=((4, 4), (4, 8)), features=16, predictor_width=8, ts_kernels=(9, 7, 5)
    )
    config.crop_size = SMOKE_CROP_SIZE
    config.clip_frames = 96
    config.batch_size = 2
    config.epochs = 2


def _halving_strides(config: ml_collections.ConfigDict) -> tuple[int, ...]:
    """Stride 2 in every block, as long as the scale still holds the pulse band (30 Hz: 15, 7.5, 7.5)."""
    strides: list[int] = []
    for _ in config.network.ts_kernels:
        rate_hz = config.fps / math.prod([*strides, 2])
        strides.append(2 if rate_hz >= 2 * spectrum.PULSE_BAND_HZ[1] else 1)
    return tuple(strides)


VARIANTS: Mapping[str, Callable[[ml_collections.ConfigDict], None]] = {
    "paper": lambda config: apply_form(config, presets.PAPER),
    "released": lambda config: apply_form(config, presets.RELEASED),
    "robust": lambda config: apply_form(config, presets.ROBUST),
    "downsampled": lambda config: config.network.update(ts_strides=_halving_strides(config)),
    "smoke": apply_smoke,
}
"""What may follow an experiment and a colon in `--config`, several separated by commas."""


def for_dataset(
    name: str, *, split: Mapping[str, Any], **data: Any
) -> Callable[[str], ml_collections.ConfigDict]:
    """Make the `get_config` of a dataset that is trained on as published for UBFC-rPPG.

    Args:
      name: Name of the dataset's reader; the prepared dataset lands in data/<name>.
      split: Table `data.split`: who is tested, see `sspd_jax.datasets.splits.of_dataset`.
      data: Other settings of `config.data`.

    Returns:
      Function of comma-separated names out of `VARIANTS` → the configuration.

    Example:
      >>> get_config = for_dataset("pure", split={"by": "person"})
      >>> get_config().data.data_dir
      'data/pure'
    """

    def get_config(variants: str = "") -> ml_collections.ConfigDict:
        config = default()
        config.data.update(name=name, data_dir=f"data/{name}", **data)
        config.data.split.update(split)
        return with_variants(config, variants)

    return get_config


def with_variants(config: ml_collections.ConfigDict, variants: str) -> ml_collections.ConfigDict:
    """Apply comma-separated variants, in order, in place.

    Args:
      config: The configuration without variants.
      variants: Names out of `VARIANTS`, or ''.

    Returns:
      The same configuration.

    Raises:
      ConfigError: A variant is unknown.
    """
    for name in filter(None, (part.strip() for part in variants.split(","))):
        if name not in VARIANTS:
            raise ConfigError(f"config variant {name!r} is unknown{did_you_mean(name, VARIANTS)}")
        VARIANTS[name](config)
    return config


def load(spec: str, overrides: Iterable[str] = ()) -> ml_collections.ConfigDict:
    """Load `path/to/config.py[:variants]` and override values in it.

    Args:
      spec: Path to a file with `get_config(variants)`, or the name of a shipped one (see `find`), and
        variants after a colon.
      overrides: `key.subkey=value` assignments, as on the command line after `--config.`.

    Returns:
      The locked configuration, not validated yet.

    Raises:
      ConfigError: The file is missing or cannot be executed as a configuration, or an override names no
        key or has a value of another type. A key that an older version knew by another name is accepted, and
        the new name is printed.

    Example:
      >>> config = load("ubfc:released,smoke", ["seed=3"])
      >>> config.seed, config.epochs
      (3, 2)
    """
    path, colon, variants = spec.partition(":")
    file = find(path, ".py")
    for earlier, module in EARLIER_MODULES.items():
        sys.modules.setdefault(earlier, module)
    values = flags.FlagValues()
    overrides = [*map(_with_current_name, overrides)]
    arguments = [f"--config={file}{colon}{variants}", *(f"--config.{assignment}" for assignment in overrides)]
    config_flags.DEFINE_config_file("config", flag_values=values, sys_argv=["sspd_jax", *arguments])
    reading = _READING_FILE.set(True)
    try:
        values(["sspd_jax", *arguments])
        if isinstance(values.config, ml_collections.ConfigDict):
            _use_current_names(values.config, {assignment.partition("=")[0] for assignment in overrides})
    except ConfigError:
        raise
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError) as error:
        raise ConfigError(f"{' '.join(arguments)}: {_one_line(error)}") from error
    except Exception as error:  # whatever the user's own file raises
        raise ConfigError(f"config file {path} fails with {type(error).__name__}: {error}") from error
    finally:
        _READING_FILE.reset(reading)
    if not isinstance(values.config, ml_collections.ConfigDict):
        raise ConfigError(f"config file {path}: get_config returns {values.config!r}, not a ConfigDict")
    return values.config


def _use_current_names(config: ml_collections.ConfigDict, overridden: Iterable[str]) -> None:
    """Move what a file set under an older version's name to today's, in place; an override wins."""
    with config.unlocked():
        for old, new in RENAMED.items():
            (old_table, old_name), (table, name) = old.split("."), new.split(".")
            if old_name in config.get(old_table, {}):
                print(f"note: config key {old!r} is now {new!r}", file=sys.stderr)
                if new not in overridden:
                    config[table][name] = config[old_table][old_name]
                del config[old_table][old_name]
        for table in EARLIER_TABLES:
            if not config.get(table, True):
                del config[table]


def _with_current_name(assignment: str) -> str:
    """Replace an older version's name in a `key=value` by today's, and say so."""
    key, equals, value = assignment.partition("=")
    if reason := REMOVED.get(key.partition(".")[0]):
        raise ConfigError(f"config key {key!r} is gone: {reason}")
    if key not in RENAMED:
        return assignment
    print(f"note: config key {key!r} is now {RENAMED[key]!r}", file=sys.stderr)
    return f"{RENAMED[key]}{equals}{value}"


EARLIER_MODULES = {"sspd_jax.config": sys.modules[__name__], "sspd_jax.forms": presets}
"""Modules under the names that configuration files of earlier versions import them by."""


READER_NAMES = {"ubfc_rppg": "ubfc", "ubfc_rppg_1": "ubfc1"}
"""Experiments by the names that their datasets' readers have; the same name works for both."""

SHIPPED_FOLDERS = (Path(__file__).parents[1] / "configs", Path(__file__).parents[2] / "configs")
"""Where the shipped experiments are: in an installed package, and in the repository."""


def shipped(suffix: str = ".py") -> dict[str, Path]:
    """List the experiments that come with the package: name → file.

    Args:
      suffix: '.py' for experiments, '.toml' for studies.
    """
    folder = next((folder for folder in SHIPPED_FOLDERS if (folder / "ubfc.py").is_file()), None)
    return {} if folder is None else {path.stem: path for path in sorted(folder.glob(f"*{suffix}"))}


def find(path: str, suffix: str) -> Path:
    """Find an experiment's file: the one that is named, else the shipped one of that name.

    'ubfc' and 'configs/ubfc.py' mean the shipped file where the current directory has none of that name, so
    what is written for the repository works where the package is installed.

    Args:
      path: Path of a file, or the name of a shipped one.
      suffix: '.py' or '.toml'.

    Raises:
      ConfigError: There is neither.
    """
    given = Path(path)
    if given.is_file():
        return given
    known = shipped(suffix)
    if given.parent in (Path(), Path("configs")) and given.suffix in ("", suffix):
        name = READER_NAMES.get(given.stem, given.stem)
        if name in known:
            return known[name]
    raise ConfigError(
        f"config file {path} does not exist; give a file, or one of those shipped: {', '.join(known)}"
    )


def keys_named(name: str) -> list[str]:
    """Return the keys of a configuration that are called `name`, with the tables they are in or without."""
    found: list[str] = []

    def look(table: ml_collections.ConfigDict, prefix: str) -> None:
        for key, value in table.items():
            if name in (key, f"{prefix}{key}"):
                found.append(f"{prefix}{key}")
            if isinstance(value, ml_collections.ConfigDict):
                look(value, f"{prefix}{key}.")

    look(default(), "")
    return found


def name_of(spec: str) -> str:
    """Name an experiment after its file and variants: 'configs/ubfc.py:released' is 'ubfc-released'."""
    path, _, variants = spec.partition(":")
    return "-".join([Path(path).stem, *filter(None, variants.split(","))])


def _one_line(error: Exception) -> str:
    text = str(error.args[0] if error.args else error)
    if "Traceback" in text:  # of the user's file: what it ends with is what went wrong
        text = text.strip().splitlines()[-1]
    text = " ".join(text.split())
    if not isinstance(error, AttributeError | KeyError):
        return text
    # ml_collections raises these with little more than the key's name, in quotes of several kinds.
    text = " ".join(text.replace("\\n", " ").replace("\\'", "'").split()).strip("'\"")
    if found := re.search(r'Did you mean "(\w+)" instead of "(\w+)"', text):
        text = f"{found[2]!r}; did you mean {found[1]!r}?"
    return f"unknown key {text}"


def validate(config: ml_collections.ConfigDict) -> StepConfig:
    """Check every value and every rule between values, and build the method they describe.

    Args:
      config: An experiment's configuration.

    Returns:
      The static part of a training step; `momentum` is for one step an epoch until `method` is given the
      number of recordings.

    Raises:
      ConfigError: A value is impossible; the sentence names the key, the value and what is allowed.

    Example:
      >>> validate(load("ubfc")).network.ts_kernels
      (9, 7, 5)
      >>> validate(load("ubfc", ["fps=3"]))
      Traceback (most recent call last):
      sspd_jax.errors.ConfigError: config fps is 3.0; it must be 6 to 1000 Hz (the pulse band ends at 3 Hz)
    """
    return method(config, total_steps=int(config.get("epochs", 1)) or 1)


def method(config: ml_collections.ConfigDict, total_steps: int) -> StepConfig:
    """Check a configuration and build the method it describes.

    Args:
      config: An experiment's configuration.
      total_steps: Number of optimiser steps of the whole training, over which the target's momentum rises.

    Returns:
      The static part of a training step.

    Raises:
      ConfigError: A value is impossible; the sentence names the key, the value and what is allowed.

    Example:
      The target's momentum rises over the whole training:

      >>> momentum = method(load("ubfc"), total_steps=100).momentum
      >>> round(float(momentum(0)), 3), round(float(momentum(100)), 3)
      (0.9, 1.0)
    """
    _check_keys(config, default(), "")
    for key, least in _WHOLE_NUMBERS.items():
        _require_whole(config, key, least)
    _require(6 <= config.fps <= 1000, "fps", config.fps, "6 to 1000 Hz (the pulse band ends at 3 Hz)")
    _require(config.clip_frames % 2 == 0, "clip_frames", config.clip_frames, "an even number")
    _check_face_crop(config)
    _check_optimizer(config)
    _check_people(config)
    _check_evaluation(config)
    for key, known in (("parallel", tuple(STEP_COMPILERS)), ("distributed", distributed.MODES)):
        _require(config[key] in known, key, config[key], f"one of {known}")
    if config.health.patience and not config.health.clips:
        raise ConfigError(
            f"health.patience is {config.health.patience} and health.clips 0: without clips there is no "
            "trust to wait for; set health.clips"
        )
    min_speed = config.time_stretch.min_speed
    _require(0.5 <= min_speed <= 1, "time_stretch.min_speed", min_speed, "from 0.5 to 1 (off)")
    _require(isinstance(config.init_from, str), "init_from", config.init_from, "a path")
    if config.parallel == "pmap" and config.distributed != "off":
        raise ConfigError("config parallel 'pmap' is for one process; several need parallel 'jit'")
    cache = config.compilation_cache
    _require(isinstance(cache, bool), "compilation_cache", cache, "a boolean")
    on_device, known = config.data.on_device, ("auto", "always", "never")
    _require(on_device in known, "data.on_device", on_device, f"one of {known}")

    network = network_settings(config)
    local, whole = (_view_settings(config, network, name) for name in ("online", "target"))
    terms = _check_terms(config)
    _check_scales(config, network)
    optimizer, momentum = config.optimizer, config.target.momentum
    schedule = target_ema.target_momentum(total_steps, base=momentum)
    return StepConfig(
        network=network,
        local_view=local,
        global_view=whole,
        terms=terms,
        optimizer=make_optimizer(
            optimizer.learning_rate,
            schedule,
            b1=optimizer.b1,
            b2=optimizer.b2,
            eps=optimizer.eps,
            frozen=tuple(optimizer.frozen),
        ),
        momentum=schedule,
        fps=float(config.fps),
        seed=config.seed,
        min_speed=float(min_speed),
    )


def _check_face_crop(config: ml_collections.ConfigDict) -> None:
    """Check what crops show, and what goes with those of the skin alone."""
    name = config.face_crop
    if name not in FACE_CROPS:
        hint = did_you_mean(str(name), FACE_CROPS)
        raise ConfigError(f"config face_crop is {name!r}; it must be one of {FACE_CROPS}{hint}")
    if name == SKIN:
        what = f"{MAP_SIZE} pixels or less where face_crop is 'skin'"
        _require(config.crop_size <= MAP_SIZE, "crop_size", config.crop_size, what)
        _require(config.data.skin is True, "data.skin", config.data.skin, "True where face_crop is 'skin'")
        for key, usual in (("detector", "haar"), ("follow_every_s", 0)):
            value = config.data.face[key]
            what = f"{usual!r} where face_crop is 'skin', of a face that is followed by its landmarks"
            _require(value == usual, f"data.face.{key}", value, what)


def _check_optimizer(config: ml_collections.ConfigDict) -> None:
    optimizer, momentum = config.optimizer, config.target.momentum
    _require(optimizer.learning_rate > 0, "optimizer.learning_rate", optimizer.learning_rate, "more than 0")
    _require(optimizer.eps > 0, "optimizer.eps", optimizer.eps, "more than 0")
    for key in ("b1", "b2"):
        _require(0 <= optimizer[key] < 1, f"optimizer.{key}", optimizer[key], "0 or more and less than 1")
    _require(
        set(optimizer.frozen) <= set(param_labels.LABELS),
        "optimizer.frozen",
        tuple(optimizer.frozen),
        f"a choice of {param_labels.LABELS}",
    )
    _require(0 <= momentum <= 1, "target.momentum", momentum, "0 to 1")


def _view_settings(
    config: ml_collections.ConfigDict, network: NetworkSettings, name: str
) -> views.ViewSettings:
    try:
        view = views.view_settings(config.views[name])
    except ValueError as error:
        raise ConfigError(f"config views.{name}: {error}") from error
    if view.crop == "random" and network.input_size > config.crop_size:
        raise ConfigError(
            f"views.{name}.crop cuts {network.input_size} pixels (network.input_size) out of crops of "
            f"{config.crop_size} (crop_size); make crop_size larger or input_size smaller"
        )
    return view


def _check_terms(config: ml_collections.ConfigDict) -> dict[str, dict[str, Any]]:
    """Check that every term exists, has a weight and exactly its settings; return them as plain dicts."""
    terms = {name: dict(settings) for name, settings in config.terms.items()}
    _require(bool(terms), "terms", terms, "at least one term")
    for name, settings in terms.items():
        if name not in losses.TERMS:
            raise ConfigError(f"config key 'terms.{name}' is unknown{did_you_mean(name, losses.TERMS)}")
        takes = {"weight", *list(inspect.signature(losses.TERMS[name]).parameters)[2:]}
        if set(settings) != takes:
            raise ConfigError(f"terms.{name} has {sorted(settings)} and needs {sorted(takes)}")
        weight = settings["weight"]
        _require(math.isfinite(weight) and weight >= 0, f"terms.{name}.weight", weight, "0 or more")
    return terms


def _check_people(config: ml_collections.ConfigDict) -> None:
    """Check that nobody is both learned from and tested on."""
    lists = {key: tuple(config.data[key]) for key in ("train_people", "test_people")}
    _require(isinstance(config.data.keep_going, bool), "data.keep_going", config.data.keep_going, "a boolean")
    if config.data.source:
        known = tuple(sorted(READERS))
        _require(config.data.name in READERS, "data.name", config.data.name, f"one of {known}")
    _require(isinstance(config.data.skin, bool), "data.skin", config.data.skin, "a boolean")
    face = config.data.face
    _require(face.detector in DETECTORS, "data.face.detector", face.detector, f"one of {DETECTORS}")
    _require(face.follow_every_s >= 0, "data.face.follow_every_s", face.follow_every_s, "0 s or more")
    split = config.data.split
    _require(split.kind in splits.KINDS, "data.split.kind", split.kind, f"one of {splits.KINDS}")
    if split.kind == "published":
        splits.published(config.data.name, split.name)
    if split.kind == "protocol":
        known = splits.PROTOCOLS
        _require(split.name in known, "data.split.name", split.name, f"one of {known}")
    if split.kind == "folds":
        for key, least in (("folds", 2), ("fold", 0), ("seed", 0)):
            _require_whole(config, f"data.split.{key}", least)
        _require(
            split.fold < split.folds, "data.split.fold", split.fold, f"below data.split.folds, {split.folds}"
        )
    for key, people in lists.items():
        named = all(isinstance(person, str) and person for person in people)
        _require(named, f"data.{key}", people, "a tuple of names of people")
    both = sorted(set(lists["train_people"]) & set(lists["test_people"]))
    if both:
        raise ConfigError(f"data.train_people and data.test_people share {', '.join(both)}; split by person")


def _check_evaluation(config: ml_collections.ConfigDict) -> None:
    table = config.evaluation
    _require(table.reader in ("online", "target"), "evaluation.reader", table.reader, "'online' or 'target'")
    known = tuple(estimators.OF_RAW_WAVES)
    _require(table.hr_estimator in known, "evaluation.hr_estimator", table.hr_estimator, f"one of {known}")
    _require(table.window_s >= 4, "evaluation.window_s", table.window_s, "4 s or more")
    _require(table.stride_s > 0, "evaluation.stride_s", table.stride_s, "more than 0 s")
    _require(table.region in REGIONS, "evaluation.region", table.region, f"one of {REGIONS}")


def _check_scales(config: ml_collections.ConfigDict, network: NetworkSettings) -> None:
    """Check that every scale is long and fast enough to show a pulse."""
    try:
        lengths = network.scale_lengths(config.clip_frames)
    except ValueError as error:
        raise ConfigError(f"clip_frames: {error}") from error
    low, high = spectrum.PULSE_BAND_HZ
    for i, (length, relative) in enumerate(zip(lengths, network.relative_rates, strict=True), 1):
        fps = config.fps * relative
        if fps < 2 * high:
            raise ConfigError(
                f"network.ts_strides {tuple(network.ts_strides)} leave {fps:g} Hz at scale {i}; "
                f"the pulse band needs {2 * high:g} Hz or more"
            )
        if length < fps / low:
            raise ConfigError(
                f"clip_frames {config.clip_frames} leaves {length / fps:.2g} s at scale {i}; "
                f"one period of {low:g} Hz needs {1 / low:g} s"
            )


def _require(holds: bool, key: str, value: Any, allowed: str) -> None:
    if not holds:
        raise ConfigError(f"config {key} is {value!r}; it must be {allowed}")


_WHOLE_NUMBERS = {
    **dict.fromkeys(("clip_frames", "crop_size", "batch_size", "epochs", "log_every", "checkpoint.keep"), 1),
    **dict.fromkeys(("seed", "checkpoint.every_steps", "health.clips", "health.patience", "data.workers"), 0),
}
"""Keys of whole numbers, and the least that each may be."""


def _require_whole(config: ml_collections.ConfigDict, key: str, least: int) -> None:
    value = operator.attrgetter(key)(config)
    _require(isinstance(value, int) and value >= least, key, value, f"a whole number ≥ {least}")


_FREE_TABLES = ("terms",)  # their keys are checked against the registry, not against the default


def _check_keys(table: Any, reference: Any, prefix: str) -> None:
    """Check that a table has exactly the default's keys, all the way down."""
    known = set(reference.keys())
    for name in table:
        if name not in known:
            moved = [new for old, new in RENAMED.items() if f"{old}.".startswith(f"{prefix}{name}.")]
            hint = f"; it is now {moved[0]!r}" if moved else did_you_mean(name, known)
            raise ConfigError(f"config key '{prefix}{name}' is unknown{hint}")
    for name in sorted(known):
        if name not in table:
            raise ConfigError(f"config key '{prefix}{name}' is missing")
        value, default_value = table[name], reference[name]
        if isinstance(default_value, ml_collections.ConfigDict):
            if not isinstance(value, ml_collections.ConfigDict):
                raise ConfigError(f"config key '{prefix}{name}' must be a table, not {value!r}")
            if prefix + name not in _FREE_TABLES:
                _check_keys(value, default_value, f"{prefix}{name}.")
        elif isinstance(default_value, int | float) and not isinstance(default_value, bool):
            number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
            _require(number, prefix + name, value, "a finite number")
