import sys

from xresnet.basics import cli

if sys.argv[1:2] == ["diff"]:
    del sys.argv[1]
    cli.run("netgen.diff", "netgen diff")
cli.run("netgen.command", "netgen")
