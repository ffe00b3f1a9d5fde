"""Caffe's solver: its loop, its update rules, its snapshots, its log."""

from __future__ import annotations

import io
import signal
from collections import deque
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any, Callable

import torch
from torch import Tensor

from torchcaffe import blobs, direct, order, parallel, updates
from torchcaffe.compiled import compiled
from torchcaffe.data import Feed
from torchcaffe.glog import info, number, output
from torchcaffe.layers.base import UNFIT
from torchcaffe.net import Net
from torchcaffe.rates import Schedule
from xresnet.basics import files, memory
from xresnet.basics.cli import UserError
from xresnet.basics.numbers import COUNT, FINITE, NATURAL
from xresnet.caffeproto import TEST, TRAIN, NetParameter, SolverState, text

SEED = 1  # of flips and fillers where the solver file names none: runs repeat


@dataclass
class Choices:
    """How to run; what Caffe's files have no word for."""

    device: str = "cpu"
    bf16: bool = False
    channels_last: bool | None = None  # None: where convolutions run in it by default
    compile: bool = False
    cuda_graphs: bool = False  # of the compiled net
    shuffle: bool = False
    sync_bn: bool = False


@dataclass
class Request:
    """What a signal asks for, until the loop takes notice."""

    stop: bool = False
    snapshot: bool = False

    def on(self, number: int, effect: str) -> None:
        """Let the signal `number` ask for `effect`: stop, snapshot or none."""
        if effect != "none":
            signal.signal(number, lambda *_: setattr(self, effect, True))


def runnable(net: Net, choices: Choices) -> Callable[..., dict[str, Tensor]]:
    """The net to call, compiled where chosen."""
    if not (choices.compile or choices.cuda_graphs):
        return net
    return compiled(net, torch.device(choices.device), choices.cuda_graphs)


class Runner:
    """A net with its feeds on a device: `next()` runs a batch."""

    def __init__(self, net: Net, choices: Choices, rank: int = 0, world: int = 1) -> None:
        self.net, self.choices = net, choices
        net.to(choices.device)
        order.arrange(net, bool(choices.channels_last))
        unfed = [p.name for p in net.feeds if p.type in ("Input", "MemoryData")]
        if unfed:
            raise UserError(f"layer {unfed[0]!r}: it has no source of data; use a Data layer")
        # Every rank tests the whole test set; only training shares the records out.
        share = (rank, world) if net.phase == TRAIN else (0, 1)
        self.feeds = [
            Feed(p, choices.device, *share, shuffle=choices.shuffle and net.phase == TRAIN)
            for p in net.feeds
        ]
        self.plan: direct.Plan | None = None
        self.run = runnable(net, choices)

    def lay_out(self, learn: bool = False) -> None:
        """Run without autograd from now on, where that serves (see `direct`)."""
        if not direct.serves(self.net, self.choices):
            self.plan, self.run = None, runnable(self.net, self.choices)
            return
        order.arrange(self.net, True)
        self.plan = direct.Plan(self.net, learn)
        self.run = self.plan.forward

    def next(self) -> dict[str, Tensor]:
        """The net's tops for the next batch of each feed."""
        fed: dict[str, Tensor] = {}
        for feed in self.feeds:
            fed.update(feed.next())
        return self.forward(fed)

    def forward(self, fed: dict[str, Tensor]) -> dict[str, Tensor]:
        """The net's tops, in the precision chosen."""
        try:
            with self.precision():
                return self.run(**self.arranged(fed))
        except IndexError as error:
            raise UserError(
                f"net {self.net.name!r}: {error}: is a label outside its layer's range of classes?"
            ) from error

    def arranged(self, fed: dict[str, Tensor]) -> dict[str, Tensor]:
        """What is fed, images in the memory order chosen."""
        if not self.choices.channels_last:
            return fed
        last = torch.channels_last
        return {k: x.contiguous(memory_format=last) if x.dim() == 4 else x for k, x in fed.items()}

    def precision(self) -> AbstractContextManager[object]:
        """The precision chosen, to compute in."""
        kind = torch.device(self.choices.device).type
        return torch.autocast(kind, torch.bfloat16) if self.choices.bf16 else nullcontext()


