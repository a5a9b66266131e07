"""Which GPU each process of the local engine has: dealt out without torch."""

import time
from dataclasses import dataclass

from dedup.engines.local import LocalEngine
from dedup.machine import available_cores, task_cores, task_gpus


@dataclass(frozen=True)
class Wait:
    seconds: float = 0.3


def seen(task):
    time.sleep(task.seconds)
    return task_gpus(), task_cores()


def gpus_of(n_workers, n_tasks, n_gpus, uses_gpu="alone"):
    engine = LocalEngine(n_workers, count_gpus=lambda: n_gpus)
    try:
        return [result for _, result in engine.map_partitions(seen, [Wait()] * n_tasks, uses_gpu=uses_gpu)], engine
    finally:
        engine.close()


def test_there_is_one_process_for_each_gpu():
    found, _ = gpus_of(0, 6, n_gpus=2)
    assert {gpus for gpus, _ in found} == {("0",), ("1",)}
    assert {cores for _, cores in found} == {max(1, available_cores() // 2)}


def test_more_workers_than_gpus_take_them_in_turn():
    found, _ = gpus_of(3, 9, n_gpus=2)
    assert {gpus for gpus, _ in found} == {("0",), ("1",)}


def test_fewer_workers_leave_gpus_idle():
    found, _ = gpus_of(1, 3, n_gpus=4)
    assert {gpus for gpus, _ in found} == {("0",)}


def test_without_gpus_there_is_a_process_for_each_core():
    assert {gpus for gpus, _ in gpus_of(2, 4, n_gpus=0)[0]} == {()}
    for uses_gpu in (False, True):
        assert {gpus for gpus, _ in gpus_of(2, 4, n_gpus=2, uses_gpu=uses_gpu)[0]} == {()}


def test_processes_on_gpus_end_with_their_tasks():
    _, engine = gpus_of(0, 2, n_gpus=1)
    assert engine._gpu_pool is None
