"""When the driver says that no task starts."""

from types import SimpleNamespace

import pytest

from dedup.engines.spark.jobs import IdleWatch


class Tracker:
    """Stages as Spark's status tracker gives them; None is a stage that has just gone."""

    def __init__(self):
        self.stages = {}

    def set(self, number, active=0, completed=0, failed=0):
        self.stages[number] = SimpleNamespace(stageId=number, numActiveTasks=active, numCompletedTasks=completed, numFailedTasks=failed)

    def getActiveStageIds(self):
        return list(self.stages)

    def getStageInfo(self, number):
        return self.stages[number]


@pytest.fixture
def at():
    """Let a time pass, and look."""
    tracker, notes, now = Tracker(), [], [0.0]
    watch = IdleWatch(tracker, "spark.executor.cores=4", notes.append, clock=lambda: now[0])

    def look(seconds):
        now[0] = 1000.0 + seconds
        watch.check()
        return len(notes)

    look.tracker, look.notes = tracker, notes
    return look


def test_it_says_so_once_after_a_while(at):
    at.tracker.set(0)
    assert [at(seconds) for seconds in (0, 10, 29, 31, 60, 90)] == [0, 0, 0, 1, 1, 1]
    assert at.notes[0].startswith(
        "no task has started for 30 s: no worker offers, or has left, what an executor asks for (spark.executor.cores=4)"
    )
    assert "\n" not in at.notes[0]


def test_no_word_while_tasks_run_or_end(at):
    at.tracker.set(0, active=1)
    assert [at(seconds) for seconds in (0, 40, 80)] == [0, 0, 0]
    for seconds in (120, 149, 178):
        at.tracker.set(0, completed=seconds)
        assert at(seconds) == 0
    at.tracker.set(0, completed=178, failed=1)
    assert at(230) == 0
    at.tracker.stages = {1: None}
    assert [at(seconds) for seconds in (240, 300)] == [0, 0]


def test_a_later_stage_is_waited_for_anew(at):
    at.tracker.set(0)
    assert [at(0), at(29)] == [0, 0]
    at.tracker.stages.clear()
    at.tracker.set(1)
    assert [at(31), at(60), at(61)] == [0, 0, 1]


def test_a_spark_that_is_gone_is_none_of_its_business(at):
    at.tracker.getActiveStageIds = lambda: 1 / 0
    assert [at(0), at(60)] == [0, 0]
