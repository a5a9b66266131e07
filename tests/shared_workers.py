"""Runs of the tests' own process on worker processes that stay: each pool of its own would import all modules again."""

import atexit
from functools import cache

from dedup.config.key import STAGE_NAMES
from dedup.engines.local import LocalEngine
from dedup.pipeline import run as pipeline


def run(config, stages=STAGE_NAMES, *, engine=None, **options):
    """`pipeline.run` on this machine, by as many workers as the configuration asks for."""
    return pipeline.run(config, stages, engine=engine or _engine(config.engine.workers), **options)


@cache
def _engine(n_workers):
    engine = LocalEngine(n_workers)
    atexit.register(engine.close)
    return engine
