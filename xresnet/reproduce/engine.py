"""The engines that run Caffe's files: real Caffe (default) or torchcaffe, on PyTorch.

Both take the same commands, and write the same log and the same snapshots. They differ
in how their program is started, and in how a net's scores are computed.
"""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import ClassVar

import numpy as np

from xresnet import realcaffe
from xresnet.basics.cli import UserError
from xresnet.caffeproto import TEST, NetParameter, text
from xresnet.reproduce import stop

_NO_GPU = "Cannot use GPU in CPU-only Caffe"


def explained(words: str) -> str:
    """Caffe's last message, with what to do if it is a known one."""
    if _NO_GPU not in words:
        return words
    return (
        f"{_NO_GPU}: leave out --gpu, choose --engine torch, or put a Caffe that was built with "
        "CUDA on PATH (docs/DOCKER.md)"
    )


@dataclass(frozen=True)
class Engine(ABC):
    """A program with Caffe's commands, and the device that it computes on.

    Args:
        gpu: Caffe's -gpu (0, or 0,1, or all); None is the CPU.
        threads: of arithmetic on a CPU; None is the engine's own choice.
    """

    gpu: str | None = None
    threads: int | None = None

    name: ClassVar[str]
    title: ClassVar[str]
    typed: ClassVar[tuple[str, ...]]  # how a person starts it
    scorer: ClassVar[str]  # what computes its scores

    def __post_init__(self) -> None:
        if self.gpu is not None and not re.fullmatch(r"all|\d+(,\d+)*", self.gpu):
            raise UserError(f"--gpu {self.gpu}: expected a GPU's number, several as 0,1, or all")

    @abstractmethod
    def program(self) -> list[str]:
        """The command that starts it, before Caffe's arguments `train -solver ...`.

        Raises:
            UserError: it is not installed, or cannot use that GPU.
        """

    @abstractmethod
    def version(self) -> str:
        """Its version, as recorded in results.

        Raises:
            UserError: it is not installed.
        """

    @abstractmethod
    def scores(
        self, deploy: Path, weights: Path, batches: Iterable[np.ndarray], blobs: Sequence[str]
    ) -> np.ndarray:
        """The values of some blobs of an inference net, such as those that a softmax reads.

        Args:
            batches: float32, n x C x H x W each, transformed for the net.

        Returns:
            float32, a row per image: the values of one blob after those of the other.

        Raises:
            UserError: the engine fails; its last line.
        """

    @property
    def first_gpu(self) -> str | None:
        """The GPU that tests a net, for which Caffe takes one; None is the CPU."""
        return "0" if self.gpu == "all" else self.gpu and self.gpu.split(",")[0]

    @property
    def one_gpu(self) -> list[str]:
        """Caffe's option for a command that takes one GPU; none on the CPU."""
        return ["-gpu", self.first_gpu] if self.first_gpu else []

    @property
    def training(self) -> list[str]:
        """Arguments of this engine alone, after `train -solver ...`."""
        return []

    def environment(self) -> dict[str, str]:
        """The environment variables of its process."""
        # glog's could silence the log that we read, or change its form; and by default it
        # leaves a copy of the log in /tmp, which nobody clears.
        kept = {k: v for k, v in os.environ.items() if not k.startswith("GLOG_")}
        names = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS") if self.threads else ()
        return {**kept, "GLOG_logtostderr": "1", **dict.fromkeys(names, str(self.threads))}


class RealCaffe(Engine):
    """BVLC Caffe: `caffe` and pycaffe."""

    name = "caffe"
    title = "real Caffe"
    typed = ("caffe",)
    scorer = "pycaffe"

    def program(self) -> list[str]:
        return [str(realcaffe.find("caffe").absolute())]

    def version(self) -> str:
        return realcaffe.version()

    def scores(
        self, deploy: Path, weights: Path, batches: Iterable[np.ndarray], blobs: Sequence[str]
    ) -> np.ndarray:
        # pycaffe lives in its own, older Python: a process fed through a pipe. Its scores come
        # back in a file without a name, so memory does not grow with the number of images, and
        # a kill leaves nothing behind.
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as said:
            device = self.first_gpu or "cpu"
            pycaffe = realcaffe.find("pycaffe")
            command = [pycaffe, "-c", _PYCAFFE, deploy, weights, out.fileno(), device]
            process = subprocess.Popen(
                [*map(str, command), *blobs],
                stdin=subprocess.PIPE,
                stdout=said,
                stderr=said,
                pass_fds=[out.fileno()],
                env={**self.environment(), "GLOG_minloglevel": "2"},
            )
            assert process.stdin is not None  # it is a pipe
            images = 0
            try:
                for batch in batches:
                    stop.check()
                    process.stdin.write(" ".join(map(str, batch.shape)).encode() + b"\n")
                    process.stdin.write(np.ascontiguousarray(batch, np.float32).data)
                    images += len(batch)
                process.stdin.close()
            except BrokenPipeError:
                pass  # it has failed: it will say why
            except BaseException:
                process.kill()
                raise
            finally:
                process.wait()
            if process.returncode:
                said.seek(0)
                words = said.read().decode(errors="replace").strip().splitlines() or ["no word"]
                why = next((line for line in words if _NO_GPU in line), words[-1])
                raise UserError(f"pycaffe failed on {deploy} with {weights}: {explained(why)}")
            out.seek(0)
            return np.fromfile(out, np.float32).reshape(images, -1)


