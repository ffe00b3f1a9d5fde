"""The command line of `python -m torchcaffe`, which can be read without PyTorch."""

from __future__ import annotations

from dataclasses import replace

from xresnet.basics import cli
from xresnet.basics.numbers import COUNT, MOST, NATURAL, at_least

LEVEL = at_least(-MOST, "a level")
DEVICE = replace(NATURAL, what="a device's number", word="all")

COMMANDS = {
    "train": (
        "train a net, as `caffe train`",
        """\
  python -m torchcaffe train -solver solvers/xs.prototxt -gpu 0 -weights resnet50.caffemodel
  python -m torchcaffe train -solver solvers/xs.prototxt -snapshot xs_iter_12800.solverstate
  torchrun --nproc-per-node 8 -m torchcaffe train -solver solvers/xs.prototxt -gpu all --sync-bn
""",
    ),
    "test": (
        "a net's outputs over batches, and their means, as `caffe test`",
        """\
  python -m torchcaffe test -model prototxt/xs.prototxt -weights W -iterations 3351
""",
    ),
    "time": (
        "milliseconds of each layer and of the whole, as `caffe time`",
        """\
  python -m torchcaffe time -model prototxt/xs_deploy.prototxt -iterations 10
""",
    ),
    "export": (
        "write a net as ONNX, or its weights for torch.load",
        """\
  python -m torchcaffe export -model deploy.prototxt -weights W --onnx net.onnx
""",
    ),
    "check": (
        "check whether a prototxt runs here, and list what does not",
        """\
  python -m torchcaffe check -model deploy.prototxt
""",
    ),
}


def parser() -> cli.Parser:
    """A parser a command: each takes the flags that it reads."""
    p = cli.Parser(
        prog="torchcaffe",
        description="Train, test and time Caffe's nets on PyTorch.",
        epilog="examples:\n" + "".join(examples for _, examples in COMMANDS.values()),
    )
    commands = p.add_subparsers(dest="command", metavar="COMMAND", required=True)
    made = {}
    for name, (what, examples) in COMMANDS.items():
        made[name] = commands.add_parser(
            name,
            prog=f"torchcaffe {name}",
            help=what,
            description=f"{what[0].upper()}{what[1:]}.",
            epilog=f"examples:\n{examples}",
        )
    _train(made["train"])
    for name in ("test", "time", "export", "check"):
        _file(made[name], "model", "the net's prototxt")
    for name in ("test", "export"):
        _file(made[name], "weights", "a .caffemodel to copy by layer name")
    for name in ("test", "time", "check"):
        what = "default: TEST; for time, TRAIN"
        made[name].add_argument("-phase", "--phase", choices=["TRAIN", "TEST"], help=what)
    for name in ("test", "time"):
        made[name].add_argument(
            "-iterations",
            "--iterations",
            type=COUNT,
            default=50,
            metavar="N",
            help="batches; default: 50",
        )
    for name in ("train", "test", "time", "check"):
        _state(made[name])
    for name in ("train", "test", "time"):
        _precision(made[name])
    for name in ("train", "time"):
        made[name].add_argument(
            "--show-code", action="store_true", help="print the generated code, and exit"
        )
    made["export"].add_argument(
        "--onnx",
        metavar="FILE",
        help="the ONNX file to write, with a dynamic batch axis; checked in onnxruntime",
    )
    made["export"].add_argument(
        "--state-dict", metavar="FILE", help="the weights to write, for torch.load"
    )
    return p


def _train(p: cli.Parser) -> None:
    _file(p, "solver", "the solver's prototxt")
    _file(p, "weights", "a .caffemodel to copy by layer name, or several, a,b")
    _file(p, "snapshot", "a .solverstate to resume from")
    effects = ["stop", "snapshot", "none"]
    for name, default in (("sigint_effect", "stop"), ("sighup_effect", "snapshot")):
        p.add_argument(
            f"-{name}", f"--{name}", choices=effects, default=default, help=f"default: {default}"
        )
    p.add_argument(
        "--shuffle", action="store_true", help="draw a new order of the records each epoch"
    )
    p.add_argument(
        "--sync-bn",
        action="store_true",
        help="compute BatchNorm's statistics over all ranks of torchrun",
    )


def _file(p: cli.Parser, name: str, what: str) -> None:
    p.add_argument(f"-{name}", f"--{name}", metavar="FILE", help=what)


def _state(p: cli.Parser) -> None:
    p.add_argument(
        "-level", "--level", type=LEVEL, default=0, metavar="N", help="of the net's state"
    )
    p.add_argument(
        "-stage", "--stage", default="", help="stages of the net's state, separated by commas"
    )


def _precision(p: cli.Parser) -> None:
    what = "device number, or all (with torchrun)"
    p.add_argument("-gpu", "--gpu", type=DEVICE, metavar="N", help=what)
    own = p.add_argument_group("not Caffe's")
    own.add_argument(
        "--tf32", action="store_true", help="use TF32 in matrix products and convolutions"
    )
    own.add_argument(
        "--bf16",
        action="store_true",
        help="compute in bfloat16; weights and statistics stay float32",
    )
    own.add_argument(
        "--channels-last",
        choices=["yes", "no", "measure"],
        default="measure",
        help="memory order of images; the default times the convolutions in both",
    )
    own.add_argument("--compile", action="store_true", help="through torch.compile")
    own.add_argument(
        "--cuda-graphs", action="store_true", help="compile, and replay the kernels as CUDA graphs"
    )
