"""A page with the curves of all trainings under a folder: `python docker/curves.py DIR`.

Reads every train.log there (Caffe's own words) each time that the page is asked for, and
draws loss and accuracy over iterations. The standard library and our log reader; no
JavaScript, nothing from elsewhere.
"""

from __future__ import annotations

import contextlib
import html
import math
import stat
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from xresnet.basics import cli  # noqa: E402
from xresnet.basics.numbers import PORT  # noqa: E402
from xresnet.realcaffe import train_log  # noqa: E402

WIDTH, HEIGHT = 620, 240
COLOURS = ("#1b6ca8", "#c0392b", "#2e8b57", "#8e44ad", "#b9770e", "#34495e")
REFRESH = 30  # seconds
Curves = dict[str, list[tuple[int, float]]]


def curves(log: Path) -> tuple[Curves, Curves]:
    """Losses of the training steps, and the outputs of its test passes, by name."""
    losses: Curves = {}
    tests: Curves = {}
    with log.open(encoding="utf-8", errors="replace") as file:
        for event in train_log.read(file):
            if isinstance(event, train_log.TrainStep):
                for name, value in (event.outputs or {"loss": event.loss}).items():
                    losses.setdefault(name, []).append((event.iteration, value))
            elif isinstance(event, train_log.TestPass):
                for name, value in event.outputs.items():
                    tests.setdefault(name, []).append((event.iteration, value))
    return losses, {name: points for name, points in tests.items() if "loss" not in name}


def chart(lines: Curves) -> str:
    """The curves as an SVG, each with its name and last value; "" without any point."""
    lines = {
        name: [point for point in points if math.isfinite(point[1])]
        for name, points in lines.items()
    }
    points = [point for line in lines.values() for point in line]
    if not points:
        return ""
    right = max(x for x, _ in points) or 1
    low, high = min(0.0, *(y for _, y in points)), max(y for _, y in points)
    high = high if high > low else low + 1
    parts = []
    for i, (name, line) in enumerate(lines.items()):
        if not line:
            continue
        thinned = [*line[:: max(1, len(line) // WIDTH)], line[-1]]
        at = " ".join(
            f"{40 + x / right * (WIDTH - 190):.1f},"
            f"{HEIGHT - 25 - (y - low) / (high - low) * (HEIGHT - 40):.1f}"
            for x, y in thinned
        )
        colour = COLOURS[i % len(COLOURS)]
        parts.append(f'<polyline points="{at}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
        label = f"{_e(name)} {line[-1][1]:.3g}"
        parts.append(f'<text x="{WIDTH - 140}" y="{24 + 16 * i}" fill="{colour}">{label}</text>')
    axes = (
        f'<path d="M40 15V{HEIGHT - 25}H{WIDTH - 150}" fill="none" stroke="#888"/>'
        f'<text x="2" y="20">{high:.3g}</text><text x="2" y="{HEIGHT - 25}">{low:.3g}</text>'
        f'<text x="{WIDTH - 200}" y="{HEIGHT - 8}">{right}</text>'
    )
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}">{axes}{"".join(parts)}</svg>'


def logs(folder: Path) -> list[Path]:
    """The train.log files under `folder`, the one written last first; no pipes or devices."""
    found = []
    for path in folder.rglob("train.log"):
        with contextlib.suppress(OSError):  # it has gone meanwhile
            state = path.stat()
            if stat.S_ISREG(state.st_mode):
                found.append((-state.st_mtime, path))
    return [path for _, path in sorted(found)]


def page(folder: Path) -> str:
    """All trainings under `folder`, the one at work first."""
    body = []
    for log in logs(folder):
        name = _e(log.parent.relative_to(folder))
        try:
            losses, accuracies = curves(log)
        except OSError as error:
            body.append(f"<h2>{name}</h2><p>cannot read train.log: {_e(error.strerror)}</p>")
            continue
        body.append(f"<h2>{name}</h2>{chart(losses)}{chart(accuracies)}")
    return (
        f'<!doctype html><meta charset="utf-8"><meta http-equiv="refresh" content="{REFRESH}">'
        "<title>Trainings</title><style>body{font:14px sans-serif;margin:2em}"
        "svg{margin-right:1em}text{font-size:12px}</style><h1>Trainings</h1>"
        + ("".join(body) or f"<p>No train.log under {_e(folder)} yet.</p>")
    )


def _e(value: object) -> str:
    return html.escape(cli.printable(value))


class Server(ThreadingHTTPServer):
    """Serves the page of a folder."""

    def __init__(self, address: tuple[str, int], folder: Path) -> None:
        self.folder = folder
        super().__init__(address, Page)

    def handle_error(self, request: object, client_address: object) -> None:
        if not isinstance(sys.exc_info()[1], ConnectionError):  # the reader has gone
            super().handle_error(request, client_address)


class Page(BaseHTTPRequestHandler):
    """Answers with the page, whatever its address."""

    server: Server

    def do_GET(self) -> None:
        text = page(self.server.folder).encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(text)

    do_HEAD = do_GET

    def log_message(self, *args: object) -> None:  # a line a request says nothing
        pass


def main(argv: list[str] | None = None) -> int:
    parser = cli.Parser("curves", description="A page with the curves of all trainings.")
    parser.add_argument("folder", type=Path, metavar="DIR", help="looked through for train.log")
    parser.add_argument("--port", type=PORT, default=8080, metavar="N", help="8080")
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        metavar="ADDRESS",
        help="where to listen: 127.0.0.1, for this machine alone; 0.0.0.0: for every machine",
    )
    args = parser.parse_args(argv)
    if not args.folder.is_dir():
        raise cli.UserError(f"no folder {args.folder}")
    try:
        server = Server((args.host, args.port), args.folder)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise cli.UserError(
            f"cannot listen on {args.host}, port {args.port}: {reason}; --port names another"
        ) from error
    print(f"http://{args.host}:{args.port}", flush=True)
    server.serve_forever()
    return 0


if __name__ == "__main__":
    cli.run(main, "curves")
