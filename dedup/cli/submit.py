"""What the jobs of spark-submit share: arguments to pipeline, the engine taken from the session."""

from __future__ import annotations

import argparse
from contextlib import nullcontext
from dataclasses import replace

from dedup.cli.options import chosen_stages, overrides_of
from dedup.cli.show.run import ConsoleReporter, print_summary
from dedup.cli.show.terminal import errors_shown
from dedup.config import Config
from dedup.config.load import load_config
from dedup.pipeline.run import run


def parse(description: str, only: str | None = None, arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line of a job; of one that runs a certain stage `only`, without the options that choose stages."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("keys", nargs="*", metavar="KEY=VALUE", help="configuration, such as output.run_dir=s3://bucket/run")
    parser.add_argument("-c", "--config", metavar="FILE", help="YAML file of configuration keys")
    parser.add_argument("--set", action="append", metavar="KEY=VALUE", help="the same as KEY=VALUE; may be given several times")
    parser.add_argument("--redo", action="store_true", help="redo from the first stage whose configuration or input changed")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    parser.set_defaults(only=only, first=None, last=None)
    if only is None:
        parser.add_argument("--only", metavar="STAGE[,STAGE]", help="run these stages alone")
        parser.add_argument("--from", dest="first", metavar="STAGE", help="begin with this stage")
        parser.add_argument("--until", dest="last", metavar="STAGE", help="end with this stage")
    return parser.parse_intermixed_args(arguments)


def spark_config(config_file: str | None, overrides: list[str]) -> Config:
    """The configuration, on Spark: where that runs was said to spark-submit, and a master in a file must not say otherwise."""
    config = load_config(config_file, overrides)
    return replace(config, engine=replace(config.engine, name="spark", master=""))


def submit(description: str, only: str | None = None) -> None:
    """Run stages in a Spark session that spark-submit has configured; exits with the code of `dedup`.

    `description`: what the job's --help says.
    `only`: the stages of this job, as of `dedup run --only`; None = those that its command line chooses.
    """
    given = parse(description, only)
    with nullcontext() if given.debug else errors_shown():
        stages = chosen_stages(given.only, given.first, given.last)
        config = spark_config(given.config, overrides_of(given.keys, given.set))
        with ConsoleReporter() as reporter:
            summary = run(config, stages, redo=given.redo, reporter=reporter)
        print_summary(summary, config)
