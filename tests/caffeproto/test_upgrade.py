"""Nets in the formats before 1.0, held to real Caffe's own upgrade_net_proto_text."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from xresnet.basics.cli import UserError
from xresnet.caffeproto import NetParameter, text
from xresnet.caffeproto.upgrade import upgraded

V1 = """
name: "v1" input: "data" input: "more" input_dim: [2, 3, 20, 20, 2, 4, 1, 1]
layers { name: "conv" type: CONVOLUTION bottom: "data" top: "conv" blobs_lr: 1 blobs_lr: 2
  weight_decay: 1 weight_decay: 0 param: "w" param: "b" blob_share_mode: PERMISSIVE
  convolution_param { num_output: 4 kernel_size: 3 pad: 1 group: 1 stride: 2
    weight_filler { type: "xavier" } bias_filler { type: "constant" value: 0.1 } } }
layers { name: "relu" type: RELU bottom: "conv" top: "conv" relu_param { negative_slope: 0.1 } }
layers { name: "norm" type: LRN bottom: "conv" top: "norm" lrn_param { local_size: 3 alpha: 0.1 } }
layers { name: "pool" type: POOLING bottom: "norm" top: "pool"
  pooling_param { pool: AVE kernel_size: 2 stride: 2 } include { phase: TEST min_level: 1 } }
layers { name: "sum" type: ELTWISE bottom: "norm" bottom: "conv" top: "sum"
  eltwise_param { operation: SUM coeff: [1, -1] } exclude { stage: "deploy" } }
layers { name: "drop" type: DROPOUT bottom: "sum" top: "sum" dropout_param { dropout_ratio: 0.3 } }
layers { name: "mvn" type: MVN bottom: "sum" top: "mvn" mvn_param { across_channels: true } }
layers { name: "tanh" type: TANH bottom: "mvn" top: "tanh" }
layers { name: "bnll" type: BNLL bottom: "tanh" top: "bnll" }
layers { name: "abs" type: ABSVAL bottom: "bnll" top: "abs" }
layers { name: "power" type: POWER bottom: "abs" top: "power" power_param { scale: 2 } }
layers { name: "up" type: DECONVOLUTION bottom: "power" top: "up"
  convolution_param { num_output: 2 kernel_size: 2 stride: 2 } }
layers { name: "cut" type: SLICE bottom: "up" top: "a" top: "b" slice_param { slice_dim: 1 } }
layers { name: "join" type: CONCAT bottom: "a" bottom: "b" top: "join"
  concat_param { concat_dim: 1 } }
layers { name: "fc" type: INNER_PRODUCT bottom: "join" top: "fc"
  inner_product_param { num_output: 4 weight_filler { type: "gaussian" std: 0.01 } } }
layers { name: "loss" type: EUCLIDEAN_LOSS bottom: "fc" bottom: "more" loss_weight: 0.5 }
layers { name: "quiet" type: SILENCE bottom: "abs" }
layers { name: "max" type: ARGMAX bottom: "fc" top: "max" argmax_param { top_k: 2 } }
layers { name: "win" type: WINDOW_DATA top: "win"
  window_data_param { source: "w" scale: 2 crop_size: 5 mirror: true batch_size: 1 } }
layers { name: "base" type: DATA top: "base" top: "y" data_param { source: "d" batch_size: 3
  backend: LMDB scale: 0.5 mean_file: "m" crop_size: 9 mirror: true rand_skip: 4 } }
layers { name: "img" type: IMAGE_DATA top: "img" top: "z" transform_param { mirror: true }
  image_data_param { source: "i" scale: 3 shuffle: true new_height: 8 new_width: 9 } }
"""

V0 = """
name: "v0" input: "data" input_dim: [1, 3, 20, 20]
layers { layer { name: "pad1" type: "padding" pad: 2 } bottom: "data" top: "pad1" }
layers { layer { name: "conv1" type: "conv" num_output: 8 kernelsize: 5 stride: 2 group: 1
  biasterm: true weight_filler { type: "gaussian" std: 0.01 } bias_filler { type: "constant" }
  blobs_lr: 1 blobs_lr: 2 weight_decay: 1 weight_decay: 0 } bottom: "pad1" top: "conv1" }
layers { layer { name: "relu1" type: "relu" } bottom: "conv1" top: "conv1" }
layers { layer { name: "pool1" type: "pool" pool: MAX kernelsize: 3 stride: 2 }
  bottom: "conv1" top: "pool1" }
layers { layer { name: "norm1" type: "lrn" local_size: 5 alpha: 0.0001 beta: 0.75 k: 2 }
  bottom: "pool1" top: "norm1" }
