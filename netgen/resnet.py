"""ResNet-50 and the cross-residual networks made from it (paper, sections 3 to 5).

The paper's symbols and the names here:

    x(t)              `xs[t]`, one blob a task
    F(x(t), {W(t)})   `residual`: 1x1, 3x3 and 1x1 convolutions
    Ws(t) x(t)        `shortcut`: identity, or a 1x1 projection where the shape changes
    Ws(j) x(j)        a `Joint`, which joins source task j to target task t
    equation 1        `residual_block`
    equation 2        `cross_residual_block`

Layers have the names of the published ResNet-50 (res5b_branch2a, bn5b_branch2a,
scale5b_branch2a), because Caffe copies weights by name; after the branching point the task's
name is appended (res5b_branch2a_noun).
"""

from __future__ import annotations

from typing import Any

from netgen import joints
from netgen.blocks import Block, blocks, cached_maps, deep, last_map, split_at_branch, title
from netgen.joints import CROSS, Joint, own_scale, zero
from netgen.layers import add, convolution, freeze, head, images, labels, learn, norm, relu
from netgen.net import Net
from netgen.options import OPTIONS, Learned, Options, Scaled
from netgen.tasks import Task
from xresnet.basics.cli import UserError, near_miss

IMAGENET = Task("imagenet", 1000)

# ---- The nets ---------------------------------------------------------------


def resnet(name: str, options: Options, classifier: str | None = None) -> Net:
    """A single-task ResNet (Figure 4, right): trunk, average pooling, one classifier."""
    task = options.chosen_task(name)
    net = Net(f"{title(options, 'ResNet')}-{task.name}")
    x = images(net, options, cached_maps(options))
    labels(net, options, [task])
    x = trunk(net, x, blocks(options), options)
    net.group(task.name)
    head(net, average(net, x, "pool5", options), task, options, classifier)
    return net


def x_resnet(prefix: str, joint: Joint, options: Options) -> Net:
    """A multitask ResNet (Figure 4, left and centre): trunk, branching point, towers and heads.

    The blocks of the towers are joined by `joint`, or by `options.joint` if it is given.
    """
    if options.joint:
        prefix, joint = f"X-{joints.short_name(options.joint)}", joints.load(options.joint)
    net = Net(title(options, f"{prefix}-ResNet"))
    x = images(net, options, cached_maps(options))
    labels(net, options, list(options.tasks))
    before, branching, after = split_at_branch(options)
    if branching is None:  # separate towers, coupled only by their shortcuts (section 4)
        shared(before, options)
        xs = {task.name: stem(net, x, options, task.name) for task in options.tasks}
    else:
        xs = branch_block(net, trunk(net, x, before, options), branching, options)
    for i, block in enumerate(after):
        crosses = options.cross_blocks is None or i < options.cross_blocks
        xs = cross_residual_block(net, xs, block, joint if crosses else zero, options)
    heads(net, xs, options)
    _check_joints(net, options)
    if (options.cross_lr, options.cross_decay) != (1, 1):
        learn(net, lambda layer: CROSS in layer.name, options.cross_lr, options.cross_decay)
    if options.freeze_towers:
        freeze(net, lambda layer: CROSS not in layer.name)
    return net


def trunk(net: Net, x: str, before: list[Block], options: Options) -> str:
    """The layers that all tasks share: conv1 and the blocks before the branching point.

    With `from_block`, only the blocks after it.
    """
    if options.from_block is None:
        x = stem(net, x, options)
    for block in shared(before, options):
        x = residual_block(net, x, block, options)
    return x


def shared(before: list[Block], options: Options) -> list[Block]:
    """The shared blocks that the net contains: with `from_block`, those after it.

    Raises:
        UserError: `from_block` is not a shared block.
    """
    if options.from_block is None:
        return before
    names = [block.title for block in before]
    if options.from_block not in names:
        there = f"the tasks share {names[0]} to {names[-1]}" if names else "the tasks share none"
        raise UserError(
            f"--from-block: no shared block {options.from_block!r}"
            f"{near_miss(options.from_block, names)}; {there}"
        )
    return before[names.index(options.from_block) + 1 :]


def heads(net: Net, xs: dict[str, str], options: Options) -> None:
    """Average pooling and classifier of each task, on its blob."""
    for task in options.tasks:
        net.group(task.name)
        pooled = average(net, xs[task.name], f"pool5_{task.name}", options)
        head(net, pooled, task, options)


def _check_joints(net: Net, options: Options) -> None:
    """Raise a UserError if options of learned joints are given for a net without joints."""
    if any(CROSS in layer.name for layer in net.layers()):
        return
    for one in OPTIONS.values():
        if one.family in (Learned, Scaled) and getattr(options, one.name) != one.default:
            raise UserError(f"{one.flag} is for layers that join two tasks, and this net has none")


# ---- Blocks -----------------------------------------------------------------


def residual_block(net: Net, x: str, block: Block, options: Options) -> str:
    """Equation 1: y = F(x) + Ws x, then ReLU."""
    net.group(block.title)
    terms = [shortcut(net, x, block, options), residual(net, x, block, options)]
    return relu(net, add(net, block.title, terms), f"{block.title}_relu")


