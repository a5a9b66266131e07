"""What the spark-submit jobs share: from arguments to pipeline, with the engine of the Spark session."""

from __future__ import annotations

import argparse
import sys
from contextlib import nullcontext
from dataclasses import replace

from dedup.cli.main import main
from dedup.cli.options import chosen_stages, overrides_of
from dedup.cli.show.run import ConsoleReporter, print_summary
from dedup.cli.show.terminal import errors_shown
from dedup.config import Config
from dedup.config.load import load_config
from dedup.pipeline.run import run


def parse(description: str, only: str | None = None, arguments: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line of a job; a job that runs only one stage has no options that choose stages."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("keys", nargs="*", metavar="KEY=VALUE", help="configuration, such as output.run_dir=s3://bucket/run")
    parser.add_argument("-c", "--config", metavar="FILE", help="YAML file of configuration keys")
    parser.add_argument("--set", action="append", metavar="KEY=VALUE", help="the same as KEY=VALUE; may be given several times")
    parser.add_argument("--redo", action="store_true", help="redo from the first stage whose configuration or input changed")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    parser.set_defaults(only=only, first=None, last=None)
    if only is None:
        parser.add_argument("--only", metavar="STAGE[,STAGE]", help="run these stages alone")
        parser.add_argument("--from", dest="first", metavar="STAGE", help="start with this stage")
        parser.add_argument("--until", dest="last", metavar="STAGE", help="end with this stage")
    return parser.parse_intermixed_args(arguments)


def spark_config(config_file: str | None, overrides: list[str]) -> Config:
    """The configuration, on Spark: the master is what spark-submit was given, whatever a file says."""
    config = load_config(config_file, overrides)
    return replace(config, engine=replace(config.engine, name="spark", master=""))


def submit(description: str, only: str | None = None) -> None:
    """Run stages in the Spark session that spark-submit configured; exits with the same codes as `dedup`.

    `only`: the stages of this job, as in `dedup run --only`; None = those that its command line chooses.
    """
    options = parse(description, only)
    with nullcontext() if options.debug else errors_shown():
        stages = chosen_stages(options.only, options.first, options.last)
        config = spark_config(options.config, overrides_of(options.keys, options.set))
        with ConsoleReporter() as reporter:
            summary = run(config, stages, redo=options.redo, reporter=reporter)
        print_summary(summary, config)


def submit_command(*command: str) -> None:
    """Run a command of `dedup`, with the job's arguments, in the Spark session that spark-submit configured; exits as it does."""
    sys.argv[1:] = [*command, *sys.argv[1:], "--set", "engine.name=spark", "--set", "engine.master="]
    main()
