"""Every option of every command with 0, -1, nan, 10^9, an empty value and a missing path.

The parsers are asked for their options, so that a new one is walked at once. Each call is the
command's own `main`, in this process, from a right command line with one value exchanged. It
must end with one line that says what is wrong, or the value must be one that it takes: no
traceback, no exit 0 with nonsense. A command that begins to work in earnest (it starts a
process, asks the network, sleeps, or computes for a quarter of a second) has taken its values,
and is stopped there.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import importlib.util
import io
import itertools
import json
import multiprocessing.process
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.reproduce.test_train import training
from xresnet.basics import cli, numbers
from xresnet.reproduce.driver import train

NUMBERS = ("0", "-1", "nan", "1000000000")
VALUES = (*NUMBERS, "", "none/such")
ENOUGH = 0.25  # seconds of computing after which a command has taken its values

# Programs: what is typed -> its module, and whether PyTorch is needed to import it.
PROGRAMS = {
    "data_prep": "data_prep.__main__",
    "netgen": "netgen.command",
    "netgen diff": "netgen.diff",
    "netgen.weights": "netgen.weights.command",
    "netgen.deepsentibank": "netgen.deepsentibank",
    "networks.py": "docs/networks.py",
    "results.py": "docs/results.py",
    "realcaffe": "xresnet.realcaffe.__main__",
    "xresnet": "xresnet.reproduce.__main__",
    "resume": "xresnet.reproduce.resume",
    "torchcaffe": "torchcaffe.__main__",
    "fetch": "docker/fetch.py",
    **{
        f"bench.{path.stem}": f"bench.{path.stem}"
        for path in sorted((ROOT / "bench").glob("*.py"))
        if "Parser(" in path.read_text()
    },
}

PACKAGES = ("data_prep", "netgen", "torchcaffe", "xresnet")

# Right command lines, from which each differs in one value. {new} is a place where nothing is.
SMALL = "--width 4 --blocks 1,1,1,2"
SAMPLE = "--images {images} --out {copy}"
BASES = {
    "data_prep sample": ["--out {new}"],
    "data_prep labels": ["--out {new}"],
    "data_prep ontology": ["{ontology} --images {images} --out {new}"],
    "data_prep download": ["{urls} --out {new}"],
    "data_prep unpack": ["{archive} --out {new}"],
    "data_prep filter": [f"--ontology {{ontology}} --min-images 10 {SAMPLE}"],
    "data_prep split": [SAMPLE],
    "data_prep table": ["{table} --images {images} --tasks kind --out {new}"],
    "data_prep run-table": ["{table} --images {images} --tasks kind --size 16 --out {new}"],
    "data_prep lmdb": [f"--size 32 {SAMPLE}"],
    "data_prep verify": ["--out {copy}"],
    "data_prep reorder": ["{data} --seed 1 --out {new}"],
    "data_prep run": [
        "--ontology {ontology} --min-images 10 --size 32 --images {images} --out {new}"
    ],
    "netgen": [
        f"xs_resnet50 {SMALL}",
        f"xs_resnet50 --solver {SMALL}",
        f"resnet50 --task noun {SMALL}",
        f"cross_stitch_resnet50 {SMALL}",
        f"rock_resnet50 {SMALL}",
        "caffenet --task anp",
        "xs_resnet50 --draw {new}.dot",
    ],
    "netgen diff": ["{model} {model}"],
    "netgen.weights init": [f"xs_resnet50 {SMALL} --from {{weights}} --out {{new}}"],
    "netgen.weights fetch": ["resnet50 --out {new}"],
    "netgen.weights show": ["{weights}"],
    "netgen.deepsentibank": ["--classes {outputs} --labels {data}/classes"],
    "networks.py": [""],
    "results.py": [""],
    "realcaffe install": ["--bin {new}"],
    "realcaffe path": [""],
    "realcaffe remove": [""],
    "realcaffe lock": [""],
    "xresnet train": [f"xs_resnet50 {SMALL} --data {{data}} --out {{new}}"],
    "xresnet table2": [
        f"--rows xs_resnet50 {SMALL} --data {{data}} --out {{new}}",
        "--smoke --data {data} --out {new}",
    ],
    "xresnet grid": ["{grid} --data {data} --out {new}"],
    "xresnet features": [f"res4a {SMALL} --data {{data}} --out {{new}} --weights {{weights}}"],
    "xresnet compare": ["{results} --out {new}"],
    "xresnet eval": ["{run}"],
    "xresnet figure5": ["{run} --out {new}.svg"],
    "xresnet figure6": ["{run} {photo} --out {new}.svg"],
    "xresnet pack": ["{run} --out {new}"],
    "xresnet predict": ["{run} {photo}"],
    "xresnet watch": ["{run} --out {new}.svg --every 9", "{run} --port 8081"],
    "xresnet report": ["{run} --out {new}"],
    "resume": ["caffe train -solver {solver}"],
    "torchcaffe train": ["-solver {solver}"],
    "torchcaffe test": ["-model {model} -weights {weights}"],
    "torchcaffe time": ["-model {model}"],
    "torchcaffe export": ["-model {deploy} -weights {weights} --state-dict {new}"],
    "torchcaffe check": ["-model {model}"],
    "fetch": ["{new}"],
}

# Where a file is to be written, so that nothing need be there yet; a number is a name, too.
OUTPUTS = {"--out", "--change", "--sheet", "--draw", "--onnx", "--state-dict"}
# What is not looked at, and why.
FREE = {
    ("netgen", "--data"): "goes into the prototxt; the databases may come later",
    ("netgen", "--net"): "likewise",
    ("netgen", "--mean-file"): "likewise",
    ("netgen", "--snapshot-prefix"): "likewise",
    ("data_prep download", "--cluster"): "the name of a machine, for Spark or Ray",
    ("data_prep labels", "--source"): "an address, which is asked",
    ("realcaffe install", "--bin"): "the folder is made",
    ("realcaffe install", "--mirror"): "an address, which is asked",
    ("realcaffe lock", "--mirror"): "an address, which is asked",
    **{
        (f"torchcaffe {command}", "-stage"): "any names; a net asks for those it knows"
        for command in ("train", "test", "time", "check")
    },
    ("resume", "command"): "Caffe's own words, which Caffe tells of",
    ("xresnet watch", "--host"): "an address, which the system is asked about",
    ("fetch", "folder"): "an output",
}
GPUS = {"--gpu", "-gpu"}  # 0 is right where there is one, and told where there is none


class AtWork(BaseException):
    """A command that took its values and began."""


class Captured(BaseException):
    """A parser on its way out of the program that made it."""

    def __init__(self, parser: argparse.ArgumentParser) -> None:
        self.parser = parser


def main_of(program: str) -> Callable[[list[str] | None], int | None]:
    """The program's main; it is imported here, for some need PyTorch."""
    where = PROGRAMS[program]
    if where.endswith(".py"):
        name = f"_walked_{program}"
        if name not in sys.modules:
            spec = importlib.util.spec_from_file_location(name, ROOT / where)
            sys.modules[name] = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(sys.modules[name])
        return sys.modules[name].main
    if program == "torchcaffe" or "torchcaffe" in where or where == "bench.gpu":
        pytest.importorskip("torch", reason="SKIPPED FOR LACK OF PYTORCH: pip install '.[torch]'")
        importlib.import_module("torch._dynamo")  # else imported late, and stopped half way
    return importlib.import_module(where).main


