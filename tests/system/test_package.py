"""What is installed works without the repository: from another folder, by name, with every file it needs."""

import configparser
import email
import os
import re
import shlex
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from importlib import import_module
from importlib.metadata import distribution, packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from setuptools import find_packages

import sspd_jax
from sspd_jax import __main__ as door
from sspd_jax import errors
from sspd_jax.errors import ConfigError
from sspd_jax.heart_rate import classical, host_classical
from sspd_jax.training import config as experiments

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def setup_cfg():
    parser = configparser.ConfigParser(interpolation=None)
    parser.read(ROOT / "setup.cfg")
    return parser


def test_every_package_is_listed(setup_cfg):
    listed = set(setup_cfg["options"]["packages"].split())
    assert listed == {*find_packages(ROOT, include=["sspd_jax*"]), "sspd_jax.configs"}


def test_every_file_that_is_no_module_is_listed(setup_cfg):
    table = setup_cfg["options.package_data"]
    listed = {
        path for package in table for glob in table[package].split() for path in _folder(package).glob(glob)
    }
    there = {
        path
        for folder in (ROOT / "sspd_jax", ROOT / "configs")
        for path in folder.rglob("*")
        if path.is_file() and path.suffix not in (".py", ".pyc")
    }
    assert listed == there


def _folder(package):
    return ROOT / (package.removeprefix("sspd_jax.") if package.endswith("configs") else package)


def test_the_version_is_in_one_place(setup_cfg):
    assert setup_cfg["metadata"]["version"] == "attr: sspd_jax.__version__"
    citation = (ROOT / "CITATION.cff").read_text()
    assert re.search(r"^version: (.*)$", citation, re.MULTILINE)[1] == sspd_jax.__version__
    assert f"## {sspd_jax.__version__}" in (ROOT / "CHANGELOG.md").read_text()


def test_what_developers_install_holds_what_the_other_extras_need_in_tests(setup_cfg):
    extras = {
        name: {line for line in lines.splitlines() if line and not line.startswith("#")}
        for name, lines in setup_cfg["options.extras_require"].items()
    }
    assert set(extras) == {"train", "cuda", "tpu", "beam", "export", "notebooks", "docs", "mutation", "dev"}
    assert extras["docs"] | extras["beam"] | extras["export"] <= extras["dev"]
    assert all("sspd_jax[train]" in extras[name] for name in extras.keys() - {"train", "mutation"})
    tops = {module: set(map(canonicalize_name, names)) for module, names in packages_distributions().items()}
    named = {canonicalize_name(Requirement(line).name) for line in extras["train"]}
    assert all(named & tops[module] for module in errors.TRAIN_MODULES)
    assert named <= set().union(*(tops[module] for module in errors.TRAIN_MODULES))
    # What JAX is needed at least is said once more by its extras.
    least = next(line.removeprefix("jax") for line in extras["train"] if line.startswith("jax>"))
    assert all(
        f"jax[{plugin}]{least}" in extras[name] for name, plugin in (("cuda", "cuda13"), ("tpu", "tpu"))
    )


def test_the_lowest_versions_are_those_that_are_asked_for(setup_cfg):
    wanted = setup_cfg["options"]["install_requires"] + setup_cfg["options.extras_require"]["train"]
    least = dict(re.findall(r"^([\w-]+)(?:\[\w+\])?>=([\d.]+)", wanted, re.MULTILINE))
    listed = (ROOT / "tests" / "lowest.txt").read_text()
    lowest = dict(re.findall(r"^([\w-]+)==([\d.]+)$", listed, re.MULTILINE))
    assert lowest.keys() - {"pyparsing"} == least.keys()
    for name, version in least.items():
        assert f"{lowest[name]}.".startswith(f"{version}."), name


