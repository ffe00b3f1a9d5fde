"""`xresnet watch`: trainings as they run."""

from __future__ import annotations

import contextlib
import time
from argparse import ArgumentParser, Namespace
from pathlib import Path

from xresnet.basics.cli import UserError, printable
from xresnet.basics.numbers import PORT, SECONDS
from xresnet.reproduce.commands import common

HOST, AT = "127.0.0.1", 8080
NAME = "watch"
SUMMARY = "serve a page of running trainings, or draw one of them"
DESCRIPTION = (
    "Serve a page that updates itself: progress, time left, losses, accuracies "
    "and rates of all trainings below a folder, whichever engine writes train.log. With --out, "
    "write the curves of one run as a .png, .svg or .pdf instead."
)
EXAMPLES = """\
examples:
  python -m xresnet watch runs                     a page of all trainings there
  python -m xresnet watch runs/xs --port 8081
  python -m xresnet watch runs/xs --out xs.svg     a picture
  python -m xresnet watch runs/xs --out xs.png --every 60
"""


def add(p: ArgumentParser) -> None:
    p.add_argument("folder", type=Path, metavar="DIR", help="a run, or a folder of runs")
    common.option(p, "--port", "port of the page", PORT, unset=str(AT), metavar="N")
    what = f"address of the page: {HOST}, for this machine only; 0.0.0.0: for every machine"
    common.option(p, "--host", what, unset=HOST, metavar="ADDRESS")
    common.option(p, "--out", "write a picture instead of serving a page", Path, metavar="FILE")
    common.option(p, "--every", "redraw --out at this interval", SECONDS, unset="once", metavar="S")


def run(args: Namespace) -> int:
    from xresnet.reproduce import watch  # matplotlib takes its time

    if args.out:
        for name in ("port", "host"):
            if getattr(args, name) is not None:
                raise UserError(
                    f"--{name} is for the page, and --out writes no page: leave one out"
                )
        while True:
            print(printable(watch.draw(args.folder, args.out)), flush=True)
            if not args.every:
                return 0
            time.sleep(args.every)
    if args.every:
        raise UserError("--every needs --out: the page updates itself")
    served = watch.server(args.folder, args.host or HOST, args.port or AT)
    host, port = served.server_address
    print(f"http://{host}:{port}  (Ctrl-C ends it)", flush=True)
    with served, contextlib.suppress(KeyboardInterrupt):
        served.serve_forever()
    return 0
