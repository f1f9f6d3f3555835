"""Put small faults into the package and see whether a fast test fails: what survives is what tests miss.

    make mutation                                       # or
    python benchmarks/mutation/mutate.py --rooms=heart_rate,method --sample=20 --minutes=60

The faults are mutmut's (`pip install 'sspd_jax[mutation]'`): another comparison, operator or number, an
argument that is left out. Of each module a random sample is drawn, the same for one `--seed`. Each fault
is tried in a copy of the repository, never in place, on the fast tests of the module's mirror; what
survives there, on the other fast unit tests that name the module. Left out are faults that any test
notices that runs the line (a None where there was something), and those that change a text's wording or a
`zip`'s check of lengths alone. What was tried is not tried again; `--again` tries the survivors once
more, after a test was written.

`mutation.json` holds every fault that was tried, `mutation.md` counts them and lists the survivors, and
`equivalent.toml` says of which nobody could notice a difference, and why.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import difflib
import json
import random
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
ROOMS = ("heart_rate", "method", "video", "inference", "training", "evaluation", "datasets")
COPIED = ("sspd_jax", "tests", "configs", "data", "docs", "benchmarks", "setup.cfg", "pyproject.toml")
STATUS = {0: "survived", 1: "killed", 3: "killed", 33: "no test"}  # exit codes in mutmut's tables
SURVIVES = ("survived", "no test")
NOTHING_RUNS = "could not find any test case for any mutant"  # as mutmut says where no test runs the module


class Fault(NamedTuple):
    """One small change.

    Attributes:
      module: Path below `sspd_jax/`.
      function: Name of the function or method that it is in, with its class.
      line: Number in the file as it was.
      before: The line, normalised.
      after: The line with the fault; '' where it is gone.
      name: What mutmut calls it in this version of the file.
    """

    module: str
    function: str
    line: int
    before: str
    after: str
    name: str

    @property
    def key(self) -> tuple[str, str, str, str]:
        """What stays the same when lines above are added."""
        return self.module, self.function, self.before, self.after


def faults_of(module: str, source: str) -> list[Fault]:
    """List every fault that mutmut makes in a module's source, but those that change text alone."""
    from mutmut.mutation.file_mutation import mutate_file_contents

    with (
        tempfile.TemporaryDirectory() as folder,
        contextlib.chdir(folder),
    ):  # its settings are read from there
        Path("setup.cfg").write_text(settings(module, ()))
        mutated = mutate_file_contents(module, source)
    return read_faults(module, source, mutated.code, set(mutated.mutant_names))


def read_faults(module: str, source: str, mutated: str, names: set[str]) -> list[Fault]:
    """Compare the functions of a mutated file: `…__mutmut_orig` with `…__mutmut_1` and so on."""
    functions = {node.name: node for node in ast.walk(ast.parse(mutated)) if _is_function(node)}
    lines = dict(_definitions(ast.parse(source)))
    dotted = module.removesuffix(".py").replace("/", ".")
    found = []
    for name in sorted(names, key=lambda n: (n.rpartition("_")[0], int(n.rpartition("_")[2]))):
        stem = name.rpartition("__mutmut_")[0]
        if name not in functions or f"{stem}__mutmut_orig" not in functions:
            continue
        one, other = functions[f"{stem}__mutmut_orig"], functions[name]
        if _without_text(one) == _without_text(other) or _nones(other) > _nones(one):
            continue
        function = _plain(stem)
        before, after = _differing_line(one, other)
        line = lines.get(function, 0) + _first_difference(one, other) - one.lineno
        found.append(Fault(module, function, line, before, after, f"sspd_jax.{dotted}.{name}"))
    return found


def _is_function(node: ast.AST) -> bool:
    return isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)


def _definitions(tree: ast.AST, prefix: str = "") -> Iterator[tuple[str, int]]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.ClassDef):
            yield from _definitions(node, f"{node.name}.")
        elif _is_function(node):
            yield f"{prefix}{node.name}", node.lineno


