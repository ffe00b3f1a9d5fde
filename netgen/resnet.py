"""ResNet-50 and the cross-residual networks made from it (paper, sections 3 to 5).

The paper's symbols and the names here:

    x(t)              `xs[t]`, one blob a task
    F(x(t), {W(t)})   `residual`: 1x1, 3x3 and 1x1 convolutions
    Ws(t) x(t)        `shortcut`: identity, or a 1x1 projection where the shape changes
    Ws(j) x(j)        a `Joint`: what joins source task j to target task t
    equation 1        `residual_block`
    equation 2        `cross_residual_block`

Layers keep the names of the published ResNet-50 (res5b_branch2a, bn5b_branch2a,
scale5b_branch2a), because Caffe copies weights by name; behind the branching
point each task appends its own (res5b_branch2a_noun).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Callable, Optional

from netgen import plugin
from netgen.layers import add, convolution, freeze, head, images, labels, learn, norm, relu
from netgen.net import Net
from netgen.options import OPTIONS, Learned, Options, Scaled, Task
from xresnet.basics.cli import UserError, near_miss

# Residual blocks in res2, res3, res4 and res5.
DEPTHS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
LETTERS = 26  # res2a to res2z
IMAGENET = Task("imagenet", 1000)
STRIDES = 32  # conv1, pool1, res3a, res4a and res5a halve the map, one after another


@dataclass(frozen=True)
class Block:
    """A bottleneck block, `name` as in res5a: 1x1, 3x3 and 1x1 to four times `width`."""

    name: str
    width: int
    stride: int
    projects: bool  # option B: a projection only where the shape changes

    @property
    def title(self) -> str:
        return f"res{self.name}"


# ---- The nets ---------------------------------------------------------------


def imagenet(name: str, options: Options) -> Net:
    """The published ResNet that all others start from: ImageNet's 1,000 classes."""
    return resnet(name, options, classifier="fc1000")


def resnet(name: str, options: Options, classifier: str | None = None) -> Net:
    """Single-task ResNet (Figure 4, right): trunk, average pool, one classifier."""
    task = options.chosen_task(name)
    net = Net(f"{title(options, 'ResNet')}-{task.name}")
    x = images(net, options, cached_maps(options))
    labels(net, options, [task])
    x = trunk(net, x, blocks(options), options)
    net.group(task.name)
    head(net, average(net, x, "pool5", options), task, options, classifier)
    return net


def x_resnet(prefix: str, joint: Joint, options: Options) -> Net:
    """A cross-residual net (Figure 4, left and centre): branch, cross-residual units, heads.

    `options.joint`, where it names one, stands in for `joint`.
    """
    if options.joint:
        prefix, joint = f"X-{plugin.name(options.joint)}", plugin.load(options.joint)
    net = Net(title(options, f"{prefix}-ResNet"))
    x = images(net, options, cached_maps(options))
    labels(net, options, list(options.tasks))
    before, branching, after = split_at_branch(options)
    if branching is None:  # whole towers, coupled only by their shortcuts (section 4)
        shared(before, options)
        xs = {task.name: stem(net, x, options, task.name) for task in options.tasks}
    else:
        xs = branch_block(net, trunk(net, x, before, options), branching, options)
    for i, block in enumerate(after):
        crosses = options.cross_blocks is None or i < options.cross_blocks
        xs = cross_residual_block(net, xs, block, joint if crosses else zero, options)
    heads(net, xs, options)
    _demand_joints(net, options)
    if (options.cross_lr, options.cross_decay) != (1, 1):
        learn(net, lambda layer: CROSS in layer.name, options.cross_lr, options.cross_decay)
    if options.freeze_towers:
        freeze(net, lambda layer: CROSS not in layer.name)
    return net


def trunk(net: Net, x: str, before: list[Block], options: Options) -> str:
    """What all tasks share: the images through conv1 and the blocks `before` the tasks part.

    With `from_block`, that block's cached maps through those behind it.
    """
    if options.from_block is None:
        x = stem(net, x, options)
    for block in shared(before, options):
        x = residual_block(net, x, block, options)
    return x


