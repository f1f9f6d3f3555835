"""From the files of every dataset to a trained and tested network, by the one command a person types."""

import json
from pathlib import Path

import dataset_files
import pytest
import small_run

from sspd_jax import main
from sspd_jax.evaluation import report
from sspd_jax.training import compiled

ROOT = Path(__file__).parents[2]
CONFIGS = {
    "ubfc": "ubfc_rppg",
    "ubfc1": "ubfc_rppg_1",
    "pure": "pure",
    "cohface": "cohface",
    "mmpd": "mmpd",
    "ubfc_phys": "ubfc_phys",
    "vipl_hr": "vipl_hr",
    "scamps": "scamps",
    "folder": "folder",
}
SMALL = {
    "crop_size": 26,
    "clip_frames": 80,
    "batch_size": 1,  # one device each: one compilation serves all
    "epochs": 1,
    **small_run.NETWORK,
    "evaluation.window_s": 4,
    "evaluation.stride_s": 4,
}
# Slow, all of them: the fast tier reads, prepares, splits and trains on one of each (tests/unit).
SPLIT = {
    "ubfc": {"data.train_people": "('subject1',)", "data.test_people": "('subject2',)"},
    "ubfc_phys": {
        "data.split.kind": "folds",
        "data.split.folds": 2,
    },  # the published list has others than two
}


@pytest.fixture(autouse=True, scope="module")
def compiled_once(kept_programs):
    """All of these trainings compile the same: once. The report's pictures are tested elsewhere."""
    original, steps = compiled.STEP_COMPILERS["jit"], {}

    def compile_train_step(step_config, mesh, **options):
        return steps.setdefault((mesh.size, *options.values()), original(step_config, mesh, **options))

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(compiled.STEP_COMPILERS, "jit", compile_train_step)
        patch.setattr(report, "render", lambda *_, **__: "")
        yield


@pytest.mark.usefixtures("quick_compilation")
@pytest.mark.slow
@pytest.mark.parametrize("name", CONFIGS)
def test_the_one_command_prepares_trains_and_tests(name, tmp_path, capsys):
    dataset_files.WRITERS[CONFIGS[name]](tmp_path / "raw")
    values = {
        **SMALL,
        **({} if name in ("ubfc", "cohface", "vipl_hr", "folder") else {"data.split.folds": 2}),
        **SPLIT.get(name, {}),
        "data.source": tmp_path / "raw",
        "data.data_dir": tmp_path / "data",
        "data.workers": 1,  # starting another takes longer than two recordings
    }
    code = main.main(
        [
            f"--config={ROOT}/configs/{name}.py:released",
            f"--workdir={tmp_path / 'run'}",
            "--no_progress",
            *(f"--config.{key}={value}" for key, value in values.items()),
        ]
    )
    out, err = capsys.readouterr()
    assert code == 0, err
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["step"] >= 1 and all(row["loss"] == row["loss"] for row in rows)
    data = json.loads((tmp_path / "run" / "config.json").read_text())["data"]
    if name == "folder":
        assert "trained on everyone, nobody was tested; the network: " in out
        assert data["train_people"] == ["Zoë", "李"] and data["test_people"] == []
        return
    assert len(data["train_people"]) == len(data["test_people"]) == 1
    scores = json.loads((tmp_path / "run" / "report" / "scores.json").read_text())
    assert scores["people"] == data["test_people"]
    # The wave that is tested against is the right one: POS is right about a face that hardly moves.
    assert scores["scores"]["window"]["pos"]["MAE"][0] < 3
