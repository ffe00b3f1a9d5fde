from netgen.weights.command import main
from xresnet.basics import cli

cli.run(main, "netgen.weights")