def parser_of(program: str) -> argparse.ArgumentParser:
    """The program's parser, taken when it is about to read a command line."""

    def capture(self: argparse.ArgumentParser, *_: object) -> None:
        raise Captured(self)

    main = main_of(program)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(argparse.ArgumentParser, "parse_known_args", capture)
        patch.setattr(sys, "argv", [program])
        try:
            main() if program.startswith("bench.") else main([])
        except Captured as found:
            assert found.parser.prog == program, f"{program} reads no command line of its own"
            return found.parser
    raise AssertionError(f"{program} reads no command line")


def commands_of(program: str) -> dict[str, argparse.ArgumentParser]:
    """Each command's parser by what is typed."""
    parser = parser_of(program)
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return {f"{program} {name}": sub for name, sub in action.choices.items()}
    return {program: parser}


def options_of(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    """What takes a value."""
    return [action for action in parser._actions if action.nargs != 0]


def name_of(action: argparse.Action) -> str:
    return action.option_strings[0] if action.option_strings else action.dest


def is_number(action: argparse.Action) -> bool:
    """Whether the option's type is one of basics.numbers."""
    return getattr(action.type, "__module__", "") == numbers.__name__


def takes(action: argparse.Action, value: str) -> bool:
    """Whether the option's own type takes the value."""
    try:
        action.type(value)
    except (argparse.ArgumentTypeError, ValueError, TypeError, cli.UserError):
        return False
    return True


def is_nonsense(command: str, action: argparse.Action, value: str) -> bool:
    """Whether no command can do anything with this value."""
    name = name_of(action)
    if not value:
        return True
    if action.choices:
        return value not in action.choices
    if is_number(action):
        return not takes(action, value)
    if command.startswith("bench."):  # stopped before it looks for files
        return False
    if name in GPUS:
        return not value.isdigit()
    return name not in OUTPUTS and (command, name) not in FREE


def exchange(
    parser: argparse.ArgumentParser, argv: list[str], action: argparse.Action, value: str
) -> list[str]:
    """The command line with another value of this option; what excludes it is left out."""
    count = action.nargs if isinstance(action.nargs, int) else 1
    values = [value] * count
    argv = list(argv)
    if not action.option_strings:
        given = getattr(parser.parse_known_args(argv)[0], action.dest)
        given = given[0] if isinstance(given, list) else given
        if given is None:
            return [*argv, *values]
        argv[argv.index(str(given))] = value
        return argv
    rivals = [
        other
        for group in parser._mutually_exclusive_groups
        if action in group._group_actions
        for other in group._group_actions
    ]
    for other in [action, *rivals]:
        for option in set(other.option_strings) & set(argv):
            at = argv.index(option)
            width = 0 if other.nargs == 0 else other.nargs if isinstance(other.nargs, int) else 1
            del argv[at : at + 1 + width]
    return [*argv, action.option_strings[-1], *values]


@dataclass(frozen=True)
class Outcome:
    """How a call ended: its exit status, or None where it was stopped at work."""

    status: int | None
    said: str


def call(program: str, argv: list[str], enough: float = ENOUGH) -> Outcome:
    """The program, in this process, stopped where it begins to work in earnest."""

    def at_work(*_: object, **__: object) -> None:
        raise AtWork

    main = main_of(program)
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8") for _ in range(2))
    handlers = {s: signal.getsignal(s) for s in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [program, *argv])
        patch.setattr(subprocess.Popen, "__init__", at_work)
        patch.setattr(multiprocessing.process.BaseProcess, "start", at_work)
        patch.setattr(socket.socket, "connect", at_work)
        patch.setattr(socket.socket, "bind", at_work)
        patch.setattr(socket, "getaddrinfo", at_work)
        patch.setattr(time, "sleep", at_work)
        for work in ("install.install", "install.remove", "install.adopt", "resolve.resolve"):
            patch.setattr(f"xresnet.realcaffe.{work}", at_work)  # of all checkouts' Caffe
        if program.startswith("bench."):  # no parser of theirs has commands
            patch.setattr(argparse.ArgumentParser, "parse_args", parsed)
        signal.signal(signal.SIGPROF, at_work)
        signal.setitimer(signal.ITIMER_PROF, enough, enough)
        try:
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                cli.run((lambda _: main()) if program.startswith("bench.") else main, program)
        except SystemExit as end:
            status = end.code
        except AtWork:
            status = None
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
            signal.signal(signal.SIGPROF, signal.SIG_IGN)
            for number, handler in handlers.items():
                signal.signal(number, handler)
    err.flush()
    return Outcome(status, err.buffer.getvalue().decode(errors="replace"))


def parsed(self: argparse.ArgumentParser, *_: object) -> None:
    """A benchmark's command line is right: what it goes on to do takes minutes."""
    _, rest = self.parse_known_args()
    if rest:
        self.error(f"unrecognized arguments: {' '.join(rest)}")
    raise AtWork


@pytest.fixture(scope="module")
def places(caffe_tools, drawn, tmp_path_factory) -> dict[str, Path]:
    """What the right command lines name: data, and a run of one epoch."""
    folder = tmp_path_factory.mktemp("walk")
    # A copy: a command that is stopped at work leaves databases open, which no later test
    # of this process could open again.
    data = shutil.copytree(drawn, folder / "data")
    made = training(data, folder / "run", max_epochs=1)
    train(made)
    images = drawn.parent / "vso"
    (folder / "urls.txt").write_text("happy_dog http://127.0.0.1:9/a.jpg\n")
    (folder / "outputs.json").write_text(json.dumps([f"a_{i}" for i in range(2089)]))
    with tarfile.open(folder / "a.tar", "w") as archive:
        archive.add(images / "ontology.txt", "ontology.txt")
    photo = next(images.rglob("*.jpg"))
    rows = [f"{path.relative_to(images)},a\n" for path in sorted(images.rglob("*.jpg"))[:10]]
    (folder / "table.csv").write_text("".join(["path,kind\n", *rows]))
    results = {"name": "x", "what": "x", "runs": 1, "finished": 0, "rows": [], "results": []}
    (folder / "grid.json").write_text(json.dumps(results))
    return {
        "folder": folder,
        "data": data,
        "copy": shutil.copytree(drawn, folder / "copy"),
        "images": images,
        "ontology": images / "ontology.txt",
        "urls": folder / "urls.txt",
        "table": folder / "table.csv",
        "outputs": folder / "outputs.json",
        "archive": folder / "a.tar",
        "photo": photo,
        "run": made.folder,
        "solver": made.folder / "solver_1.prototxt",
        "model": made.folder / "net.prototxt",
        "deploy": made.folder / "deploy.prototxt",
        "weights": made.snapshots()[-1].weights,
        "grid": ROOT / "xresnet" / "reproduce" / "grids" / "cifar.json",
        "results": folder / "grid.json",
    }


def needed(parser: argparse.ArgumentParser) -> str:
    """A benchmark's shortest command line: it is stopped before it looks at what is named."""
    found = []
    for action in options_of(parser):
        if action.required:
            found += [*action.option_strings[:1], "{data}"]
    return " ".join(found)


def walk(command: str, places: dict[str, Path], folder: Path) -> Iterator[tuple[str, str]]:
    """What is wrong, and the command line that shows it."""
    program = max((p for p in PROGRAMS if f"{command} ".startswith(f"{p} ")), key=len)
    parser = commands_of(program)[command]
    words = command[len(program) :].split()
    for base in BASES.get(command) or [needed(parser)]:
        for number, (action, value) in enumerate(itertools.product(options_of(parser), VALUES)):
            cwd = folder / str(number)  # its own: 0 and -1 may be files that a call wrote
            cwd.mkdir(exist_ok=True)
            os.chdir(cwd)
            argv = base.format(**places, new=cwd / "new").split()
            argv = [*words, *exchange(parser, argv, action, value)]
            try:
                outcome = call(program, argv)
                if outcome.status is None and is_nonsense(command, action, value):
                    outcome = call(program, argv, 20 * ENOUGH)  # it may be slow to look
            except Exception as error:
                yield f"{type(error).__name__}: {error}", shlex.join([program, *argv])
                continue
            last = (outcome.said.strip().splitlines() or [""])[-1]
            if outcome.status not in (0, None):
                if ": error: " not in last:
                    yield f"no one line at exit {outcome.status}: {last}", shlex.join(argv)
            elif is_nonsense(command, action, value):
                how = "exit 0" if outcome.status == 0 else "at work"
                yield f"{how} with {value!r} for {name_of(action)}", shlex.join([program, *argv])


BENCHES = [program for program in PROGRAMS if program.startswith("bench.")]


@pytest.mark.caffe
@pytest.mark.parametrize("command", [*BASES, *BENCHES])
def test_no_traceback_and_no_nonsense(command, places, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # and back at the end
    found = [f"{what}\n    {line}" for what, line in walk(command, places, tmp_path)]
    assert not found, "\n".join([f"{len(found)}:", *found])


@pytest.mark.parametrize("program", PROGRAMS)
def test_every_command_is_walked_and_every_number_has_its_range(program):
    for command, parser in commands_of(program).items():
        assert command in BASES or command in BENCHES, f"{command}: give it a right command line"
        assert isinstance(parser, cli.Parser), f"{command}: an argparse parser that is not ours"
        for action in options_of(parser):
            assert action.type not in (int, float), f"{command} {name_of(action)}: basics.numbers"


def test_every_parser_is_walked():
    known = {
        ROOT / f"{where.removesuffix('.py').replace('.', '/')}.py" for where in PROGRAMS.values()
    }
    for folder in ("bench", "docker", *PACKAGES):
        for path in (ROOT / folder).rglob("*.py"):
            if re.search(r"^ .*\b(?:Argument)?Parser\(", path.read_text(), re.MULTILINE):
                assert path in {*known, ROOT / "torchcaffe" / "arguments.py"}, (
                    f"{path} has a parser that nobody walks"
                )


@pytest.mark.parametrize(
    "argv",
    [
        ["data_prep", "sample", "--per-anp", "-1", "--out", "x"],
        ["netgen", "xs_resnet50", "--width", "nan"],
        ["netgen.weights", "show", "none/such"],
        ["xresnet", "watch", "none/such", "--every", "-3"],
        ["xresnet", "eval", ""],
    ],
)
def test_as_a_process_of_its_own(argv, tmp_path):
    ran = subprocess.run(
        [sys.executable, "-m", *argv],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert ran.returncode in (1, 2) and ran.stdout == ""
    assert ran.stderr.count("\n") == 1 and ": error: " in ran.stderr
