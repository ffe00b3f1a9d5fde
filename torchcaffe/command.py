"""`python -m torchcaffe train|test|time|export|check`: Caffe's commands and flags, and ours."""

from __future__ import annotations

import os
import signal
from typing import Any

import torch
from torch import Tensor

from torchcaffe import blobs, compatible, direct, export, order, parallel
from torchcaffe.glog import info, number
from torchcaffe.graph import Value
from torchcaffe.net import Net
from torchcaffe.solver import Choices, Runner, Solver, load_net, mean_outputs, runnable
from xresnet.basics import cores, files, memory
from xresnet.basics.cli import UserError, printable
from xresnet.caffeproto import TEST, TRAIN, upgrade


def run(args: Any) -> int:
    """The command that `arguments.parser` read; its exit status."""
    commands = {"train": train, "test": test, "time": time, "export": write, "check": check}
    try:
        return commands[args.command](args)
    finally:
        parallel.stop()


def train(args: Any) -> int:
    """`caffe train`."""
    _need(args, "solver")
    if args.snapshot and args.weights:
        raise UserError("give -snapshot or -weights, not both")
    param = upgrade.load_solver(args.solver)
    if args.level or args.stage:
        param.train_state.level = args.level
        param.train_state.stage.extend(_stages(args))
    if args.show_code:
        print(Net(_model_of(param), TRAIN, args.level, _stages(args)).source_code())
        return 0
    if args.gpu is None and param.solver_mode == param.GPU and torch.cuda.is_available():
        args.gpu = str(param.device_id)
    memory.keep_freed()
    solver = Solver(param, _choices(args))
    solver.request.on(signal.SIGINT, args.sigint_effect)
    solver.request.on(signal.SIGHUP, args.sighup_effect)
    if args.snapshot:
        _say(solver, f"Resuming from {args.snapshot}")
        solver.restore(args.snapshot)
    elif args.weights:
        _say(solver, f"Finetuning from {args.weights}")
        solver.copy_weights(args.weights)
    elif param.weights:
        solver.copy_weights(",".join(param.weights))
    _share_cores(solver.net, solver.choices)
    if solver.choices.channels_last is None and not direct.serves(solver.net, solver.choices):
        _measure_order(solver)
    _say(solver, "Starting Optimization")
    solver.solve()
    _say(solver, "Optimization Done.")
    solver.close()
    return 0


def test(args: Any) -> int:
    """`caffe test`: every batch's outputs, then their means."""
    _need(args, "model", "weights")
    phase = TRAIN if args.phase == "TRAIN" else TEST
    net = Net(load_net(args.model), phase, args.level, _stages(args))
    net.copy_from(blobs.read_net(args.weights), args.weights)
    info("caffe.cpp", f"Running for {args.iterations} iterations.")

    def each(i: int, pairs: list[tuple[str, float]]) -> None:
        for name, value in pairs:
            info("caffe.cpp", f"Batch {i}, {name} = {number(value)}")

    choices = _choices(args)
    # Algorithms picked by a stopwatch differ from run to run, and so would a near tie.
    torch.backends.cudnn.benchmark = False
    _share_cores(net, choices)
    runner = Runner(net, choices)
    runner.lay_out()
    loss, means = mean_outputs(runner, args.iterations, each=each)
    info("caffe.cpp", f"Loss: {number(loss)}")
    for name, value in means or []:
        weight = net.losses.get(name, 0.0)
        share = f" (* {number(weight)} = {number(weight * value)} loss)" if weight else ""
        info("caffe.cpp", f"{name} = {number(value)}{share}")
    return 0


