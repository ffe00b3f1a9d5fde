"""Real BVLC Caffe 1.0 on a machine that has none: Debian bullseye's build, started in place.

    python -m xresnet.realcaffe install   caffe, convert_imageset, compute_image_mean, pycaffe here
    python -m xresnet.realcaffe path      say where they are
    python -m xresnet.realcaffe remove    take them away again

For other packages: `find(tool)`, `version()` and `kernels()`. What runs is always real
Caffe: a build the user already has on PATH, or Debian's.
"""

from xresnet.realcaffe.tools import TOOLS, find, kernels, version

__all__ = ["TOOLS", "find", "kernels", "version"]
