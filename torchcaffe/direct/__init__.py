"""A small net on a CPU without autograd: forward and backward layer by layer, as Caffe has it.

PyTorch's autograd and its kernels for convolutions take 5 to 300 us a layer before they compute,
which is most of what a small net takes. Here the memory of blobs is laid out once, pointwise
convolutions are matrix products written where their results belong, gradients land in one flat
array for the solver, and so do the statistics of all BatchNorms. Layers that have no operation
of their own run through autograd one by one.

`plan` makes the operations of a net, `memory` holds what they read and write, and `products`,
`norms` and `operations` compute.
"""

from torchcaffe.direct.memory import Flat
from torchcaffe.direct.plan import Plan, serves

__all__ = ["Flat", "Plan", "serves"]
