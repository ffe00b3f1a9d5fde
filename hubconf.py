"""The nets for torch.hub: `torch.hub.load(PATH, "xs_resnet50", source="local", ...)`.

    model = torch.hub.load(PATH, "xs_resnet50", source="local",
                           tasks={"kind": 2, "class": 10}, weights="imagenet")

It offers every net of `python -m netgen --list`. `torchcaffe.create_model` documents the arguments,
docs/ENGINE.md the model.
"""

from functools import partial as _partial
from functools import update_wrapper as _update_wrapper

from netgen.catalog import CATALOG as _CATALOG
from torchcaffe.models import create_model as _create_model

dependencies = ["torch", "numpy", "google.protobuf", "lmdb", "cv2", "tqdm"]

for _name, _entry in _CATALOG.items():
    globals()[_name] = _update_wrapper(_partial(_create_model, _name), _create_model)
    globals()[_name].__doc__ = f"{_entry.what}\n\n{_create_model.__doc__}"
