"""Real BVLC Caffe 1.0 on a machine that has none: Debian bullseye's build, without a container.

    python -m xresnet.realcaffe install   caffe, convert_imageset, compute_image_mean, pycaffe
    python -m xresnet.realcaffe path      print where they are
    python -m xresnet.realcaffe remove    delete them

Other packages use `find(tool)`, `version()` and `kernels()`. A build that is already on PATH is
used instead of Debian's.
"""

from xresnet.realcaffe.tools import TOOLS, find, kernels, version

__all__ = ["TOOLS", "find", "kernels", "version"]