# argv: deploy net, weights, descriptor for the scores, device or "cpu", the blobs' names.
# stdin: batches, each a line "N C H W" and N x C x H x W float32. A row of the
# output holds the blobs' values of one image, one blob after the other.
_PYCAFFE = """
import sys
import numpy as np
import caffe
deploy, weights, out, device, *blobs = sys.argv[1:]
if device == "cpu":
    caffe.set_mode_cpu()
else:
    caffe.set_device(int(device))
    caffe.set_mode_gpu()
net = caffe.Net(deploy, weights, caffe.TEST)
with open(int(out), "wb") as file:
    while True:
        head = sys.stdin.buffer.readline().split()
        if not head:
            break
        shape = tuple(map(int, head))
        batch = np.frombuffer(sys.stdin.buffer.read(4 * int(np.prod(shape))), np.float32)
        if net.blobs["data"].data.shape != shape:
            net.blobs["data"].reshape(*shape)
            net.reshape()
        net.blobs["data"].data[...] = batch.reshape(shape)
        net.forward()
        rows = [net.blobs[name].data.reshape(shape[0], -1) for name in blobs]
        np.concatenate(rows, axis=1).astype(np.float32).tofile(file)
"""


@dataclass(frozen=True)
class Torch(Engine):
    """torchcaffe: `python -m torchcaffe` and `torchcaffe.load`.

    With `bf16` it trains in bfloat16 (docs/ENGINE.md); tests stay in single precision.
    """

    bf16: bool = False

    name = "torch"
    title = "torchcaffe"
    typed = ("python", "-m", "torchcaffe")
    scorer = "torchcaffe.load"

    def program(self) -> list[str]:
        self.version()
        if self.gpu is not None and not self.gpu.isdigit():
            raise UserError(
                f"--engine torch takes one GPU, such as --gpu 0, not {self.gpu}; several: "
                "torchrun -m torchcaffe train on the run's solver.prototxt"
            )
        return [sys.executable, "-m", "torchcaffe"]

    def version(self) -> str:
        if importlib.util.find_spec("torch") is None:
            raise UserError("--engine torch: PyTorch is not installed here: pip install '.[torch]'")
        return f"PyTorch {metadata.version('torch')}" + (", trained in bf16" if self.bf16 else "")

    @property
    def training(self) -> list[str]:
        return ["--bf16"] if self.bf16 else []

    def scores(
        self, deploy: Path, weights: Path, batches: Iterable[np.ndarray], blobs: Sequence[str]
    ) -> np.ndarray:
        self.version()
        import torchcaffe  # isort: skip: it tells OpenMP how to wait before PyTorch starts it
        import torch

        from torchcaffe import blobs as blob_files

        if self.threads:
            torch.set_num_threads(self.threads)
        # In full single precision, as `torchcaffe test` is.
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
        device = "cpu" if self.gpu is None else f"cuda:{self.first_gpu}"
        net = text.load(deploy, NetParameter)
        kept = [layer for layer in net.layer if layer.type != "Softmax"]  # their bottoms come out
        del net.layer[:]
        net.layer.extend(kept)
        run = torchcaffe.Net(net, TEST)  # unfolded: exactly what `torchcaffe test` computes
        run.copy_from(blob_files.read_net(weights), str(weights))
        run.requires_grad_(False).to(device)
        rows = []
        with torch.inference_mode():
            for batch in batches:
                stop.check()
                tops = run(data=torch.from_numpy(batch).to(device))
                values = [tops[name].reshape(len(batch), -1).cpu().numpy() for name in blobs]
                rows.append(np.concatenate(values, axis=1))
        return np.concatenate(rows)


CAFFE = RealCaffe()  # the default: on the CPU
ENGINES = {engine.name: engine for engine in (RealCaffe, Torch)}
