"""Put a CPU build of PyTorch, and what the engine's tests need beside it, into this environment.

    .venv/bin/python tests/get_torch.py [--cuda]

pip takes it from where pip is told to look. PyPI has for Linux on x86-64 the CUDA build alone,
with some gigabytes of libraries; so pip is first asked what it would fetch, and where that is
CUDA's, nothing is fetched and one line says what to do.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys

NEEDED = ".[test-engine]"
PACKAGES = ("torch", "onnx", "onnxruntime", "onnxscript", "h5py")
CUDA = ("nvidia-", "cuda-", "triton")


def pip(*words: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "pip", "install", "--disable-pip-version-check", "--quiet"]
    return subprocess.run([*command, *words], stdout=subprocess.PIPE, text=True)


def main() -> int:
    if all(importlib.util.find_spec(name) for name in PACKAGES):
        return 0
    if "--cuda" not in sys.argv:
        planned = pip("--dry-run", "--report", "-", NEEDED)
        if planned.returncode:
            return planned.returncode
        names = [one["metadata"]["name"] for one in json.loads(planned.stdout)["install"]]
        if large := [name for name in names if name.lower().startswith(CUDA)]:
            print(
                f"get_torch: pip would fetch PyTorch for CUDA, {len(large)} packages of some "
                "gigabytes. Name an index of CPU builds (see PyTorch's own instructions) in "
                "PIP_EXTRA_INDEX_URL, or a folder with its wheel in PIP_FIND_LINKS; or take "
                "CUDA's: --cuda",
                file=sys.stderr,
            )
            return 1
    return pip("--editable", NEEDED).returncode


if __name__ == "__main__":
    sys.exit(main())
