"""`xresnet eval`: every test image once, in two ways."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from xresnet.basics.cli import UserError, printable
from xresnet.reproduce.commands import common
from xresnet.reproduce.data import Data
from xresnet.reproduce.evaluate import Evaluation, as_text, compare, evaluate, net_of
from xresnet.reproduce.kept import Kept

EXAMPLES = """\
examples:
  python -m xresnet eval runs/xs
  python -m xresnet eval runs/xs --snapshot best --against runs/x0
  python -m xresnet eval runs/deepsentibank --deepsentibank dsb.caffemodel \\
      --classes deepsentibank_2089_classes.json --data data/vso
"""


def add(commands: common.Commands) -> None:
    p = commands.add_parser(
        "eval",
        help="evaluate a trained net exactly, in two ways",
        description="Test a run's net on every test image once, by `caffe test` and from the "
        "net's scores themselves; both must agree. Intervals are 95%, by "
        "bootstrap over images. Written to RUN/eval_SNAPSHOT.json.",
        epilog=EXAMPLES,
    )
    p.set_defaults(run=run)
    p.add_argument(
        "folder", type=Path, metavar="RUN", help="a run's folder, or a .caffemodel in it"
    )
    p.add_argument("--snapshot", metavar="WHICH", help="last (default), best, or an iteration")
    p.add_argument(
        "--against", type=Path, metavar="RUN", help="compare with this evaluated run: McNemar"
    )
    common.add_engine(p)
    p.add_argument("--json", action="store_true", help="print all of it as JSON")
    d = p.add_argument_group("DeepSentiBank (RUN is then the folder for its results)")
    d.add_argument("--deepsentibank", type=Path, metavar="FILE", help="its .caffemodel")
    d.add_argument("--classes", type=Path, metavar="FILE", help="its published class list (JSON)")
    common.add_among(d)
    d.add_argument("--data", type=Path, metavar="DIR", help="data_prep's folder")


def run(args: argparse.Namespace) -> int:
    engine = common.engine(args)
    other = Evaluation.find(args.against) if args.against else None  # before the long test
    if args.deepsentibank:
        if not args.classes or not args.data:
            raise UserError("--deepsentibank needs --classes and --data")
        published = common.deepsentibank(args, args.deepsentibank, args.classes)
        data = Data.read(args.data)
        folder, weights, root = args.folder, args.deepsentibank, data.folder.root
    else:
        if args.classes or args.data or args.among:
            raise UserError(
                "--classes, --among and --data go with --deepsentibank; a run has its own"
            )
        net = net_of(args.folder, args.snapshot)
        folder, weights, root = net.folder, net.weights, Kept.read(net.folder).tested_on()
    if other:
        other.hold_images(root)
    if args.deepsentibank:
        result = published.evaluate(data, folder, engine)
    else:
        result = evaluate(net, folder, engine)
    if other:
        result["against"] = compare(Evaluation.of(folder, weights), other)
    print(json.dumps(result, indent=2) if args.json else printable(as_text(result)))
    return 0
