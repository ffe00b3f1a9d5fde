"""`xresnet eval`: every test image once, in two ways."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

from xresnet.basics.cli import UserError
from xresnet.reproduce.commands import common
from xresnet.reproduce.data import Data
from xresnet.reproduce.evaluate import evaluate
from xresnet.reproduce.evaluation import Evaluation, as_text, compare
from xresnet.reproduce.kept import Kept
from xresnet.reproduce.net import net_of

NAME = "eval"
SUMMARY = "evaluate a trained net exactly, in two ways"
DESCRIPTION = (
    "Test a run's net on every test image once, by `caffe test` and from the "
    "net's scores themselves; both must agree. Intervals are 95%, by "
    "bootstrap over images. Written to RUN/eval_SNAPSHOT.json."
)
EXAMPLES = """\
examples:
  python -m xresnet eval runs/xs
  python -m xresnet eval runs/xs --snapshot best --against runs/x0
  python -m xresnet eval runs/deepsentibank --deepsentibank dsb.caffemodel \\
      --classes deepsentibank_2089_classes.json --data data/vso
"""


def add(p: ArgumentParser) -> None:
    p.add_argument(
        "folder", type=Path, metavar="RUN", help="a run's folder, or a .caffemodel in it"
    )
    common.add_snapshot(p)
    common.option(
        p, "--against", "compare with this evaluated run (McNemar's test)", Path, metavar="RUN"
    )
    common.add_engine(p)
    common.add_json(p, "all of it")
    d = p.add_argument_group("DeepSentiBank's weights (RUN is then the folder for its results)")
    common.option(d, "--deepsentibank", "its .caffemodel", Path, metavar="FILE")
    common.option(d, "--classes", "its published class list (JSON)", Path, metavar="FILE")
    common.add_among(d)
    common.add_data(d, required=False)


def run(args: Namespace) -> int:
    engine = common.engine(args)
    other = Evaluation.find(args.against) if args.against else None  # before the long test
    if args.deepsentibank and not (args.classes and args.data):
        raise UserError("--deepsentibank needs --classes and --data")
    if not args.deepsentibank and (args.classes or args.data or args.among):
        raise UserError("--classes, --among and --data need --deepsentibank; a run has its own")
    published = common.deepsentibank(args, args.deepsentibank, args.classes)
    if published:
        data = Data.read(args.data)
        folder, weights, root = args.folder, args.deepsentibank, data.folder.root
    else:
        net = net_of(args.folder, args.snapshot)
        folder, weights, root = net.folder, net.weights, Kept.read(net.folder).tested_on()
    if other:
        other.hold_images(root)
    result = (
        published.evaluate(data, folder, engine) if published else evaluate(net, folder, engine)
    )
    if other:
        result["against"] = compare(Evaluation.of(folder, weights), other)
    return common.show(result, args.json, as_text(result))
