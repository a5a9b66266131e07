"""An engine whose tasks run in the test's own process."""

from dedup.engines.local import LocalEngine


class InProcess(LocalEngine):
    """Runs tasks in this process, where a test can count calls or tell which device there is; `asked`: which tasks ask for a GPU."""

    def __init__(self):
        super().__init__(1)
        self.asked = {}

    def map_partitions(self, work, tasks, *, uses_gpu=False):
        name = getattr(work, "__name__", type(getattr(work, "work", work)).__name__)
        self.asked[name] = uses_gpu
        yield from enumerate(map(work, tasks))