@pytest.mark.parametrize("name", ["ubfc", "ubfc.py", "configs/ubfc.py", "configs/ubfc"])
def test_a_shipped_experiment_is_found_by_name(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert experiments.find(name, ".py") == ROOT / "configs" / "ubfc.py"
    assert experiments.load(f"{name}:released,smoke", ["seed=3"]).seed == 3
    assert experiments.name_of(f"{name}:released") == "ubfc-released"


def test_a_file_here_comes_before_a_shipped_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").mkdir()
    mine = tmp_path / "configs" / "ubfc.py"
    mine.write_text((ROOT / "configs" / "ubfc.py").read_text().replace("default()", "default({**forms})"))
    assert experiments.find("configs/ubfc.py", ".py").resolve() == mine
    assert experiments.find("ubfc", ".py") == ROOT / "configs" / "ubfc.py"


@pytest.mark.parametrize("name", ["ubcf", "other/ubfc.py", "configs/ubfc.toml", "../configs/no", ""])
def test_what_is_not_shipped_is_refused_and_what_is_is_said(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"does not exist.*cohface, demo, folder.*vipl_hr$"):
        experiments.find(name, ".py")


def test_every_command_has_a_module_and_stands_in_the_help(capsys):
    modules = {path.stem for path in (ROOT / "sspd_jax" / "cli").glob("*.py")}
    assert modules - {"__init__", "common", "estimation"} == door.COMMANDS.keys() - {"main"}
    started = [
        path
        for path in (ROOT / "sspd_jax").rglob("*.py")
        if '\nif __name__ == "__main__":' in path.read_text() and path.name != "__main__.py"
    ]
    assert started == [ROOT / "sspd_jax" / "main.py"]  # every other command is `python -m sspd_jax NAME`
    assert door.main(["--help"]) == door.main([]) == 0
    shown = capsys.readouterr().out
    assert all(f"  {name} " in shown for name in door.COMMANDS)


@pytest.mark.parametrize("name", door.COMMANDS)
def test_every_command_has_help_and_its_name(name, capsys):
    with pytest.raises(SystemExit) as ended:
        door.main([name, "--help"])
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    program = "python -m sspd_jax.main" if name == "main" else f"sspd_jax {name}"
    assert shown.startswith(f"usage: {program} ") and "--debug" in shown
    assert f"\n{import_module(_module(name)).__doc__.splitlines()[0]}\n" in shown


def _module(name):
    return "sspd_jax.main" if name == "main" else f"sspd_jax.cli.{name}"


@pytest.mark.slow
@pytest.mark.parametrize(
    "statement",
    [
        "import sspd_jax.cli.predict, sspd_jax.cli.live",
        "import sspd_jax.inference.model, sspd_jax.inference.predict, sspd_jax.inference.plot",
        "import sspd_jax; sspd_jax.load('data/simulated_faces')",
    ],
)
def test_inference_imports_neither_training_nor_datasets_nor_evaluation(statement):
    loaded = "{name.split('.')[1] for name in sys.modules if name.startswith('sspd_jax.')}"
    code = f"import sys; {statement}; print(*{loaded})"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120, check=True
    )
    rooms = set(done.stdout.split())
    assert "inference" in rooms
    assert not rooms & {"training", "datasets", "evaluation", "experiments", "simulation", "main"}


def test_an_unknown_command_ends_with_2(capsys):
    assert door.main(["perdict"]) == 2
    assert capsys.readouterr().err == "error: no command 'perdict'; did you mean predict?\n"
    assert door.main(["heart"]) == 2
    assert "no command 'heart'; there are predict, live" in capsys.readouterr().err


def test_a_command_gets_its_arguments_and_its_exit_code_comes_back(tmp_path, capsys):
    assert door.main(["predict", str(tmp_path / "none.mp4"), "--method=pos"]) == 1
    assert "none.mp4" in capsys.readouterr().err
    assert door.main(["--version"]) == 0
    assert capsys.readouterr().out == f"sspd_jax {sspd_jax.__version__}\n"


