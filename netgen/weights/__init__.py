"""Initial weights of netgen's nets, made from published weights without Caffe.

    python -m netgen.weights fetch resnet50
    python -m netgen.weights init xs_resnet50 --from ResNet-50-model.caffemodel --out xs.caffemodel
    python -m netgen.weights show xs.caffemodel

    pth         reads PyTorch's .pth, without PyTorch and without running code
    keras       reads Keras's .h5, of all its versions
    tfjs        reads TensorFlow.js's models in npm's packages
    fetch       downloads packages from their registries, and checks them
    published   converts ResNets of torchvision, Keras and pynetbuilder to the published Caffe net
    source      reads a file of any of these kinds
    plan        decides which layer of a net is initialised from which layer of a file
    branch      keeps the pretrained function across the branching point

The rest of netgen does not import this package, so that `python -m netgen` starts without NumPy.
`caffeproto.caffemodel` reads and writes `.caffemodel` files.
"""
