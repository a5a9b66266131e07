"""What a task learns of its GPUs."""

import threading

import pytest

from dedup.devices import given_gpus, task_gpus


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