class Solver:
    """A SolverParameter at work.

    Raises (on construction):
        UserError: a net, policy or rule that cannot be.
    """

    def __init__(self, param: Any, choices: Choices | None = None) -> None:
        self.param = param
        self.choices = choices or Choices()
        self.rank, self.world = parallel.start(
            self.choices.device.startswith("cuda"), self.choices.sync_bn
        )
        seed = param.random_seed if param.random_seed >= 0 else SEED
        torch.manual_seed(seed)
        _check(param)
        if self.choices.cuda_graphs and param.iter_size > 1:
            raise UserError(
                "--cuda-graphs needs iter_size 1: a replay overwrites the gradients before it"
            )
        self.schedule = Schedule(param)
        self.update, self.histories = updates.rule(param)
        self.iteration = 0
        self.losses: deque[float] = deque(maxlen=max(1, param.average_loss))
        self.request = Request()
        self._fresh = True  # no iteration yet
        self.flat: direct.Flat | None = None  # of a net that runs by a plan
        self._laid_out = False
        self.net = _train_net(param)
        self.runner = Runner(self.net, self.choices, self.rank, self.world)
        for feed in self.runner.feeds:
            feed.random.manual_seed(seed * 1009 + self.rank)
            feed.seed = seed
        parallel.copy_from_first(learned.blob.data for learned in self.net.learned)
        self.tests = [Runner(net, self.choices) for net in _test_nets(param)]
        for test in self.tests:
            test.net.share(self.net)
        if len(param.test_iter) != len(self.tests):
            raise UserError(f"{len(param.test_iter)} test_iter for {len(self.tests)} test nets")
        # Statistics and frozen arrays have a history in the file, and no step to take.
        self.history = [
            torch.zeros_like(learned.blob)
            for _ in range(self.histories)
            for learned in self.net.learned
        ]
        self.moving = [
            i
            for i, learned in enumerate(self.net.learned)
            if learned.blob.requires_grad and learned.lr_mult
        ]

    def arrange(self, channels_last: bool) -> None:
        """Take this memory order of images from now on."""
        self.choices.channels_last = channels_last
        self.flat, self._laid_out = None, False
        for runner in (self.runner, *self.tests):
            order.arrange(runner.net, channels_last)
        self.history = [
            torch.zeros_like(learned.blob).copy_(old)
            for learned, old in zip(self.net.learned * self.histories, self.history)
        ]

    def _lay_out(self) -> None:
        """Make ready to run, arrays in one where training goes without autograd."""
        if self._laid_out:
            return
        if direct.serves(self.net, self.choices):
            if self.choices.channels_last is None:
                self.arrange(True)
            self._flatten()
        if self.choices.channels_last:
            for runner in (self.runner, *self.tests):
                runner.lay_out(learn=runner is self.runner)
        self._laid_out = True

    def _flatten(self) -> None:
        """Make the learned arrays and their histories views of few."""
        count = len(self.net.learned)
        histories = [
            [self.history[i + n * count] for i in self.moving] for n in range(self.histories)
        ]
        self.flat = direct.Flat([self.net.learned[i] for i in self.moving], histories)

    # ---- the loop -----------------------------------------------------------

    def solve(self) -> None:
        """Train to max_iter or until asked to stop; snapshot at the end, as Caffe does."""
        p = self.param
        self.log(f"Solving {self.net.name}")
        self.log(f"Learning Rate Policy: {p.lr_policy}")
        stopped = self.step(p.max_iter - self.iteration)
        if p.snapshot_after_train and (not p.snapshot or self.iteration % p.snapshot):
            self.snapshot()
        if stopped:
            self.log("Optimization stopped early.")
            return
        if p.display and self.iteration % p.display == 0:
            with torch.no_grad():
                tops = self.runner.next()
            self.smooth(self._loss(tops))
            self.log(f"Iteration {self.iteration}, loss = {number(self.smoothed)}")
        if p.test_interval and self.iteration % p.test_interval == 0:
            self.test_all()
        self.log("Optimization Done.")

    def step(self, iterations: int) -> bool:
        """Train so many iterations; True if a signal stopped it."""
        p = self.param
        stop_at = self.iteration + iterations
        timer, last = perf_counter(), self.iteration
        self._lay_out()
        while self.iteration < stop_at:
            due = p.test_interval and self.iteration % p.test_interval == 0
            if due and (self.iteration or p.test_initialization):
                self.test_all()
                if self._asked_to_stop():
                    return True
            display = p.display and self.iteration % p.display == 0
            loss, tops = self._gradients()
            if self._fresh:  # compiling, and laying kernels out, leaves much behind
                self._fresh = False
                memory.give_back()
            self.smooth(loss)
            if display:
                now = perf_counter()
                lapse, done = now - timer, self.iteration - last
                self.log(
                    f"Iteration {self.iteration} ({number(done / (lapse or 1))} iter/s, "
                    f"{number(lapse)}s/{p.display} iters), loss = {number(self.smoothed)}"
                )
                self._log_outputs("Train", tops)
                timer, last = now, self.iteration
            self._apply(display)
            self.iteration += 1
            wanted, self.request.snapshot = self.request.snapshot, False
            if (p.snapshot and self.iteration % p.snapshot == 0) or wanted:
                self.snapshot()
            if self._asked_to_stop():
                return True
        return False

    def smooth(self, loss: float) -> None:
        """Take a loss into the mean over average_loss iterations."""
        self.losses.append(loss)

    @property
    def smoothed(self) -> float:
        return sum(self.losses) / len(self.losses)

    def _asked_to_stop(self) -> bool:
        if self.world == 1:
            return self.request.stop
        asked = torch.tensor([float(self.request.stop)], device=self.choices.device)
        parallel.average([asked])  # all ranks stop at the same iteration
        return bool(asked.item())

    def _gradients(self) -> tuple[float, dict[str, Tensor]]:
        """Gradients summed over iter_size batches, in each blob's `grad`; the mean loss."""
        total = 0.0
        sums: list[Tensor] = []
        if self.runner.plan is None:
            for learned in self.net.learned:
                learned.blob.grad = None
        for i in range(self.param.iter_size):
            tops = self.runner.next()
            loss = self.net.loss(tops)
            if loss is None:
                raise UserError(f"net {self.net.name!r} has no loss to minimise")
            if self.runner.plan is None:
                loss.backward()
            else:
                self.runner.plan.backward()
                if i:
                    torch._foreach_add_(sums, self._arrays().gradients)
                elif self.param.iter_size > 1:
                    sums = [gradient.clone() for gradient in self._arrays().gradients]
            total += loss.item()
        if sums:
            torch._foreach_copy_(self._arrays().gradients, sums)
        parallel.average(self._arrays().gradients)
        return total / self.param.iter_size, tops

    def _arrays(self) -> direct.Flat | _Each:
        """What the update works on: groups in one array each, or every array by itself."""
        return self.flat or _Each(self)

    @torch.no_grad()
    def _apply(self, display: bool) -> None:
        """One step: clip, divide by iter_size, decay, update rule."""
        p = self.param
        rate = self.schedule.rate(self.iteration, self.smoothed)
        if display:
            self.log(f"Iteration {self.iteration}, lr = {number(rate)}")
        arrays = self._arrays()
        weights, gradients = arrays.weights, arrays.gradients
        if not gradients:
            return
        if p.clip_gradients >= 0:
            norm = torch.stack(torch._foreach_norm(gradients)).norm().item()
            if norm > p.clip_gradients:
                torch._foreach_mul_(gradients, p.clip_gradients / norm)
        if p.iter_size > 1:
            torch._foreach_mul_(gradients, 1 / p.iter_size)
        decays = [p.weight_decay * decay for _, decay in arrays.mults]
        rates = [rate * lr for lr, _ in arrays.mults]
        history = [array for several in arrays.histories for array in several]
        if any(decays) and p.regularization_type not in ("L1", "L2"):
            raise UserError(f"regularization_type {p.regularization_type!r}: L1 or L2")
        l2 = p.regularization_type == "L2" or not any(decays)
        if (
            self.update is updates.sgd
            and l2
            and updates.fused_sgd(p, weights, gradients, history, rates, decays)
        ):
            return
        if any(decays):
            pull = weights if l2 else torch._foreach_sign(weights)
            torch._foreach_add_(gradients, torch._foreach_mul(pull, decays))
        steps = self.update(p, gradients, history, rates, self.iteration)
        torch._foreach_sub_(weights, steps)
        if self.flat is not None:  # what no layer writes shall be 0 in the next step too
            torch._foreach_zero_(gradients)

    # ---- testing ------------------------------------------------------------

    def test_all(self) -> None:
        """A pass over each test net."""
        for i, test in enumerate(self.tests):
            self.log(f"Iteration {self.iteration}, Testing net (#{i})")
            loss, means = mean_outputs(test, self.param.test_iter[i], self._stop_within_test)
            if means is None:
                self.log("Test interrupted.")
                return
            if self.param.test_compute_loss:
                self.log(f"Test loss: {number(loss)}")
            for n, (name, value) in enumerate(means):
                weight = test.net.losses.get(name, 0.0)
                self.log(output("Test", n, name, value, weight))

    def _stop_within_test(self) -> bool:
        if self.request.snapshot:
            self.request.snapshot = False
            self.snapshot()
        return self.request.stop and self.world == 1

    # ---- files --------------------------------------------------------------

    def snapshot(self) -> None:
        """Write PREFIX_iter_N.caffemodel, .solverstate and what only this engine needs."""
        if self.rank:
            return
        stem = f"{self.param.snapshot_prefix}_iter_{self.iteration}"
        model, state = f"{stem}.caffemodel", f"{stem}.solverstate"
        self.log(f"Snapshotting to binary proto file {model}")
        files.write(model, self.net.to_proto().SerializeToString())
        extra = {
            "feeds": [feed.state() for feed in self.runner.feeds],
            "tests": [[feed.state() for feed in test.feeds] for test in self.tests],
            "losses": list(self.losses),
            "random": torch.get_rng_state(),
            "channels_last": self.choices.channels_last,  # it rounds otherwise
        }
        held = io.BytesIO()
        torch.save(extra, held)
        files.write(f"{stem}.torchcaffe", held.getvalue())
        self.log(f"Snapshotting solver state to binary proto file {state}")
        saved = SolverState(iter=self.iteration, learned_net=model, current_step=self.schedule.step)
        saved.history.extend(map(blobs.to_proto, self.history))
        if self.param.lr_policy == "plateau":
            saved.minimum_loss = min(self.schedule.minimum_loss, 1e38)
            saved.iter_last_event = self.schedule.last_event
        files.write(state, saved.SerializeToString())  # last: with it all three are whole

    def restore(self, path: str) -> None:
        """Go on from a .solverstate, Caffe's or ours; the data too where ours lies beside it.

        Raises:
            UserError: not a state of such a solver.
        """
        saved = blobs.read(path, SolverState)
        # The two files lie together, wherever they were copied or moved to.
        model = Path(path).with_suffix(".caffemodel")
        if not model.exists():
            model = Path(saved.learned_net)
        self.net.copy_from(blobs.read_net(model), str(model))
        if len(saved.history) != len(self.history):
            raise UserError(
                f"{path} has {len(saved.history)} histories, this solver {len(self.history)}"
            )
        for mine, proto in zip(self.history, saved.history):
            if not blobs.fits(proto, tuple(mine.shape)):
                raise UserError(f"{path}: a history of another shape than {tuple(mine.shape)}")
            mine.copy_(torch.from_numpy(blobs.from_proto(proto).reshape(mine.shape)))
        self.iteration = saved.iter
        self.schedule.step = saved.current_step
        if saved.HasField("minimum_loss"):
            self.schedule.minimum_loss = saved.minimum_loss
            self.schedule.last_event = saved.iter_last_event
        beside = Path(path).with_suffix(".torchcaffe")
        if not beside.exists():  # real Caffe's: its data start over
            return
        try:
            extra = torch.load(beside, weights_only=True)
        except Exception as error:  # of many kinds, by where it was cut
            raise UserError(
                f"{beside}: damaged or not ours; remove it, and the data start at the first record"
            ) from error
        try:
            self._go_on_from(extra)
        except (UserError, *UNFIT, AttributeError) as error:
            raise UserError(
                f"{beside}: not ours; remove it, and the data start at the first record"
            ) from error

    def _go_on_from(self, extra: dict[str, Any]) -> None:
        """Take up what only this engine writes; what is something else raises all sorts."""
        if self.choices.channels_last is None and extra["channels_last"] is not None:
            self.arrange(bool(extra["channels_last"]))
        for feed, state in zip(self.runner.feeds, extra["feeds"]):
            if self.world == 1:
                feed.restore(state)
            else:  # rank 0 wrote it: each rank goes on from there with chances of its own
                feed.cursor = NATURAL.check(state["cursor"], "cursor")
        for test, states in zip(self.tests, extra["tests"]):
            for feed, state in zip(test.feeds, states):
                feed.restore(state)
        self.losses.extend(map(float, extra["losses"]))
        torch.set_rng_state(extra["random"])

    def copy_weights(self, paths: str) -> None:
        """`-weights a,b`: copy by layer name, later files win."""
        for path in paths.split(","):
            self.net.copy_from(blobs.read_net(path), path)

    def close(self) -> None:
        """Stop reading ahead."""
        for runner in (self.runner, *self.tests):
            for feed in runner.feeds:
                feed.close()

    # ---- words --------------------------------------------------------------

    def log(self, message: str) -> None:
        if not self.rank:
            info("solver.cpp" if ", lr = " not in message else "sgd_solver.cpp", message)

    def _loss(self, tops: dict[str, Tensor]) -> float:
        loss = self.net.loss(tops)
        return 0.0 if loss is None else loss.item()

    def _log_outputs(self, which: str, tops: dict[str, Tensor]) -> None:
        count = 0
        for name in self.net.outputs:
            for value in tops[name].detach().flatten().tolist():
                self.log(output(which, count, name, value, self.net.losses.get(name, 0.0)))
                count += 1


