"""robustness.md: tables made from the rows of `robustness.py`, each with the number of runs it rests on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from scipy import stats

from sspd_jax.method import diagnostics

REPORT = Path(__file__).with_suffix("").with_name("robustness.md")
PICTURE = REPORT.with_suffix(".png")
WAVES = REPORT.with_name("robustness_waves.png")
BAD_BPM = 5.0
"""A run whose target network misses by more, on average over people it never saw, is a bad one."""

SETTINGS = ("easy", "default", "hard", "light", "motion", "lamp", "one lamp", "dark")
FIRST_JUDGED = 515
"""People with this seed and later judge the alarm; those before chose it."""

SIGNS = {  # measure → 1 where more is healthier, −1 where less is
    "trust": 1,
    "concentration": 1,
    "in_band": 1,
    "score": 1,
    "views_agree": 1,
    "regions_agree": 1,
    "networks_agree": 1,
    "pos_agrees": 1,
    "steady_pos_agrees": 1,
    "green_agrees": 1,
    "alike": -1,
    "repeated": -1,
    "surround_agrees": -1,
    "at_edge": -1,
    "light_moves": -1,
}
MOST_FALSE = 0.05  # share of good runs that may be called bad where a threshold is chosen

Row = Mapping[str, Any]


def wilson(hits: int, of: int) -> str:
    """Tell a share with its 95 % interval by Wilson's score method, or '–' of none."""
    if not of:
        return "–"
    found = stats.binomtest(hits, of).proportion_ci(method="wilson")
    return f"{hits} of {of} ({found.low:.0%} to {found.high:.0%})"


def median(values: Sequence[float]) -> str:
    """Tell a median, and the range where there are several; with six or more its 95 % interval by ranks."""
    values = np.sort(np.asarray(values, float))
    if not len(values):
        return "–"
    if len(values) == 1:
        return f"{values[0]:.1f}"
    # The k-th smallest and largest hold the median with at least this probability.
    n = len(values)
    k = int(stats.binom.ppf(0.025, n, 0.5))
    low, high, kind = (values[k - 1], values[n - k], "") if k else (values[0], values[-1], "range ")
    return f"{np.median(values):.1f} ({kind}{low:.1f} to {high:.1f})"


def threshold(values: np.ndarray, bad: np.ndarray, sign: int) -> float:
    """Choose the alarm's threshold: most bad runs below it (times `sign`), few good ones.

    Args:
      values: of a measure, float [runs].
      bad: bool [runs].
      sign: 1 where more is healthier.

    Returns:
      A run is called bad where sign · value < sign · threshold.
    """
    diagnostics = sign * values
    candidates = np.concatenate(
        [[-np.inf], (np.sort(diagnostics)[1:] + np.sort(diagnostics)[:-1]) / 2, [np.inf]]
    )
    best, caught = -np.inf, -1.0
    for cut in candidates:
        called = diagnostics < cut
        false = called[~bad].mean() if (~bad).any() else 0.0
        hit = called[bad].mean() if bad.any() else 0.0
        if false <= MOST_FALSE and hit > caught:
            best, caught = cut, hit
    return sign * best


def _floats(rows: Iterable[Row], name: str) -> np.ndarray:
    return np.array([float(row[name]) for row in rows])


def _of(rows: Sequence[Row], **facts: str) -> list[Row]:
    return [row for row in rows if all(row[name] == value for name, value in facts.items())]


def _harmonic(rows: Sequence[Row]) -> str:
    """Tell the errors by `predict`'s read-out, and of how many runs: the first ones were not read so."""
    mine = [row for row in rows if row["harmonic_end"]]
    told = median(_floats(mine, "harmonic_end"))
    return told if len(mine) in (0, len(rows)) else f"{told}, of {len(mine)}"