def _plain(stem: str) -> str:
    """Take mutmut's marks off a name: 'x_f' is 'f', and 'xǁClassǁf' is 'Class.f'."""
    if stem.startswith("xǁ"):
        return ".".join(part for part in stem[1:].split("ǁ") if part)
    return stem.removeprefix("x_")


def _nones(function: ast.AST) -> int:
    return sum(isinstance(node, ast.Constant) and node.value is None for node in ast.walk(function))


def _without_text(function: ast.AST) -> str:
    """Write a function without its name, the wording of its texts, and whether `zip` checks lengths."""
    copy = ast.parse(ast.unparse(function)).body[0]
    copy.name = "_"
    for node in ast.walk(copy):
        if isinstance(node, ast.Call):
            node.keywords = [keyword for keyword in node.keywords if keyword.arg != "strict"]
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            node.value = ""
    return ast.dump(copy)


def _differing_line(one: ast.AST, other: ast.AST) -> tuple[str, str]:
    pair = [ast.unparse(each).splitlines()[1:] for each in (one, other)]
    if pair[0] == pair[1]:  # a default in the head
        pair = [ast.unparse(each).splitlines()[:1] for each in (one, other)]
    changed = [line for line in difflib.ndiff(*pair) if line[:2] in ("- ", "+ ")]
    texts = [" ".join(line[2:].strip() for line in changed if line[0] == sign) for sign in "-+"]
    return texts[0], texts[1]


def _first_difference(one: ast.AST, other: ast.AST) -> int:
    """Return the number of the line on which two trees begin to differ."""
    last = one.lineno
    for a, b in zip(ast.walk(one), ast.walk(other), strict=False):
        if a is one:
            continue
        last = getattr(a, "lineno", last)
        if type(a) is not type(b) or _own(a) != _own(b):
            return last
    return last


def _own(node: ast.AST) -> list[Any]:
    """Return what a node holds beside other nodes, and how many of those."""
    fields = [getattr(node, name, None) for name in node._fields]
    return [len(value) if isinstance(value, list) else None if isinstance(value, ast.AST) else value
            for value in fields]  # fmt: skip


def sample(faults: Sequence[Fault], count: int, seed: int) -> list[Fault]:
    """Draw `count` faults of a module; a larger sample of the same seed begins with a smaller one."""
    if not faults:
        return []
    drawn = list(faults)
    random.Random(f"{seed}/{faults[0].module}").shuffle(drawn)
    return drawn[:count]


def tests_of(module: str) -> tuple[list[str], list[str]]:
    """Name the test files of a module's mirror, and the other unit tests that name the module."""
    tree = ast.parse((ROOT / "tests" / "system" / "test_house.py").read_text())
    (elsewhere,) = (
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and node.targets[0].id == "ELSEWHERE"
    )
    path = Path(module)
    own = [Path("unit") / path.parent / f"test_{path.name}"]
    plain = module.removesuffix(".py")
    own += [Path(file) for file, (_, modules) in elsewhere.items() if plain in modules.split()]
    mirror = [f"tests/{file}" for file in own if (ROOT / "tests" / file).exists()]
    dotted = plain.replace("/", ".")
    package, _, name = f"sspd_jax.{dotted}".rpartition(".")
    others = []
    for file in sorted((ROOT / "tests" / "unit").rglob("test_*.py")):
        said = file.relative_to(ROOT).as_posix()
        if said not in mirror and _imports(file.read_text(), package, name):
            others.append(said)
    return mirror, others


def _imports(source: str, package: str, name: str) -> bool:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom):
            if node.module == f"{package}.{name}":
                return True
            if node.module == package and name in {alias.name for alias in node.names}:
                return True
        if isinstance(node, ast.Import) and f"{package}.{name}" in {alias.name for alias in node.names}:
            return True
    return False


