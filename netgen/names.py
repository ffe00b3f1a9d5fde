"""The names of layers, in our nets and in the files of initial weights."""

from __future__ import annotations

from collections.abc import Iterable


def origin(name: str, tasks: Iterable[str]) -> tuple[str, str | None]:
    """The published layer that a task's layer is initialised from, and the task, if any.

    `res5b_branch2a_noun` is `res5b_branch2a` of noun; a name without a task is returned as it is.
    """
    for task in sorted(tasks, key=len, reverse=True):  # one may end in another
        if name.endswith(f"_{task}") and len(name) > len(task) + 1:
            return name[: -len(task) - 1], task
    return name, None


def norm_names(convolution: str) -> tuple[str, str]:
    """The names of BatchNorm and Scale after a convolution of the published ResNet.

    They are `bn2a_branch1` and `scale2a_branch1` for `res2a_branch1`, `bn_conv1` and `scale_conv1`
    for `conv1`.
    """
    suffix = convolution[3:] if convolution.startswith("res") else f"_{convolution}"
    return f"bn{suffix}", f"scale{suffix}"
