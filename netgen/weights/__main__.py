from xresnet.basics import cli

cli.run("netgen.weights.command", "netgen.weights")