def shared(before: list[Block], options: Options) -> list[Block]:
    """The blocks of `before` that the net holds: with `from_block`, those behind it.

    Raises:
        UserError: `from_block` is not among them.
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


def cached_maps(options: Options) -> tuple[int, int, int] | None:
    """C, H and W of the cached maps that the net begins with; None where images are its input."""
    if options.from_block is None:
        return None
    every = blocks(options)
    for i, block in enumerate(every):
        if block.title == options.from_block:
            size = map_behind(every[: i + 1], options)
            return 4 * block.width, size, size
    names = [block.title for block in every]
    raise UserError(
        f"--from-block: no block {options.from_block!r}{near_miss(options.from_block, names)}; "
        f"this net has {names[0]} to {names[-1]}"
    )


def heads(net: Net, xs: dict[str, str], options: Options) -> None:
    """Average pool and classifier of each task, on its own blob."""
    for task in options.tasks:
        net.group(task.name)
        pooled = average(net, xs[task.name], f"pool5_{task.name}", options)
        head(net, pooled, task, options)


def _demand_joints(net: Net, options: Options) -> None:
    """Hold options of learned joints to a net that has some: more than one task and one block."""
    if any(CROSS in layer.name for _, group in net.groups for layer in group):
        return
    for one in OPTIONS.values():
        if one.family in (Learned, Scaled) and getattr(options, one.name) != one.default:
            raise UserError(f"{one.flag} is for what joins two tasks: nothing does so here")


# ---- What joins two tasks: Ws(j) x(j), section 5.2.2 ------------------------

# (net, x, block, source, target, options) to the term that `target` receives
# from `source`'s shortcut `x`, or None where nothing joins them. `own_scale` is
# asked for a task and itself, all others for two tasks.
Joint = Callable[[Net, str, Block, str, str, Options], Optional[str]]


def zero(net: Net, x: str, block: Block, source: str, target: str, options: Options) -> None:
    """X0: Ws(j) = 0, a standard multitask net."""


def identity(net: Net, x: str, block: Block, source: str, target: str, options: Options) -> str:
    """XI: Ws(j) = I."""
    return x


def scale(net: Net, x: str, block: Block, source: str, target: str, options: Options) -> str:
    """XS: a channelwise scaling a * x, one learned weight a channel and no bias.

    Section 5.2 starts a as a zero-mean Gaussian of std sqrt(2/n), n the mean of
    input and output units: Caffe's msra filler with AVERAGE, which for a
    Scale's C weights takes n = (1 + C) / 2. `cross_std` sets the std outright,
    `cross_start` one value for all.
    """
    filler: dict[str, Any] = {"type": "msra", "variance_norm": "AVERAGE"}
    if options.cross_std is not None:
        filler = {"type": "gaussian", "std": options.cross_std}
    elif options.cross_start is not None:
        filler = {"type": "constant", "value": options.cross_start}
    name = f"res{block.name}{CROSS}{source}-{target}"
    return net.layer("Scale", name, x, scale_param={"filler": filler, "bias_term": False})


def own_scale(net: Net, x: str, block: Block, source: str, target: str, options: Options) -> str:
    """XSelf, a control of ours: y = F + (1 + a) x, each task's own shortcut scaled.

    Its weights start and learn as XS's, but nothing crosses: what XS has beyond it comes
    from the other tasks, not from a gain by channel.
    """
    return scale(net, x, block, source, target, options)


def projection(net: Net, x: str, block: Block, source: str, target: str, options: Options) -> str:
    """XP: a 1x1 convolution of all channels, then normalisation.

    Section 5.2.3 names it as what a larger budget could buy.
    """
    pair = f"{block.name}{CROSS}{source}-{target}"
    y = convolution(net, x, f"res{pair}", 4 * block.width, kernel=1)
    return norm(net, y, pair, options, new=True)


def gated(net: Net, x: str, block: Block, source: str, target: str, options: Options) -> str:
    """XG: sigmoid(g) * x, a carry gate with one learned value a channel.

    Section 3 likens cross-residual weights to the carry gates of highway
    networks; these depend on no input. The gates start as wide as XS's weights,
    sigmoid(-3) = 0.047. Caffe learns g as the Scale of a blob of ones.
    """
    channels = {"shape": [{"dim": [4 * block.width]}]}
    ones = {**channels, "data_filler": [{"type": "constant", "value": 1}]}
    pair = f"res{block.name}{CROSS}{source}-{target}"
    one = net.layer("DummyData", f"{pair}_one", dummy_data_param=ones)
    start = {"axis": 0, "filler": {"type": "constant", "value": -3}}
    g = net.layer("Scale", f"{pair}_gate", one, scale_param=start)
    gate = net.layer("Sigmoid", f"{pair}_sigmoid", g, top=g)
    return net.layer("Scale", pair, x, gate, scale_param={"axis": 1})


CROSS = "_cross_"  # stands in the name of every layer that makes a term Ws(j) x(j)


# ---- Blocks -----------------------------------------------------------------


def residual_block(net: Net, x: str, block: Block, options: Options) -> str:
    """Equation 1: y = F(x) + Ws x, then ReLU."""
    net.group(block.title)
    terms = [shortcut(net, x, block, options), residual(net, x, block, options)]
    return relu(net, add(net, block.title, terms), f"{block.title}_relu")


def branch_block(net: Net, x: str, block: Block, options: Options) -> dict[str, str]:
    """The branching point (section 4): one normalisation and ReLU a task, behind the addition.

    `branch_norm` says whose BatchNorm moves there: that of both summands, only
    branch2c's (the words taken literally), or none, where the tasks share the
    block's output. docs/REPRODUCTION.md weighs the three.
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
    # The normalisation factor that equation 2 leaves out, on all shortcuts but not on F.
    factor = 1 / tasks if options.shortcut_factor == "mean" else options.shortcut_factor
    return [] if factor == 1 else [factor, 1.0, *[factor] * (terms - 2)]


