"""img2dataset in a process of its own (download.py starts it): one JSON argument, no output."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any


def main(job: dict[str, Any]) -> None:
    """Download `<folder>/urls.csv` into `<folder>/shards`, skipping finished shards.

    On a cluster, all machines must have the folder under the same path.
    """
    import img2dataset

    if job["distributor"] == "pyspark":
        from pyspark.sql import SparkSession

        # Otherwise Spark starts the first `python3` on PATH.
        os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
        # img2dataset uses an existing session; its own asks for 16 GB.
        master = job["cluster"] or f"local[{job['processes']}]"
        SparkSession.builder.master(master).appName("xresnet-download").getOrCreate()
    elif job["distributor"] == "ray":
        import ray

        ray.init(
            address=job["cluster"] or None,
            num_cpus=None if job["cluster"] else job["processes"],
            include_dashboard=False,
        )
    folder = Path(job["folder"])
    img2dataset.download(
        url_list=str(folder / "urls.csv"),
        input_format="csv",
        url_col="url",
        save_additional_columns=["anp", "expected"],
        output_folder=str(folder / "shards"),
        output_format="files",
        disable_all_reencoding=True,  # keep the bytes: we check and resize ourselves
        extract_exif=False,
        compute_hash="sha256",
        number_sample_per_shard=job["per_shard"],
        processes_count=job["processes"],
        thread_count=job["threads"],
        timeout=job["timeout"],
        retries=job["retries"],
        distributor=job["distributor"],
        incremental_mode="incremental",
        user_agent_token="xresnet-caffe",
    )


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