def copy_repository(folder: Path) -> None:
    """Copy what tests need into an empty folder."""
    ignore = shutil.ignore_patterns("__pycache__", ".git", ".venv", "workdir", "build")
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=ignore, symlinks=True)
        elif source.exists():
            shutil.copy(source, folder / name)


def settings(module: str, tests: Sequence[str]) -> str:
    """Write mutmut's table for setup.cfg: one module, its tests, a clean process for each fault.

    Forked from a process in which JAX has computed, a test would wait for ever; from a server that has only
    imported, it does not.
    """
    copied = "".join(f"\n    {name}" for name in COPIED)
    chosen = "".join(f"\n    {file}" for file in tests)
    return (
        f"\n[mutmut]\nsource_paths=\n    sspd_jax/{module}\nalso_copy={copied}\n"
        f"pytest_add_cli_args_test_selection={chosen}\n"
        "pytest_add_cli_args=\n    -m\n    not slow\n    -p\n    no:cacheprovider\n"
        "process_isolation=forkserver\nuse_setproctitle=false\ntimeout_constant=30\n"
        "use_git_change_detection=false\ntrack_dependencies=false\n"
    )


def try_faults(module: str, faults: Sequence[Fault], tests: Sequence[str]) -> dict[str, str]:
    """Try faults of a module on some test files, in a copy of the repository.

    Returns:
      Name of a fault → 'killed', 'survived', 'no test' or 'timeout'; absent if it could not be tried.
    """
    with tempfile.TemporaryDirectory(prefix="mutation-") as temporary:
        folder = Path(temporary)
        copy_repository(folder)
        with (folder / "setup.cfg").open("a") as file:
            file.write(settings(module, tests))
        command = [sys.executable, "-m", "mutmut", "run", "--max-children", "1", *(f.name for f in faults)]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        table = folder / "mutants" / "sspd_jax" / f"{module}.meta"
        codes = json.loads(table.read_text())["exit_code_by_key"] if table.exists() else {}
        found = {f.name: codes[f.name] for f in faults if codes.get(f.name) is not None}
        if not found and NOTHING_RUNS in done.stdout:
            found = dict.fromkeys((f.name for f in faults), 33)
        if not found:
            said = done.stdout[-2000:].replace("\r", "\n").splitlines()[-12:] + done.stderr.splitlines()[-5:]
            print(f"{module}: nothing could be tried", *said, sep="\n  ", file=sys.stderr)
    return {name: STATUS.get(code, "timeout") for name, code in found.items()}


def load(path: Path) -> list[dict[str, Any]]:
    """Read what was tried before."""
    return json.loads(path.read_text()) if path.exists() else []


def key_of(row: Mapping[str, Any]) -> tuple[str, str, str, str]:
    """Return the key of a row of `mutation.json`, see `Fault.key`."""
    return row["module"], row["function"], row["before"], row["after"]


def equivalents(path: Path) -> dict[tuple[str, str, str, str], str]:
    """Read of which faults nobody could notice a difference: key → reason."""
    table = tomllib.loads(path.read_text()) if path.exists() else {}
    return {key_of(row): row["reason"] for row in table.get("fault", ())}