class _Each:
    """As `direct.Flat`, with every learned array that moves a group of its own."""

    def __init__(self, solver: Solver) -> None:
        learned = [solver.net.learned[i] for i in solver.moving]
        self.mults = [(one.lr_mult, one.decay_mult) for one in learned]
        self.weights = [one.blob.data for one in learned]
        self.gradients = [
            torch.zeros_like(one.blob) if one.blob.grad is None else one.blob.grad
            for one in learned
        ]
        count = len(solver.net.learned)
        self.histories = [
            [solver.history[i + n * count] for i in solver.moving] for n in range(solver.histories)
        ]


@torch.no_grad()
def mean_outputs(
    test: Runner, iterations: int, interrupted: Any = None, each: Any = None
) -> tuple[float, list[tuple[str, float]] | None]:
    """The mean loss and outputs over so many batches; None where it was interrupted.

    `each(i, pairs)` sees the outputs of every batch.
    """
    total: list[float] = []
    names: list[str] = []
    loss = 0.0
    for i in range(iterations):
        if interrupted is not None and interrupted():
            return 0.0, None
        tops = test.next()
        batch_loss = test.net.loss(tops)
        loss += 0.0 if batch_loss is None else batch_loss.item()
        pairs = [(n, v) for n in test.net.outputs for v in tops[n].float().flatten().tolist()]
        if each is not None:
            each(i, pairs)
        total = [a + v for a, (_, v) in zip(total, pairs)] if total else [v for _, v in pairs]
        names = [n for n, _ in pairs]
    return loss / iterations, [(n, v / iterations) for n, v in zip(names, total)]


