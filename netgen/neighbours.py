"""Related work as baselines, with the trunk, tasks and data of X-ResNet.

These are cross-stitch networks (Misra et al., CVPR 2016) and ROCK (Mordan et al., NeurIPS 2018).
*Inferred* marks what these papers do not say for three tasks on a ResNet, and what was found in
other implementations only.
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
from netgen.tasks import find
from xresnet.basics.cli import UserError

# ---- Cross-stitch -------------------------------------------------------------


def cross_stitch_resnet(options: Options) -> Net:
    """One tower per task, with cross-stitch units after each of res2 to res5 (*inferred*)."""
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
    """The paper's net: one CaffeNet per task, with units after each pooling, fc6 and fc7."""
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
    """A cross-stitch unit: x~(t) = sum over tasks j of alpha(j, t) x(j), with learned alpha.

    There is one alpha per channel or, where that is unstable, one per layer. Alpha is initialised
    to alpha_S for j = t and to alpha_D otherwise, with a sum of 1 (*inferred* for more than two
    tasks). It learns 100 times faster than the towers, without weight decay (*inferred*: decay
    would pull the towers to zero, not apart).

    Args:
        net: the net to append to.
        name: of the unit.
        xs: one blob per task, N x C x H x W.
        options: all options of the net.

    Returns:
        the combined blobs by task, of the same shape.
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
    """The initial (alpha_S, alpha_D); by default the alpha_D of a task share 1 - alpha_S."""
    same, *other = options.stitch_init
    return same, other[0] if other else (1 - same) / max(1, len(options.tasks) - 1)


# ---- ROCK ---------------------------------------------------------------------

ENCODED = 8  # the encoder's width over conv1's: 512 channels beside res5's 2,048
AUXILIARY_WEIGHT = 3  # of the auxiliary losses (*inferred*, from a re-implementation)


def rock_resnet(options: Options) -> Net:
    """ROCK: auxiliary tasks are predicted from res5, and their maps added for the primary task.

    From a public re-implementation (*inferred* throughout): a shared encoder; for each auxiliary
    task a 1x1 convolution to K maps, whose averages are its scores, and a decoder of these maps
    to res5's width; the primary task's head on ReLU(BN(res5 + sum of the decoders)).
    """
    primary = find(options.tasks, options.primary, "--primary")
    auxiliary = [task for task in options.tasks if task is not primary]
    if not auxiliary:
        raise UserError("ROCK needs an auxiliary task: give --tasks two or more")
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