def merge(old: Iterable[Mapping[str, Any]], new: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Put newer rows in the place of older ones with the same key, in the order of files and lines."""
    rows = {key_of(row): dict(row) for row in [*old, *new]}
    return sorted(rows.values(), key=lambda row: (row["module"], row["line"], row["before"], row["after"]))


def report(rows: Sequence[Mapping[str, Any]], same: Mapping[tuple[str, str, str, str], str]) -> str:
    """Write `mutation.md`: a table by room and by module, then the survivors."""
    lines = [
        "# Faults that tests notice",
        "",
        "Small faults, put in one at a time by `mutate.py`, which says how: a random sample of each",
        "module below. One is *noticed* where a fast test fails or hangs, and *equivalent* where nobody",
        "could tell the difference (`equivalent.toml` says why). Slow tests were not run: some survivors",
        "would fall to them.",
        "",
        "| module | tried | noticed | equivalent | survived |",
        "|---|---|---|---|---|",
    ]
    counts: dict[str, Counter[str]] = {}
    survivors = []
    for row in rows:
        outcome = row["outcome"]
        if outcome in SURVIVES:
            outcome = "equivalent" if key_of(row) in same else "survived"
        else:
            outcome = "noticed"
        if outcome == "survived":
            survivors.append(row)
        room = row["module"].partition("/")[0]
        for name in (f"**{room}/**", row["module"], "**all**"):
            counts.setdefault(name, Counter())[outcome] += 1
    every = counts.pop("**all**", Counter())
    for name, count in [*sorted(counts.items(), key=lambda item: item[0].strip("*")), ("**all**", every)]:
        cells = [count.total(), *(count[outcome] for outcome in ("noticed", "equivalent", "survived"))]
        lines.append(f"| {name} | {' | '.join(map(str, cells))} |")
    lines += ["", "## Survivors", ""]
    for row in survivors:
        lines += [f"`{row['module']}:{row['line']}`, `{row['function']}`", "", "```diff"]
        lines += [f"-{row['before']}", f"+{row['after']}", "```", ""]
    return "\n".join(lines).rstrip() + "\n"


def modules_of(rooms: Iterable[str]) -> list[str]:
    """List the modules of rooms, or the modules that are named, below `sspd_jax/`."""
    package = ROOT / "sspd_jax"
    found = []
    for room in rooms:
        path = package / room
        files = [path] if path.suffix == ".py" else sorted(path.rglob("*.py"))
        found += [p.relative_to(package).as_posix() for p in files if p.name != "__init__.py"]
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Try a sample and write what was found."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rooms", default=",".join(ROOMS), help="rooms or modules, separated by commas")
    parser.add_argument("--sample", type=int, default=10, help="faults of each module")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=60, help="no module is begun after them")
    parser.add_argument("--again", action="store_true", help="try the survivors once more, and nothing else")
    parser.add_argument("--output", type=Path, default=HERE, help="where mutation.json and mutation.md are")
    options = parser.parse_args(arguments)
    ends = time.monotonic() + 60 * options.minutes
    results = options.output / "mutation.json"
    same = equivalents(HERE / "equivalent.toml")
    for module in modules_of(options.rooms.split(",")):
        rows = load(results)
        before = {key_of(row): row["outcome"] for row in rows}
        faults = faults_of(module, (ROOT / "sspd_jax" / module).read_text())
        gone = {key for key in before if key[0] == module} - {fault.key for fault in faults}
        if options.again:
            chosen = [f for f in faults if before.get(f.key) in SURVIVES and f.key not in same]
        else:
            chosen = [f for f in sample(faults, options.sample, options.seed) if f.key not in before]
        mirror, others = tests_of(module)
        if time.monotonic() > ends:
            break
        outcomes = try_faults(module, chosen, mirror) if chosen else {}
        left = [fault for fault in chosen if outcomes.get(fault.name) in SURVIVES and fault.key not in same]
        if left and others:
            outcomes |= try_faults(module, left, others)
        new = [
            {**{k: v for k, v in fault._asdict().items() if k != "name"}, "outcome": outcomes[fault.name]}
            for fault in chosen
            if fault.name in outcomes
        ]
        rows = merge([row for row in rows if key_of(row) not in gone], new)
        results.write_text(json.dumps(rows, indent=1, ensure_ascii=False) + "\n")
        (options.output / "mutation.md").write_text(report(rows, same))
        if new:
            said = ", ".join(f"{n} {what}" for what, n in sorted(Counter(r["outcome"] for r in new).items()))
            print(f"{module}: {said}", flush=True)


if __name__ == "__main__":
    main()