def residual(
    net: Net, x: str, block: Block, options: Options, task: str = "", normed: bool = True
) -> str:
    """F(x): 1x1, 3x3, 1x1; the last without ReLU, and without norm where it moves away."""
    w = block.width
    # The published Caffe net strides in the first convolution, torchvision's in the second.
    s1, s3 = (block.stride, 1) if options.stride_in == "1x1" else (1, block.stride)
    x = unit(net, x, block, "branch2a", w, 1, s1, options, task, active=True)
    x = unit(net, x, block, "branch2b", w, 3, s3, options, task, active=True)
    return unit(net, x, block, "branch2c", 4 * w, 1, 1, options, task, normed=normed)


def shortcut(
    net: Net, x: str, block: Block, options: Options, task: str = "", normed: bool = True
) -> str:
    """Ws x: x itself, or its 1x1 projection where the shape changes (option B)."""
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
    """Convolution, then as asked normalisation and ReLU, under the published names."""
    suffix = f"{block.name}_{branch}"
    tail = f"_{task}" if task else ""
    y = convolution(net, x, f"res{suffix}{tail}", outputs, kernel, stride, pad=kernel // 2)
    if normed:
        y = norm(net, y, f"{suffix}{tail}", options)
    return relu(net, y, f"res{suffix}_relu{tail}") if active else y


def stem(net: Net, x: str, options: Options, task: str = "") -> str:
    """conv1 and pool1: a map a quarter as wide. ResNet-50's published conv1 has a bias."""
    tail = f"_{task}" if task else ""
    net.group(f"conv1{tail}")
    bias = not deep(options)
    width = options.stem_width or options.width
    x = convolution(net, x, f"conv1{tail}", width, kernel=7, stride=2, pad=3, bias=bias)
    x = relu(net, norm(net, x, f"_conv1{tail}", options), f"conv1_relu{tail}")
    # The published windows start at 0 and Caffe rounds their number up; torchvision's and
    # Keras's start at -1. Both make 56 of 112, but Caffe would round the padded up to 57.
    pool: dict[str, Any] = {"pool": "MAX", "kernel_size": 3, "stride": 2}
    pool |= {"pad": 1, "round_mode": "FLOOR"} if options.pool1 == "padded" else {}
    return net.layer("Pooling", f"pool1{tail}", x, pooling_param=pool)


def average(net: Net, x: str, name: str, options: Options) -> str:
    """Average over the whole map, 7 x 7 at 224: N x C x 1 x 1."""
    pool = {"pool": "AVE", "kernel_size": last_map(options), "stride": 1}
    return net.layer("Pooling", name, x, pooling_param=pool)


# ---- Depth, width, branching point ------------------------------------------


def blocks(options: Options) -> list[Block]:
    """All residual blocks, res2a to res5c at depth 50.

    Raises:
        UserError: a depth that is none, or an input too small for the strides.
    """
    if options.input_size < STRIDES:
        raise UserError(
            f"--input-size {options.input_size} is too small: the net halves it five times, "
            f"so it needs at least {STRIDES}"
        )
    if options.depth not in DEPTHS and not options.blocks:
        known = ", ".join(map(str, DEPTHS))
        raise UserError(f"no ResNet of depth {options.depth}: there are {known}; or use --blocks")
    stages = options.blocks or DEPTHS[options.depth]
    found = []
    for stage, count in enumerate(stages, start=2):
        width = options.width << (stage - 2)
        if count > LETTERS and not _is_numbered(stage, options):
            raise UserError(f"--blocks: res{stage} has letters for {LETTERS} blocks, not {count}")
        for i in range(count):
            stride = 2 if i == 0 and stage > 2 else 1
            found.append(Block(f"{stage}{_letter(stage, i, options)}", width, stride, i == 0))
    return found


def split_at_branch(options: Options) -> tuple[list[Block], Block | None, list[Block]]:
    """The blocks before the branching block, that block, and those after it.

    With `none` as the branching block all blocks come after it.

    Raises:
        UserError: no such block, no block left behind it, or more cross-residual
            blocks asked for than are left.
    """
    every = blocks(options)
    names = [block.title for block in every]
    if options.branch_after not in [*names, "none"]:
        raise UserError(
            f"--branch-after: no block {options.branch_after!r}"
            f"{near_miss(options.branch_after, names)}; this net has {names[0]} to {names[-1]}, "
            "or none for whole towers"
        )
    if options.branch_after == "none" and options.branch_norm != "both":
        raise UserError("--branch-norm: whole towers (--branch-after none) have no branching block")
    i = -1 if options.branch_after == "none" else names.index(options.branch_after)
    left = len(every) - i - 1
    if options.cross_blocks is not None and options.cross_blocks > left:
        raise UserError(
            f"--cross-blocks {options.cross_blocks}: after {options.branch_after} there are {left}"
        )
    return every[: max(i, 0)], every[i] if i >= 0 else None, every[i + 1 :]


def last_map(options: Options) -> int:
    """Height and width of the last block's map: 7 for an input of 224."""
    return map_behind(blocks(options), options)


def map_behind(before: list[Block], options: Options) -> int:
    """Height and width of the map that the blocks `before` make of an image."""
    size = (options.input_size - 1) // 2 + 1  # conv1: 7 x 7, stride 2, pad 3
    size = (size + (options.pool1 == "padded")) // 2  # pool1: 3 x 3, stride 2
    for block in before:
        size = (size - 1) // block.stride + 1
    return size


def title(options: Options, family: str) -> str:
    """`XS-ResNet-50`: the depth counts convolutions and the classifier."""
    return f"{family}-{2 + 3 * len(blocks(options))}"


def deep(options: Options) -> bool:
    """Whether a net follows ResNet-101 and -152, whose names and conv1 differ from ResNet-50's."""
    return max(options.blocks or DEPTHS[options.depth]) > 6


def _letter(stage: int, i: int, options: Options) -> str:
    # a, b, c, ... in ResNet-50; a, b1, b2, ... in res3 and res4 of 101 and 152.
    if _is_numbered(stage, options) and i > 0:
        return f"b{i}"
    return chr(ord("a") + i)


def _is_numbered(stage: int, options: Options) -> bool:
    return deep(options) and stage in (3, 4)
