from basics import cli
from netgen.weights.command import main

cli.run(main, "netgen.weights")
