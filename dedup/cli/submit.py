"""What the jobs of spark-submit share: arguments to pipeline, the engine taken from the session."""

from __future__ import annotations

import argparse
from contextlib import nullcontext
from dataclasses import replace

from dedup.cli.show.run import ConsoleReporter, print_summary
from dedup.cli.show.terminal import errors_shown
from dedup.config import Config
from dedup.config.load import load_config
from dedup.pipeline.run import STAGE_NAMES, run


def parse(description: str, arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line of a job."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="configuration, such as output.run_dir=s3://bucket/run")
    parser.add_argument("-c", "--config", metavar="FILE", help="YAML file of configuration keys")
    parser.add_argument("--redo", action="store_true", help="redo from the first stage whose configuration or input changed")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return parser.parse_intermixed_args(arguments)


def spark_config(config_file: str | None, overrides: list[str]) -> Config:
    """The configuration, on Spark: where that runs was said to spark-submit, and a master in a file must not say otherwise."""
    config = load_config(config_file, overrides)
    return replace(config, engine=replace(config.engine, name="spark", master=""))


def submit(description: str, stage: str | None = None) -> None:
    """Run one stage, or all, in a Spark session that spark-submit has configured; exits with the code of `dedup`."""
    given = parse(description)
    with nullcontext() if given.debug else errors_shown():
        config = spark_config(given.config, given.overrides)
        with ConsoleReporter() as reporter:
            summary = run(config, STAGE_NAMES if stage is None else [stage], redo=given.redo, reporter=reporter)
        print_summary(summary, config)