def load_net(path: str) -> Any:
    """A NetParameter from a prototxt."""
    return text.load(path, NetParameter)


def _train_net(param: Any) -> Net:
    given: list[tuple[str, Callable[[], Any]]] = [
        ("net", lambda: load_net(param.net)),
        ("net_param", lambda: param.net_param),
        ("train_net", lambda: load_net(param.train_net)),
        ("train_net_param", lambda: param.train_net_param),
    ]
    there = [read for name, read in given if param.HasField(name)]
    if len(there) != 1:
        raise UserError("the solver needs exactly one of net, net_param, train_net")
    return _net(there[0](), TRAIN, param.train_state)


def _test_nets(param: Any) -> list[Net]:
    protos = [*param.test_net_param, *map(load_net, param.test_net)]
    common = len(param.test_iter) - len(protos)
    if param.HasField("net"):
        protos += [load_net(param.net)] * common
    elif param.HasField("net_param"):
        protos += [param.net_param] * common
    states = list(param.test_state) or [NetParameter().state] * len(protos)
    if len(states) != len(protos):
        raise UserError(f"{len(states)} test_state for {len(protos)} test nets")
    return [_net(proto, TEST, state) for proto, state in zip(protos, states)]


def _net(proto: Any, phase: int, state: Any) -> Net:
    stages = [*proto.state.stage, *state.stage]
    level = state.level if state.HasField("level") else proto.state.level
    return Net(proto, phase, level, stages)


def _check(param: Any) -> None:
    """Hold a SolverParameter to what can be run.

    Raises:
        UserError: names the field.
    """
    for name in ("iter_size", "average_loss"):
        COUNT.check(getattr(param, name), name)
    for name in ("max_iter", "display", "snapshot", "test_interval"):
        NATURAL.check(getattr(param, name), name)
    for name in ("base_lr", "momentum", "weight_decay", "gamma", "power", "delta"):
        FINITE.check(getattr(param, name), name)
    for iterations in param.test_iter:
        COUNT.check(iterations, "test_iter")
    if param.snapshot_format == param.HDF5:
        raise UserError("snapshot_format HDF5 is not supported; leave it out for BINARYPROTO")