def time(args: Any) -> int:
    """`caffe time`: forward and backward by layer, and of the whole, in milliseconds."""
    _need(args, "model")
    phase = TEST if args.phase == "TEST" else TRAIN
    net = Net(load_net(args.model), phase, args.level, _stages(args))
    if args.show_code:
        print(net.source_code())
        return 0
    choices = _choices(args)
    device = torch.device(choices.device)
    net.to(device)
    _share_cores(net, choices)
    fed = {name: _example(name, shape, device) for name, shape in net.inputs.items()}
    runner = _Bare(net, choices)
    learns = bool(net.losses)  # without a loss nothing runs backward
    if choices.channels_last is None and not direct.serves(net, choices):  # as train chooses
        gain = order.gain(net, device, runner.precision)
        choices.channels_last = gain > 1
        info("caffe.cpp", _told(gain))
    served = direct.serves(net, choices)
    order.arrange(net, served or bool(choices.channels_last))
    fed = runner.arranged(fed)
    if served:
        direct.Flat([one for one in net.learned if one.blob.requires_grad], [])
    runner.lay_out(learns)
    forward: dict[str, float] = {}
    backward: dict[str, float] = {}
    spent = [0.0, 0.0]
    n = args.iterations
    with torch.set_grad_enabled(learns):
        for i in range(n + 1):  # the first warms up
            start = order.now(device)
            tops = runner.forward(fed)
            middle = order.now(device)
            if runner.plan and learns:
                runner.plan.backward()
            elif (loss := net.loss(tops)) is not None:
                loss.backward()
            end = order.now(device)
            if i:
                spent[0] += middle - start
                spent[1] += end - middle
        for _ in range(n):
            _time_layers(net, fed, device, forward, backward)
    info("caffe.cpp", "Average time per layer: ")
    passes = (("forward", forward), ("backward", backward))[: 1 + learns]
    for step in net.steps:
        name = step.param.name
        for which, times in passes:
            told = number(1e3 * times.get(name, 0.0) / n)
            info("caffe.cpp", f"{name:>10}\t{which}: {told} ms.")
    info("caffe.cpp", f"Average Forward pass: {number(1e3 * spent[0] / n)} ms.")
    if learns:
        info("caffe.cpp", f"Average Backward pass: {number(1e3 * spent[1] / n)} ms.")
        info("caffe.cpp", f"Average Forward-Backward: {number(1e3 * sum(spent) / n)} ms.")
    else:
        info("caffe.cpp", "No backward pass: the net has no loss.")
    info("caffe.cpp", f"Total Time: {number(1e3 * sum(spent))} ms.")
    return 0


def check(args: Any) -> int:
    """Whether a prototxt runs here: a line for each layer that does not, and the sum."""
    _need(args, "model")
    phase = TRAIN if args.phase == "TRAIN" else TEST
    proto = load_net(args.model)
    layers, faults = compatible.check(proto, phase, args.level, _stages(args))
    for fault in faults:
        print(printable(fault))
    kinds = len({layer.type for layer in layers})
    told = f"{len(layers)} layers of {kinds} types"
    print(f"{args.model}: {len(faults)} of {told} do not run" if faults else
          f"{args.model}: {told}, all run")  # fmt: skip
    return 1 if faults else 0


def write(args: Any) -> int:
    """Out of Caffe: ONNX, or a state dict."""
    _need(args, "model", "weights")
    if not (args.onnx or args.state_dict):
        raise UserError("name what to export: --onnx FILE or --state-dict FILE")
    net = export.read(args.model, args.weights)
    if args.state_dict:
        with files.replacing(args.state_dict) as file:
            torch.save(net.state_dict(), file)
        print(f"{args.state_dict}: {len(net.state_dict())} arrays")
    if args.onnx:
        worst = export.onnx(net, args.onnx)
        print(f"{args.onnx}: onnxruntime agrees to {worst:.1e}")
    return 0


class _Bare(Runner):
    """A runner without feeds."""

    def __init__(self, net: Net, choices: Choices) -> None:
        self.net, self.choices, self.feeds, self.plan = net, choices, [], None
        self.run = runnable(net, choices)