layers { layer { name: "pool2" type: "pool" pool: AVE kernelsize: 3 pad: 1 }
  bottom: "norm1" top: "pool2" }
layers { layer { name: "join" type: "concat" concat_dim: 1 } bottom: "pool2" bottom: "pool2"
  top: "join" }
layers { layer { name: "fc" type: "innerproduct" num_output: 5 biasterm: false
  weight_filler { type: "xavier" } } bottom: "join" top: "fc" }
layers { layer { name: "drop" type: "dropout" dropout_ratio: 0.4 } bottom: "fc" top: "fc" }
layers { layer { name: "prob" type: "softmax" } bottom: "fc" top: "prob" }
layers { layer { name: "base" type: "data" source: "d" meanfile: "m" batchsize: 2 cropsize: 7
  mirror: true scale: 0.1 rand_skip: 3 } top: "base" top: "label" }
layers { layer { name: "img" type: "images" source: "i" batchsize: 2 shuffle_images: true
  new_height: 6 new_width: 7 } top: "img" top: "truth" }
layers { layer { name: "win" type: "window_data" source: "w" batchsize: 2 det_fg_threshold: 0.6
  det_bg_threshold: 0.4 det_fg_fraction: 0.3 det_context_pad: 2 det_crop_mode: "square" }
  top: "win" top: "fg" }
layers { layer { name: "h5" type: "hdf5_data" source: "h" batchsize: 2 } top: "h5" }
layers { layer { name: "loss" type: "softmax_loss" } bottom: "fc" bottom: "label" }
"""

LATE = """
name: "late" input: "data" input_shape { dim: [1, 3, 5, 5] }
layer { name: "bn" type: "BatchNorm" bottom: "data" top: "bn"
  param { lr_mult: 1 name: "a" } param { lr_mult: 2 } param { decay_mult: 3 } }
layer { name: "conv" type: "Convolution" bottom: "bn" top: "conv"
  convolution_param { num_output: 1 kernel_size: 1 } }
"""


def by_caffe(net: str, folder: Path, tools: dict[str, Path]) -> object:
    """What Caffe's own program makes of it."""
    program = re.search(r"exec .*", Path(tools["caffe"]).read_text())[0]
    assert "usr/bin/caffe" in program or "caffe" in program
    prefix = Path(re.search(r"^prefix=(.*)$", Path(tools["caffe"]).read_text(), re.M)[1])
    wrapper = folder / "upgrade"
    wrapper.write_text(
        Path(tools["caffe"])
        .read_text()
        .replace("/usr/bin/caffe", "/usr/bin/upgrade_net_proto_text")
    )
    wrapper.chmod(0o755)
    if not (prefix / "usr/bin/upgrade_net_proto_text").exists():
        pytest.skip("SKIPPED FOR ANOTHER CAFFE: it has no upgrade_net_proto_text")
    (folder / "old.prototxt").write_text(net)
    ran = subprocess.run(
        [wrapper, folder / "old.prototxt", folder / "new.prototxt"],
        capture_output=True,
        text=True,
        env={**os.environ, "GLOG_minloglevel": "2"},
    )
    assert ran.returncode == 0, ran.stderr
    return text.load(folder / "new.prototxt", NetParameter)


@pytest.mark.caffe
@pytest.mark.parametrize("net", [V1, V0, LATE], ids=["V1", "V0", "late"])
def test_old_nets_are_upgraded_as_caffe_upgrades_them(net, caffe_tools, tmp_path):
    found = upgraded(text.loads(net, NetParameter))
    assert text.dump(found) == text.dump(by_caffe(net, tmp_path, caffe_tools))


def test_a_net_of_today_is_left_alone():
    net = text.loads('layer { name: "r" type: "ReLU" bottom: "x" top: "x" }', NetParameter)
    assert upgraded(net) is net


@pytest.mark.parametrize(
    ("net", "told"),
    [
        ('layers { name: "a" type: RELU } layer { name: "b" }', "both `layers` and `layer`"),
        ('layers { layer { name: "a" type: "convv" } }', "unknown layer type 'convv' .*'conv'"),
        (
            'layers { layer { name: "a" type: "relu" num_output: 3 } }',
            "this type has no field num_output",
        ),
        (
            'layers { layer { name: "p" type: "padding" pad: 1 } bottom: "d" top: "p" } '
            'layers { layer { name: "r" type: "relu" } bottom: "p" top: "p" }',
            "padding goes before conv and pool only",
        ),
        ('input: "x" input: "y" input_dim: [1, 2, 3, 4]', "2 inputs with 1 shapes"),
    ],
)
def test_what_cannot_be_upgraded_is_told(net, told):
    with pytest.raises(UserError, match=told):
        upgraded(text.loads(net, NetParameter))
