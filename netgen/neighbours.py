"""The neighbouring systems as baselines: the same trunk, tasks and data as X-ResNet.

Cross-stitch networks (Misra et al., CVPR 2016) and ROCK (Mordan et al., NeurIPS
2018). What those papers do not say for three tasks on a ResNet, or what was
read in other implementations only, is marked *inferred*.
"""

from __future__ import annotations

from itertools import groupby

from netgen.blocks import blocks, cached_maps, title
from netgen.classics import CAFFENET, CAFFENET_INPUT
from netgen.joints import zero
from netgen.layers import add, convolution, head, images, labels, norm, relu, task_outputs
from netgen.net import Net
from netgen.options import Options
from netgen.resnet import average, cross_residual_block, heads, stem, trunk
from netgen.tasks import Task
from xresnet.basics.cli import UserError, near_miss

# ---- Cross-stitch -------------------------------------------------------------


def cross_stitch_resnet(options: Options) -> Net:
    """A tower a task, stitched after each of res2 to res5 (*inferred*: where for a ResNet)."""
    net = Net(title(options, "Cross-stitch-ResNet"))
    x = images(net, options)
    labels(net, options, list(options.tasks))
    xs = {task.name: stem(net, x, options, task.name) for task in options.tasks}
    for stage, members in groupby(blocks(options), key=lambda block: block.name[0]):
        for block in members:
            xs = cross_residual_block(net, xs, block, zero, options)
        xs = cross_stitch(net, f"stitch{stage}", xs, options)
    heads(net, xs, options)
    return net


def cross_stitch_caffenet(options: Options) -> Net:
    """The original's net: a CaffeNet a task, stitched after each pooling, fc6 and fc7."""
    if options.input_size < CAFFENET_INPUT:
        raise UserError(
            f"--input-size {options.input_size} is too small: {CAFFENET_INPUT} at least"
        )
    net = Net("Cross-stitch-CaffeNet")
    x = images(net, options)
    labels(net, options, list(options.tasks))
    xs = {task.name: x for task in options.tasks}
    for stage, name in zip(CAFFENET, ("pool1", "pool2", "pool5", "fc6", "fc7")):
        xs = {t: stage(net, x, f"_{t}") for t, x in xs.items()}
        xs = cross_stitch(net, f"stitch_{name}", xs, options)
    for task in options.tasks:
        net.group(task.name)
        head(net, xs[task.name], task, options, f"fc8_{task.name}")
    return net


def cross_stitch(net: Net, name: str, xs: dict[str, str], options: Options) -> dict[str, str]:
    """The unit: x~(t) = the sum over tasks j of alpha(j, t) x(j), alpha learned.

    One alpha a channel or, where that is unstable, one a layer. They start at
    alpha_S on the diagonal and alpha_D off it, with a sum of 1 (*inferred* for
    more than two tasks), learn 100 times faster than the towers and do not
    decay (*inferred*: decay would pull the towers to zero, not apart).
    """
    net.group(f"{name}: cross-stitch unit")
    same, other = stitch_init(options)
    ys = {}
    for t in xs:
        terms = []
        for j, x in xs.items():
            start = {"type": "constant", "value": same if j == t else other}
            per_layer = {"num_axes": 0} if options.stitch == "layer" else {}
            terms.append(
                net.layer(
                    "Scale",
                    f"{name}_{j}-{t}",
                    x,
                    param=[{"lr_mult": options.stitch_lr, "decay_mult": 0}],
                    scale_param={"filler": start, "bias_term": False, **per_layer},
                )
            )
        ys[t] = add(net, f"{name}_{t}", terms)
    return ys


def stitch_init(options: Options) -> tuple[float, float]:
    """(alpha_S, alpha_D); alpha_D shares what alpha_S leaves of 1 unless it is given."""
    same, *other = options.stitch_init
    return same, other[0] if other else (1 - same) / max(1, len(options.tasks) - 1)


# ---- ROCK ---------------------------------------------------------------------

ENCODED = 8  # the encoder's width in units of conv1's: 512 beside res5's 2,048
AUXILIARY_WEIGHT = 3  # of the auxiliary losses (*inferred*, from a re-implementation)


def rock_resnet(options: Options) -> Net:
    """ROCK: auxiliary tasks predicted from res5, and what they know added back for the primary.

    Read in a public re-implementation (*inferred* throughout): a shared encoder,
    a plain 1x1 convolution to K maps a task, averaged into its scores; from the
    maps before averaging a decoder back to res5's width; the primary task's
    head sees ReLU(BN(res5 + the sum of the decoders)).
    """
    primary, auxiliary = _primary(options)
    net = Net(title(options, "ROCK-ResNet"))
    x = images(net, options, cached_maps(options))
    labels(net, options, list(options.tasks))
    x = trunk(net, x, blocks(options), options)

    width = options.width * ENCODED
    net.group("rock: shared encoder")
    e = convolution(net, x, "rock_encode1", width, kernel=1)
    e = relu(net, norm(net, e, "_rock_encode1", options, new=True), "rock_encode1_relu")
    e = convolution(net, e, "rock_encode2", width, kernel=3, pad=1)
    e = relu(net, norm(net, e, "_rock_encode2", options, new=True), "rock_encode2_relu")

    decoded = []
    for task in auxiliary:
        net.group(f"{task.name}: predictor and decoder")
        maps = convolution(net, e, f"rock_maps_{task.name}", task.classes, kernel=1, bias=True)
        scores = average(net, maps, f"rock_scores_{task.name}", options)
        task_outputs(net, scores, task, options, weight=AUXILIARY_WEIGHT)
        d = convolution(net, maps, f"rock_decode_{task.name}", 4 * width, kernel=1)
        d = norm(net, d, f"_rock_decode_{task.name}", options, new=True)
        decoded.append(relu(net, d, f"rock_decode_relu_{task.name}"))

    net.group("rock: fusion")
    y = add(net, "rock", [x, *decoded])
    y = relu(net, norm(net, y, "_rock", options, new=True), "rock_relu")
    net.group(f"{primary.name}: the primary task")
    head(net, average(net, y, "pool5", options), primary, options)
    return net


def _primary(options: Options) -> tuple[Task, list[Task]]:
    names = [task.name for task in options.tasks]
    if options.primary not in names:
        raise UserError(
            f"--primary: no task {options.primary!r}{near_miss(options.primary, names)}; "
            f"there are {', '.join(names)}"
        )
    if len(names) < 2:
        raise UserError("ROCK needs an auxiliary task: give --tasks two or more")
    primary = options.tasks[names.index(options.primary)]
    return primary, [task for task in options.tasks if task is not primary]
