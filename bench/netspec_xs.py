"""XS-ResNet-50 written with pycaffe's NetSpec: the peer that bench.netgen_speed runs.

Run it in pycaffe's interpreter; it prints the same layers as `python -m netgen
xs_resnet50`, train and test phase, which bench.netgen_speed checks.
"""

from caffe import NetSpec
from caffe import layers as L
from caffe import params as P
from caffe.proto import caffe_pb2

TASKS = [("adj", 117), ("anp", 553), ("noun", 167)]
MSRA = {"type": "msra"}
FROZEN = [{"lr_mult": 0, "decay_mult": 0}] * 3


def main():
    n = NetSpec()
    data(n)
    labels = L.Slice(n.label, ntop=3, name="label_slice", slice_param={"slice_point": [1, 2]})
    for (task, _), top in zip(TASKS, labels):
        n[f"label_{task}"] = top
    conv1 = {"num_output": 64, "kernel_size": 7, "stride": 2, "pad": 3, "weight_filler": MSRA}
    n.conv1 = L.Convolution(n.data, convolution_param=conv1)
    x = relu(n, norm(n, n.conv1, "_conv1"), "conv1_relu")
    n.pool1 = L.Pooling(x, pooling_param={"pool": P.Pooling.MAX, "kernel_size": 3, "stride": 2})
    x = n.pool1
    for stage, count in ((2, 3), (3, 4), (4, 6)):
        for i in range(count):
            x = block(n, x, f"{stage}{'abcdef'[i]}", 64 << (stage - 2), i == 0, stage > 2)
    one, two = halves(n, x, "5a", 512, True, True, normed=False)
    n.res5a = L.Eltwise(one, two, operation=P.Eltwise.SUM)
    xs = {}
    for task, _ in TASKS:
        n[f"res5a_{task}"] = L.BatchNorm(n.res5a, name=f"bn5a_{task}", param=FROZEN)
        scaled = L.Scale(n[f"res5a_{task}"], in_place=True, name=f"scale5a_{task}", bias_term=True)
        n[f"scale5a_{task}"] = scaled
        xs[task] = relu(n, scaled, f"res5a_relu_{task}")
    for b in ("5b", "5c"):
        xs = cross_block(n, xs, b)
    for task, classes in TASKS:
        pool = {"pool": P.Pooling.AVE, "kernel_size": 7, "stride": 1}
        n[f"pool5_{task}"] = L.Pooling(xs[task], pooling_param=pool)
        head(n, n[f"pool5_{task}"], task, classes)
    print(n.to_proto())


def data(n):
    mean = [103.939, 116.779, 123.68]
    for phase, batch in (("TRAIN", 24), ("TEST", 23)):
        for top in ("data", "label"):
            kind = "image" if top == "data" else "label"
            source = f"data/vso/{phase.lower()}_{kind}_lmdb"
            more = {"transform_param": {"mean_value": mean}} if top == "data" else {}
            if top == "data" and phase == "TRAIN":
                more["transform_param"]["mirror"] = True
            name = top if phase == "TRAIN" else f"{top}_test"
            n[name] = L.Data(
                name=top,
                include={"phase": getattr(caffe_pb2, phase)},
                data_param={"source": source, "batch_size": batch, "backend": P.Data.LMDB},
                **more,
            )


def norm(n, x, name):
    n[f"bn{name}"] = L.BatchNorm(x, in_place=True, param=FROZEN)
    n[f"scale{name}"] = L.Scale(n[f"bn{name}"], in_place=True, bias_term=True)
    return n[f"scale{name}"]


def relu(n, x, name):
    n[name] = L.ReLU(x, in_place=True)
    return n[name]


def unit(n, x, name, width, kernel, stride=1, tail="", normed=True, active=False):
    param = {"num_output": width, "kernel_size": kernel, "bias_term": False, "weight_filler": MSRA}
    if kernel > 1:
        param["pad"] = kernel // 2
    if stride > 1:
        param["stride"] = stride
    n[f"res{name}{tail}"] = L.Convolution(x, convolution_param=param)
    y = n[f"res{name}{tail}"]
    if normed:
        y = norm(n, y, f"{name}{tail}")
    return relu(n, y, f"res{name}_relu{tail}") if active else y


def halves(n, x, b, width, projects, halved, tail="", normed=True):
    stride = 2 if projects and halved else 1
    short = unit(n, x, f"{b}_branch1", 4 * width, 1, stride, tail, normed) if projects else x
    y = unit(n, x, f"{b}_branch2a", width, 1, stride, tail, active=True)
    y = unit(n, y, f"{b}_branch2b", width, 3, 1, tail, active=True)
    return short, unit(n, y, f"{b}_branch2c", 4 * width, 1, 1, tail, normed)


def block(n, x, b, width, projects, halved):
    short, y = halves(n, x, b, width, projects, halved)
    n[f"res{b}"] = L.Eltwise(short, y, operation=P.Eltwise.SUM)
    return relu(n, n[f"res{b}"], f"res{b}_relu")


def cross_block(n, xs, b):
    ys = {}
    for t in xs:
        crosses = []
        for j in (j for j in xs if j != t):
            filler = {"type": "msra", "variance_norm": P.Filler.AVERAGE}
            name = f"res{b}_cross_{j}-{t}"
            n[name] = L.Scale(xs[j], filler=filler, bias_term=False)
            crosses.append(n[name])
        short, y = halves(n, xs[t], b, 512, False, False, f"_{t}")
        n[f"res{b}_{t}"] = L.Eltwise(short, y, *crosses, operation=P.Eltwise.SUM)
        ys[t] = relu(n, n[f"res{b}_{t}"], f"res{b}_relu_{t}")
    return ys


def head(n, x, task, classes):
    learn = [{"lr_mult": 10, "decay_mult": 1}, {"lr_mult": 20, "decay_mult": 0}]
    filler = {"type": "gaussian", "std": 0.01}
    bias = {"type": "constant", "value": 0}
    n[f"fc_{task}"] = L.InnerProduct(
        x, param=learn, num_output=classes, weight_filler=filler, bias_filler=bias
    )
    scores, label = n[f"fc_{task}"], n[f"label_{task}"]
    n[f"loss_{task}"] = L.SoftmaxWithLoss(scores, label, loss_weight=1)
    for k in (1, 5):
        test = {"phase": caffe_pb2.TEST}
        n[f"top{k}_{task}"] = L.Accuracy(scores, label, include=test, top_k=k)


main()