def _errors(rows: Sequence[Row]) -> list[str]:
    arms = list(dict.fromkeys(row["arm"] for row in rows))
    lines = [
        "| setting | arm | runs | target, MAE bpm | online | harmonics handled | SNR, dB | bad runs | "
        "collapsed |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for setting in (name for name in SETTINGS if _of(rows, setting=name)):
        for arm in arms:
            if mine := _of(rows, setting=setting, arm=arm):
                bad = int((_floats(mine, "target_end") > BAD_BPM).sum())
                lines.append(
                    f"| {setting} | {arm} | {len(mine)} | {median(_floats(mine, 'target_end'))} | "
                    f"{median(_floats(mine, 'online_end'))} | {_harmonic(mine)} | "
                    f"{median(_floats(mine, 'snr_db'))} | "
                    f"{wilson(bad, len(mine))} | {int(_floats(mine, 'collapsed').sum())} |"
                )
        people = {row["people"]: row for row in _of(rows, setting=setting)}.values()
        for name in ("green", "chrom", "pos"):
            lines.append(
                f"| {setting} | {name.upper()} | {len(people)} | {median(_floats(people, name))} | | | | | |"
            )
    return lines


def _called(rows: Sequence[Row], name: str, sign: int, at: float) -> tuple[str, str]:
    """Tell how many bad runs, and how many good ones, a threshold on a measure at a third calls bad."""
    called = sign * _floats(rows, f"{name}_third") < sign * at
    bad = _floats(rows, "target_end") > BAD_BPM
    return wilson(int(called[bad].sum()), int(bad.sum())), wilson(int(called[~bad].sum()), int((~bad).sum()))


def _measures(rows: Sequence[Row]) -> list[str]:
    """Rank correlations over all runs; thresholds from the first people's runs, judged by the others'."""
    chosen_by = [row for row in rows if int(row["people"]) < FIRST_JUDGED]
    judged = [row for row in rows if int(row["people"]) >= FIRST_JUDGED]
    lines = [
        "| measure | ρ with the error, at a third | at the end | threshold at a third | "
        "bad runs caught | good runs called bad |",
        "|---|---|---|---|---|---|",
    ]
    error = _floats(rows, "target_end")
    bad = _floats(chosen_by, "target_end") > BAD_BPM
    table = []
    for name, sign in SIGNS.items():
        rho = []
        for when in ("third", "end"):
            values = _floats(rows, f"{name}_{when}")
            varies = len(rows) > 3 and np.ptp(values) > 0
            rho.append(stats.spearmanr(values, error).statistic if varies else float("nan"))
        told, cut, caught, false = [f"{r:.2f}" if np.isfinite(r) else "–" for r in rho], "–", "–", "–"
        if bad.any() and not bad.all() and judged:  # both kinds, or there is nothing to choose by
            at = threshold(_floats(chosen_by, f"{name}_third"), bad, sign)
            cut = f"{'<' if sign > 0 else '>'} {at:.3g}" if np.isfinite(at) else "none"
            caught, false = _called(judged, name, sign, at)
        line = f"| {name} | {told[0]} | {told[1]} | {cut} | {caught} | {false} |"
        table.append((-abs(np.nan_to_num(rho[0])), line))
    return lines + [line for _, line in sorted(table)]


def _courses(rows: Sequence[Row]) -> list[str]:
    """Errors of the checkpoint that each rule would have kept."""
    rows = [row for row in rows if row["target_course"]]
    lines = [
        "| runs | last | most trusted | highest score | the best there was |",
        "|---|---|---|---|---|",
    ]
    for arm in ("released", "paper", "robust, own speed", "robust", None):
        mine = rows if arm is None else _of(rows, arm=arm)
        if not mine:
            continue
        courses = {
            name: np.array([[float(v) for v in row[f"{name}_course"].split()] for row in mine])
            for name in ("trust", "score", "target")
        }
        target, every = courses["target"], np.arange(len(mine))
        kept = (
            target[:, -1],
            target[every, courses["trust"].argmax(axis=1)],
            target[every, courses["score"].argmax(axis=1)],
            target.min(axis=1),
        )
        cells = [f"{np.mean(errors):.1f}, bad {int((errors > BAD_BPM).sum())}" for errors in kept]
        lines.append(f"| {arm or 'all arms'}, {len(mine)} | {' | '.join(cells)} |")
    return lines


def picture(rows: Sequence[Row]) -> None:
    """Draw the errors by setting and form, and of all runs against the measure that the alarm looks at."""
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    settings = [name for name in SETTINGS if _of(rows, setting=name)]
    shown = ("paper", "released", "robust", "green", "pos")
    for i, (name, colour) in enumerate(zip(shown, ("C7", "C1", "C0", "C2", "k"), strict=True)):
        for x, setting in enumerate(settings):
            mine = _of(rows, setting=setting)
            if name in ("green", "pos"):
                values = _floats({row["people"]: row for row in mine}.values(), name)
            else:
                values = _floats(_of(mine, arm=name), "target_end")
            label = (name.upper() if i > 2 else name) if not x else None
            left.plot(
                np.full(len(values), x + (i - 2) / 7), values, "o", ms=4, c=colour, alpha=0.7, label=label
            )
    left.set(
        yscale="log", ylabel="mean absolute error, bpm", xticks=range(len(settings)), xticklabels=settings
    )
    left.axhline(BAD_BPM, c="0.8", lw=0.8, zorder=0)
    left.legend(fontsize=8, ncols=5, loc="upper center", bbox_to_anchor=(0.5, 1.1), frameon=False)
    error, trust = _floats(rows, "target_end"), _floats(rows, "trust_third")
    right.plot(trust, error, "o", ms=4, c="C0", alpha=0.6)
    right.axvline(diagnostics.TRUSTED, c="0.8", lw=0.8, zorder=0)
    right.axhline(BAD_BPM, c="0.8", lw=0.8, zorder=0)
    right.set(yscale="log", xlabel="trust at a third of the training", ylabel="error at its end, bpm")
    figure.savefig(PICTURE, dpi=110, metadata={"Software": None})


def draw_waves(waves: Mapping[str, np.ndarray], true: np.ndarray, lamp_bpm: float, fps: float) -> None:
    """Draw the spectra of waves, a row for each person, in the order of their heart rates.

    Args:
      waves: arm → float [people, t].
      true: of the people, bpm.
      lamp_bpm: of the lamp that everybody sits under.
      fps: of the waves, Hz.
    """
    figure = Figure(figsize=(11, 3.4), layout="constrained")
    order = np.argsort(true)
    for axis, (arm, wave) in zip(figure.subplots(1, len(waves), sharey=True), waves.items(), strict=True):
        tapered = (wave - wave.mean(axis=1, keepdims=True)) * np.hanning(wave.shape[1])
        power = np.abs(np.fft.rfft(tapered, 2048)) ** 2
        bpm = np.fft.rfftfreq(2048, 1 / fps) * 60
        shown = (bpm > 36) & (bpm < 180)
        power = power[:, shown] / power[:, shown].max(axis=1, keepdims=True)
        axis.pcolormesh(bpm[shown], np.arange(len(true)), power[order], cmap="Greys", rasterized=True)
        axis.plot(true[order], np.arange(len(true)), "o", ms=6, mfc="none", mec="C0", label="heart rate")
        axis.axvline(lamp_bpm, c="C1", lw=1, ls=":", label="the lamp")
        axis.set(title=arm, xlabel="bpm", yticks=[])
    figure.axes[0].set_ylabel("people, slowest heart first")
    figure.axes[0].legend(fontsize=8, loc="lower right")
    figure.savefig(WAVES, dpi=110, metadata={"Software": None})


def write(rows: Sequence[Row], left: Mapping[str, int], about: str) -> str:
    """Write robustness.md.

    Args:
      rows: of the CSV.
      left: plan → how many runs of it are still to be made.
      about: a sentence on network and clips.

    Returns:
      The text.
    """
    trials = [row for row in rows if int(row["people"]) < 510]
    study = [row for row in rows if int(row["people"]) >= 510]
    bad = int((_floats(rows, "target_end") > BAD_BPM).sum()) if rows else 0
    lines = [
        "# What SSPD follows, and what keeps it with the pulse",
        "",
        "`python benchmarks/robustness/robustness.py`; a row per run is in [robustness.csv](robustness.csv).",
        "",
        about,
        "",
        f"Made so far: {len(trials)} trials on people of seed 500, by which the robust form was chosen, and "
        f"{len(study)} runs of the study on people of other seeds. Still to run: "
        f"{', '.join(f'{n} of the {plan}' for plan, n in left.items())}. A run is *bad* if its target "
        f"network misses by more than {BAD_BPM:g} bpm on average; *collapsed* if three quarters "
        "of the people are given the same rate. Rates are the highest peaks of the spectra, of all methods "
        "and of the truth; *harmonics handled* is the error by the read-out that `predict` has by default, "
        "which knows that the second harmonic may be stronger than the pulse. Medians over runs; in "
        "brackets the range, or with six runs and more the 95 % interval of the median by ranks; shares "
        "with Wilson's 95 % intervals.",
    ]
    if study:
        picture(study)
        lines += ["", "## Study: people no choice was made on", ""]
        lines += [f"![Errors of every run, and the measure that tells them apart]({PICTURE.name})", ""]
        lines += _errors(study)
        if WAVES.exists():
            lines += [
                "",
                f"![Spectra of what four networks say of twelve people under one lamp]({WAVES.name})",
                "",
                "What networks say of twelve people they never saw, setting *one lamp*: a row is a person, "
                "dark is power, the ring is where the heart is. The published forms give everybody the lamp.",
            ]
    if trials:
        lines += ["", "## Trials: what was chosen by", "", *_errors(trials)]
    if rows:
        lines += [
            "",
            "## Health without labels",
            "",
            f"All {len(rows)} runs of every arm and setting, {bad} of them bad. ρ: Spearman's rank "
            "correlation of the measure with the true error of the target network at the end. The threshold "
            f"is the one that catches most bad runs with at most {MOST_FALSE:.0%} of the good ones among the "
            f"runs on people before seed {FIRST_JUDGED}; it is judged on the others', at a third of the "
            "training.",
            "",
            *_measures(rows),
        ]
        judged = [row for row in study if int(row["people"]) >= FIRST_JUDGED]
        caught, false = _called(judged, "trust", 1, diagnostics.TRUSTED)
        lines += [
            "",
            f"The alarm that is wired, `trust` below {diagnostics.TRUSTED:g}, was chosen by the first 65 "
            f"runs, all on people before seed {FIRST_JUDGED}, probed on six clips, the later ones on twelve. "
            f"On the others, at a third of the training: bad runs caught {caught}, good runs called bad "
            f"{false}.",
        ]
        by_setting = {name: _of(judged, setting=name) for name in SETTINGS}
        lines += ["", "| setting | bad runs caught | good runs called bad |", "|---|---|---|"]
        lines += [
            f"| {name} | {' | '.join(_called(mine, 'trust', 1, diagnostics.TRUSTED))} |"
            for name, mine in by_setting.items()
            if mine
        ]
        lines += [
            "",
            "## Which checkpoint to keep",
            "",
            "Mean error in bpm, and how many runs are bad, if of the checkpoints at a sixth, a third, two "
            "thirds and the end of the training the last is kept, the most trusted, the one with the highest "
            "score, or the one whose error is smallest, which needs labels.",
            "",
            *_courses(rows),
        ]
    text = "\n".join(lines) + "\n"
    notes = REPORT.with_name("robustness_notes.md")
    if notes.exists():
        text += "\n" + notes.read_text()
    REPORT.write_text(text)
    return text
