"""What a task learns of its GPUs."""

import threading

import pytest

from dedup.machine import given_gpus, may_have_gpu, task_gpus


def test_a_task_has_its_gpus_in_all_its_threads_and_no_longer():
    seen = []
    with given_gpus(["1", "3"]):
        thread = threading.Thread(target=lambda: seen.append(task_gpus()))
        thread.start()
        thread.join()
    assert seen == [("1", "3")]
    assert task_gpus() == ()
    with pytest.raises(KeyError), given_gpus(["0"]):
        raise KeyError
    assert task_gpus() == ()


def test_a_gpu_is_expected_where_a_driver_or_a_scheduler_speaks_of_one(monkeypatch, tmp_path):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    files = (str(tmp_path / "nvidiactl"),)
    assert not may_have_gpu(files)
    with given_gpus(["0"]):
        assert may_have_gpu(files)
    (tmp_path / "nvidiactl").touch()
    assert may_have_gpu(files)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert not may_have_gpu(files)