def test_the_citation_is_the_papers():
    text = (ROOT / "CITATION.cff").read_text()
    for words in ("preferred-citation", "Self-similarity Prior Distillation", "2311.05100", "volume: 26"):
        assert words in text
    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]["build-backend"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel that is built out of the source distribution, and both their folder."""
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", f"--outdir={folder}", str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = folder.glob("*.whl")
    assert len(list(folder.glob("*.tar.gz"))) == 1
    return built


@pytest.mark.slow
def test_the_wheel_holds_what_is_needed_and_nothing_else(wheel):
    assert wheel.stat().st_size < 6e6
    names = set(zipfile.ZipFile(wheel).namelist())
    modules = {path.relative_to(ROOT).as_posix() for path in (ROOT / "sspd_jax").rglob("*.py")}
    shipped = {f"sspd_jax/configs/{path.name}" for path in (ROOT / "configs").iterdir() if path.is_file()}
    assert modules | shipped | {"sspd_jax/py.typed"} <= names
    # The page that `live` serves and `web` writes.
    page = ROOT / "sspd_jax" / "inference" / "web_page"
    assert {path.relative_to(ROOT).as_posix() for path in page.iterdir()} <= names
    assert {name.split("/")[0] for name in names} == {
        "sspd_jax",
        f"sspd_jax-{sspd_jax.__version__}.dist-info",
    }


COMMANDS = """
sspd_jax --version
sspd_jax sample my.mp4 --seconds=11 --bpm=72
sspd_jax predict my.mp4 --method=pos --json=my.json
sspd_jax simulator recordings --people=2 --seconds=12 --preset=easy --workers=1
sspd_jax simulate filmed --preset=webcam --people=1 --seconds=1 --size=160x160 --workers=1
sspd_jax main --help
python -m sspd_jax prepare --dataset=ubfc_rppg --source=recordings --data_dir=data/ubfc_rppg_smoke
    --crop_size=68
python -m sspd_jax.main --config=configs/ubfc.py:smoke --config.epochs=1 --config.batch_size=1 --no_progress
    --config.data.train_people="('subject1',)" --config.data.test_people="('subject2',)" --workdir=run
python -m sspd_jax predict my.mp4 --checkpoint=run/network/target --min_confidence=0 --no_cache
"""


def environment_of(wheel, tmp_path):
    """Make an environment that holds the wheel alone; return its packages' folder and how to type there."""
    made = tmp_path / "env"
    venv.create(made, symlinks=True, with_pip=False)
    site = Path(sysconfig.get_path("purelib", vars={"base": str(made), "platbase": str(made)}))
    install = [sys.executable, "-m", "pip", "--python", str(made / "bin" / "python"), "install", "--no-deps"]
    quiet = ["--quiet", "--disable-pip-version-check", "--no-index", str(wheel)]
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    subprocess.run([*install, *quiet], check=True, timeout=120, env=environment)
    here = tmp_path / "elsewhere"
    here.mkdir()

    def type_in(command, code=0):
        program, *arguments = shlex.split(command)
        line = [str(made / "bin" / program), *arguments]
        done = subprocess.run(
            line, cwd=here, env=environment, capture_output=True, text=True, timeout=300, check=False
        )
        assert done.returncode == code, f"{command}\n{done.stdout}{done.stderr}"
        return done.stderr if code else done.stdout

    return site, type_in


def needed_by(wheel):
    """Return the distributions that `pip install WHEEL` brings, those that they need included."""
    (name,) = (name for name in zipfile.ZipFile(wheel).namelist() if name.endswith(".dist-info/METADATA"))
    metadata = email.message_from_bytes(zipfile.ZipFile(wheel).read(name))
    asked, found = [(line, {""}) for line in metadata.get_all("Requires-Dist")], {}
    while asked:
        line, extras = asked.pop()
        requirement = Requirement(line)
        marker = requirement.marker
        key = (canonicalize_name(requirement.name), *sorted(requirement.extras))
        if key not in found and (not marker or any(marker.evaluate({"extra": extra}) for extra in extras)):
            found[key] = distribution(requirement.name)
            asked += [(line, {"", *requirement.extras}) for line in found[key].requires or ()]
    return {key[0]: there for key, there in found.items()}


@pytest.mark.slow
def test_reading_needs_little_and_what_needs_more_says_what(wheel, tmp_path):
    """The wheel, what it says that it needs, and nothing else: no JAX."""
    site, type_in = environment_of(wheel, tmp_path)
    needed = needed_by(wheel)
    assert {"numpy", "scipy", "fsspec"} <= needed.keys() and "jax" not in needed
    files = {Path(there.locate_file(path)) for there in needed.values() for path in there.files or ()}
    assert sum(path.stat().st_size for path in files if path.is_file()) < 700e6
    for there in needed.values():
        for top in {
            path.parts[0] for path in there.files or () if path.parts[0] not in ("..", "__pycache__")
        }:
            if not (site / top).exists():
                (site / top).symlink_to(there.locate_file(top))

    type_in("sspd_jax sample my.mp4 --seconds=11 --bpm=72")
    for reading in (
        "my.mp4 --json=my.json --csv=my.csv --plot=my.png --overlay=seen.mp4",
        "my.mp4 --method=sspd --explain=why.html",
        *(f"my.mp4 --method={method}" for method in ("pos", "omit")),
        *(f"my.mp4 --region=crop --method={method}" for method in host_classical.METHODS),
    ):
        bpm = float(
            re.search(r"my.mp4: ([\d.]+) bpm", type_in(f"sspd_jax predict {reading} --min_confidence=0"))[1]
        )
        assert abs(bpm - 72) < 3, reading
    assert "72" in type_in(
        "python -c 'import sspd_jax; print(round(sspd_jax.read(\"my.mp4\").heart_rate_bpm))'"
    )
    type_in("sspd_jax simulate made --people=1 --seconds=11 --preset=easy --workers=1")
    type_in("sspd_jax live my.mp4 --no_page --speed=8")
    for more in (
        "main --config=ubfc",
        *("prepare", "evaluate", "compare a", "study a", "inspect a", "export a", "web a", "convert a b"),
        "predict my.mp4 --checkpoint=a",
        *(f"predict my.mp4 --method={name}" for name in classical.METHODS.keys() - host_classical.METHODS),
    ):
        said = type_in(f"sspd_jax {more}", code=1)
        assert said.endswith("run `pip install 'sspd_jax[train]'`\n") and said.count("error: ") == 1, said
    type_in("sspd_jax main --help")


@pytest.mark.slow
def test_the_wheel_works_in_another_folder(wheel, tmp_path):
    """A fresh environment without this repository; what the package needs is lent from this one's."""
    site, type_in = environment_of(wheel, tmp_path)
    # A folder named here is searched, but its own .pth files, so the editable install, are not read.
    (site / "lent.pth").write_text(sysconfig.get_path("purelib") + "\n")
    here = tmp_path / "elsewhere"

    where = type_in("python -c 'import sspd_jax; print(sspd_jax.__file__)'")
    assert where.strip() == str(site / "sspd_jax" / "__init__.py")
    validated = type_in(
        "python -c 'from sspd_jax.experiments import study; from sspd_jax.training import config; "
        "shipped = config.shipped(); [config.validate(config.load(name)) for name in shipped]; "
        'study.load("simulated_study"); print(*shipped, *shipped.values())\''
    )
    assert "vipl_hr" in validated and str(site / "sspd_jax" / "configs" / "ubfc.py") in validated

    said = {}
    for command in filter(None, COMMANDS.replace("\n    ", " ").split("\n")):
        said[command.split(" ")[1]] = type_in(command)
    assert said["--version"] == f"sspd_jax {sspd_jax.__version__}\n"
    bpm = float(re.search(r"my.mp4: ([\d.]+) bpm, 9\d% sure", said["predict"])[1])
    assert abs(bpm - 72) < 1.5
    assert (here / "run" / "report" / "index.html").is_file()
