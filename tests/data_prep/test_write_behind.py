"""Syncing behind a writer's back."""

from __future__ import annotations

import os
import threading
from pathlib import Path

from data_prep.write_behind import WriteBehind


def test_it_syncs_while_the_writer_goes_on_and_ends_with_it(tmp_path: Path, monkeypatch) -> None:
    synced = threading.Semaphore(0)
    monkeypatch.setattr("data_prep.write_behind._sync", lambda file: synced.release())
    path = tmp_path / "data.mdb"
    path.write_bytes(b"")
    before = threading.active_count()
    behind = WriteBehind(path)
    with path.open("ab") as file:
        for _ in range(3):
            file.write(os.urandom(1 << 16))
            behind.tell()
            assert synced.acquire(timeout=10)
    behind.close()
    assert threading.active_count() == before
    assert path.stat().st_size == 3 << 16


def test_an_error_is_left_to_the_writers_own_sync(tmp_path: Path, monkeypatch) -> None:
    failed = threading.Semaphore(0)

    def fail(file: int) -> None:
        failed.release()
        raise OSError("no space left on device")

    monkeypatch.setattr("data_prep.write_behind._sync", fail)
    (tmp_path / "data.mdb").write_bytes(b"")
    behind = WriteBehind(tmp_path / "data.mdb")
    for _ in range(2):  # the thread outlives the first
        behind.tell()
        assert failed.acquire(timeout=10)
    behind.close()
