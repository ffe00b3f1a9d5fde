"""`xresnet watch`: trainings as they run."""

from __future__ import annotations

import argparse
import contextlib
import time
from pathlib import Path

from xresnet.basics.cli import UserError, printable
from xresnet.basics.numbers import PORT, SECONDS
from xresnet.reproduce.commands import common

HOST, AT = "127.0.0.1", 8080
EXAMPLES = """\
examples:
  python -m xresnet watch runs                     a page of all trainings there
  python -m xresnet watch runs/xs --port 8081
  python -m xresnet watch runs/xs --out xs.svg     a picture
  python -m xresnet watch runs/xs --out xs.png --every 60
"""


def add(commands: common.Commands) -> None:
    p = common.add(
        commands,
        "watch",
        run,
        "a page of trainings as they run, or a picture of one",
        "Serves a page that renews itself: progress, time left, losses, accuracies "
        "and rates of all trainings below a folder, whatever wrote their train.log. With --out "
        "it writes the curves of one run as a .png, .svg or .pdf instead.",
        EXAMPLES,
    )
    p.add_argument("folder", type=Path, metavar="DIR", help="a run, or a folder of runs")
    common.option(p, "--port", "of the page", PORT, unset=str(AT), metavar="N")
    what = f"where the page is served: {HOST}, to this machine alone; 0.0.0.0: to every machine"
    common.option(p, "--host", what, unset=HOST, metavar="ADDRESS")
    common.option(p, "--out", "write a picture, and serve nothing", Path, metavar="FILE")
    common.option(p, "--every", "draw --out anew so often", SECONDS, unset="once", metavar="S")


def run(args: argparse.Namespace) -> int:
    from xresnet.reproduce import watch  # matplotlib takes its time

    if args.out:
        for name in ("port", "host"):
            if getattr(args, name) is not None:
                raise UserError(f"--{name} is the page's, which --out does without: leave one out")
        while True:
            print(printable(watch.draw(args.folder, args.out)), flush=True)
            if not args.every:
                return 0
            time.sleep(args.every)
    if args.every:
        raise UserError("--every goes with --out: the page renews itself")
    served = watch.server(args.folder, args.host or HOST, args.port or AT)
    host, port = served.server_address
    print(f"http://{host}:{port}  (Ctrl-C ends it)", flush=True)
    with served, contextlib.suppress(KeyboardInterrupt):
        served.serve_forever()
    return 0
