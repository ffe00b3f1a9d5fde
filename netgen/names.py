"""The names of layers, in our nets and in the files of initial weights."""

from __future__ import annotations

from collections.abc import Iterable


def origin(name: str, tasks: Iterable[str]) -> tuple[str, str | None]:
    """The published layer that a task's layer starts from, and the task.

    `res5b_branch2a_noun` is `res5b_branch2a`, noun; a name without a task is itself.
    """
    for task in sorted(tasks, key=len, reverse=True):  # a task may end in another's name
        if name.endswith(f"_{task}") and len(name) > len(task) + 1:
            return name[: -len(task) - 1], task
    return name, None


def norm_names(convolution: str) -> tuple[str, str]:
    """The BatchNorm and the Scale behind a published ResNet's convolution.

    `res2a_branch1` has `bn2a_branch1` and `scale2a_branch1`; `conv1` has
    `bn_conv1` and `scale_conv1`.
    """
    suffix = convolution[3:] if convolution.startswith("res") else f"_{convolution}"
    return f"bn{suffix}", f"scale{suffix}"