def branch_block(net: Net, x: str, block: Block, options: Options) -> dict[str, str]:
    """The branching point (section 4): one normalisation and ReLU per task after the addition.

    `branch_norm` says whose BatchNorm moves there: that of both summands, only branch2c's (the
    paper's wording taken literally), or none, so that the tasks share the block's output.
    docs/REPRODUCTION.md discusses the three.
    """
    net.group(f"{block.title}: the branching point")
    moved = options.branch_norm
    terms = [
        shortcut(net, x, block, options, normed=moved != "both"),
        residual(net, x, block, options, normed=moved == "none"),
    ]
    y = add(net, block.title, terms)
    tasks = [task.name for task in options.tasks]
    if moved == "none":
        y = relu(net, y, f"{block.title}_relu")
        return dict.fromkeys(tasks, y)
    xs = {}
    for task in tasks:
        top, new = f"{block.title}_{task}", options.bn == "published"
        x = norm(net, y, f"{block.name}_{task}", options, top=top, new=new)
        xs[task] = relu(net, x, f"{block.title}_relu_{task}")
    return xs


def cross_residual_block(
    net: Net, xs: dict[str, str], block: Block, joint: Joint, options: Options
) -> dict[str, str]:
    """Equation 2: y(t) = F(x(t)) + x(t) + the sum over tasks j != t of Ws(j) x(j), then ReLU."""
    crosses = joint not in (zero, own_scale)
    net.group(f"{block.title}: {'cross' if crosses else 'own'} residuals (equation 2)")
    shortcuts = {t: shortcut(net, x, block, options, t) for t, x in xs.items()}
    ys = {}
    for t, x in xs.items():
        sources = [t] if joint is own_scale else [j for j in xs if j != t]
        others = [joint(net, shortcuts[j], block, j, t, options) for j in sources]
        terms = [shortcuts[t], residual(net, x, block, options, t), *filter(None, others)]
        y = add(net, f"{block.title}_{t}", terms, _coefficients(len(terms), options, len(xs)))
        ys[t] = relu(net, y, f"{block.title}_relu_{t}")
    return ys


def _coefficients(terms: int, options: Options, tasks: int) -> list[float]:
    """The normalisation factor that equation 2 leaves out, on all shortcuts but not on F."""
    factor = 1 / tasks if options.shortcut_factor == "mean" else float(options.shortcut_factor)
    return [] if factor == 1 else [factor, 1.0, *[factor] * (terms - 2)]


def residual(
    net: Net, x: str, block: Block, options: Options, task: str = "", normed: bool = True
) -> str:
    """F(x): convolutions 1x1, 3x3 and 1x1, the last without ReLU, and normalised if `normed`."""
    w = block.width
    # The published Caffe net has the stride in the first convolution, torchvision's in the second.
    s1, s3 = (block.stride, 1) if options.stride_in == "1x1" else (1, block.stride)
    x = unit(net, x, block, "branch2a", w, 1, s1, options, task, active=True)
    x = unit(net, x, block, "branch2b", w, 3, s3, options, task, active=True)
    return unit(net, x, block, "branch2c", 4 * w, 1, 1, options, task, normed=normed)


def shortcut(
    net: Net, x: str, block: Block, options: Options, task: str = "", normed: bool = True
) -> str:
    """Ws x: x itself, or a 1x1 projection where the shape changes (option B)."""
    if not block.projects:
        return x
    w, s = 4 * block.width, block.stride
    return unit(net, x, block, "branch1", w, 1, s, options, task, normed=normed)


def unit(
    net: Net,
    x: str,
    block: Block,
    branch: str,
    outputs: int,
    kernel: int,
    stride: int,
    options: Options,
    task: str = "",
    normed: bool = True,
    active: bool = False,
) -> str:
    """A convolution, normalised if `normed`, with ReLU if `active`; its names are the published."""
    suffix = f"{block.name}_{branch}"
    tail = f"_{task}" if task else ""
    y = convolution(net, x, f"res{suffix}{tail}", outputs, kernel, stride, pad=kernel // 2)
    if normed:
        y = norm(net, y, f"{suffix}{tail}", options)
    return relu(net, y, f"res{suffix}_relu{tail}") if active else y


def stem(net: Net, x: str, options: Options, task: str = "") -> str:
    """conv1 and pool1, to a quarter of the height and width. ResNet-50's conv1 has a bias."""
    tail = f"_{task}" if task else ""
    net.group(f"conv1{tail}")
    bias = not deep(options)
    width = options.stem_width or options.width
    x = convolution(net, x, f"conv1{tail}", width, kernel=7, stride=2, pad=3, bias=bias)
    x = relu(net, norm(net, x, f"_conv1{tail}", options), f"conv1_relu{tail}")
    # The published windows start at 0, and Caffe rounds their number up; torchvision's and Keras's
    # start at -1. Both result in 56 for 112, but Caffe would round the padded ones up to 57.
    pool: dict[str, Any] = {"pool": "MAX", "kernel_size": 3, "stride": 2}
    pool |= {"pad": 1, "round_mode": "FLOOR"} if options.pool1 == "padded" else {}
    return net.layer("Pooling", f"pool1{tail}", x, pooling_param=pool)


def average(net: Net, x: str, name: str, options: Options) -> str:
    """The average over the whole map, 7 x 7 for an input of 224: N x C x 1 x 1."""
    pool = {"pool": "AVE", "kernel_size": last_map(options), "stride": 1}
    return net.layer("Pooling", name, x, pooling_param=pool)