def _time_layers(
    net: Net,
    fed: dict[str, Tensor],
    device: torch.device,
    forward: dict[str, float],
    backward: dict[str, float],
) -> None:
    """One pass layer by layer, each layer's own backward right after its forward."""
    values: dict[Value, Tensor] = {}
    learns = torch.is_grad_enabled()
    for step in net.steps:
        if step.param.name not in net._keys:
            values.update((v, fed[v.name]) for v in step.tops)
            continue
        made = net.layer_named(step.param.name)
        bottoms = [values[v].detach().requires_grad_(learns) for v in step.bottoms]
        start = order.now(device)
        tops = made(*bottoms)
        middle = order.now(device)
        tops = list(tops) if isinstance(tops, tuple) else [tops]
        reached = [top for top in tops if top.requires_grad]
        if reached:
            torch.autograd.backward(reached, [torch.ones_like(top) for top in reached])
        end = order.now(device)
        name = step.param.name
        forward[name] = forward.get(name, 0.0) + middle - start
        backward[name] = backward.get(name, 0.0) + end - middle
        values.update(zip(step.tops, (top.detach() for top in tops)))


def _share_cores(net: Net, choices: Choices) -> None:
    """One thread for a small net, unless the user or torchrun says how many."""
    if choices.device == "cpu" and not cores.threads_are_set():
        torch.set_num_threads(order.threads(net))


def _measure_order(solver: Solver) -> None:
    """Choose the memory order of images; all ranks take the first one's choice."""
    gain = order.gain(solver.net, torch.device(solver.choices.device), solver.runner.precision)
    told = torch.tensor([gain], device=solver.choices.device)
    parallel.copy_from_first([told])
    last = told.item() > 1
    solver.arrange(last)
    _say(solver, _told(gain))


def _told(gain: float) -> str:
    return f"channels-last: {'yes' if gain > 1 else 'no'} ({gain:.2f}x the speed)"


def _example(name: str, shape: tuple[int, ...], device: torch.device) -> torch.Tensor:
    """Numbers to time with: zeros are labels of every net, noise is an image."""
    image = len(shape) == 4 and shape[2] > 1
    return torch.randn(shape, device=device) if image else torch.zeros(shape, device=device)


def _choices(args: Any) -> Choices:
    device = "cpu"
    if args.tf32 and args.gpu is None:
        raise UserError("--tf32 is for GPUs: give -gpu")
    if args.cuda_graphs and args.gpu is None:
        raise UserError("--cuda-graphs is for GPUs: give -gpu; --compile works without")
    if args.gpu is not None:
        local = os.environ.get("LOCAL_RANK")
        device = f"cuda:{args.gpu if local is None else local}"
        if not torch.cuda.is_available():
            raise UserError("-gpu: PyTorch sees no GPU here; leave it out to use the CPU")
        if args.gpu == "all" and local is None:
            raise UserError("-gpu all needs torchrun: see --help")
        count = torch.cuda.device_count()
        if int(device[len("cuda:") :]) >= count:
            raise UserError(f"-gpu {args.gpu}: this machine has {count}, counted from 0")
        torch.cuda.set_device(device)
        torch.backends.cuda.matmul.allow_tf32 = args.tf32
        torch.backends.cudnn.allow_tf32 = args.tf32
        torch.backends.cudnn.benchmark = True
    return Choices(
        device=device,
        bf16=args.bf16,
        channels_last=None if args.channels_last == "measure" else args.channels_last == "yes",
        compile=args.compile,
        cuda_graphs=args.cuda_graphs,
        shuffle=getattr(args, "shuffle", False),  # of train alone
        sync_bn=getattr(args, "sync_bn", False),
    )


def _model_of(param: Any) -> Any:
    if param.HasField("net") or param.HasField("train_net"):
        return load_net(param.net or param.train_net)
    return param.net_param if param.HasField("net_param") else param.train_net_param


def _stages(args: Any) -> list[str]:
    return [stage for stage in args.stage.split(",") if stage]


def _need(args: Any, *names: str) -> None:
    for name in names:
        if not getattr(args, name):
            raise UserError(f"{args.command} needs -{name}")


def _say(solver: Solver, message: str) -> None:
    if not solver.rank:
        info("caffe.cpp", message)
