"""The residual blocks of a ResNet: their names, widths, strides and output sizes."""

from __future__ import annotations

from dataclasses import dataclass

from netgen.options import Options
from xresnet.basics.cli import UserError, near_miss

# Residual blocks in res2, res3, res4 and res5.
DEPTHS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
LETTERS = 26  # res2a to res2z
STRIDES = 32  # the product of the strides of conv1, pool1, res3a, res4a and res5a


@dataclass(frozen=True)
class Block:
    """A bottleneck block: convolutions 1x1 and 3x3 to `width` channels, and 1x1 to 4 * `width`.

    `name` is 5a for res5a. `projects` tells whether its shortcut is a projection, which it is
    where the shape changes (option B).
    """

    name: str
    width: int
    stride: int
    projects: bool

    @property
    def title(self) -> str:
        return f"res{self.name}"


def blocks(options: Options) -> list[Block]:
    """All residual blocks, res2a to res5c at depth 50.

    Raises:
        UserError: the depth is unknown, the input is too small for the strides, or a stage
            has more blocks than letters.
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
    """The blocks before the branching block, that block (None without one), and those after it.

    Raises:
        UserError: there is no such block, or fewer blocks after it than `cross_blocks`.
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
    """Height and width of the last block's output: 7 for an input of 224."""
    return map_after(blocks(options), options)


def map_after(before: list[Block], options: Options) -> int:
    """Height and width of the output of the last of the first blocks."""
    size = (options.input_size - 1) // 2 + 1  # conv1: 7 x 7, stride 2, pad 3
    size = (size + (options.pool1 == "padded")) // 2  # pool1: 3 x 3, stride 2
    for block in before:
        size = (size - 1) // block.stride + 1
    return size


def title(options: Options, family: str) -> str:
    """The net's title, such as XS-ResNet-50; its depth counts convolutions and the classifier."""
    return f"{family}-{2 + 3 * len(blocks(options))}"


def deep(options: Options) -> bool:
    """Whether blocks and conv1 are as in ResNet-101 and -152, not as in ResNet-50."""
    return max(options.blocks or DEPTHS[options.depth]) > 6


def _letter(stage: int, i: int, options: Options) -> str:
    """a, b, c, ..., but a, b1, b2, ... in res3 and res4 of ResNet-101 and -152."""
    if _is_numbered(stage, options) and i > 0:
        return f"b{i}"
    return chr(ord("a") + i)


def _is_numbered(stage: int, options: Options) -> bool:
    return deep(options) and stage in (3, 4)


def cached_maps(options: Options) -> tuple[int, int, int] | None:
    """(C, H, W) of the cached maps that `from_block` makes the input; None if images are.

    Raises:
        UserError: there is no such block.
    """
    if options.from_block is None:
        return None
    every = blocks(options)
    for i, block in enumerate(every):
        if block.title == options.from_block:
            size = map_after(every[: i + 1], options)
            return 4 * block.width, size, size
    names = [block.title for block in every]
    raise UserError(
        f"--from-block: no block {options.from_block!r}{near_miss(options.from_block, names)}; "
        f"this net has {names[0]} to {names[-1]}"
    )
