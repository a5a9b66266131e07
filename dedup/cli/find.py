"""The commands that come back to a finished run: query, flag, serve, index info."""

from __future__ import annotations

import json
from contextlib import closing
from typing import Annotated, Any

import typer

from dedup.cli.options import Json, complete_lookup_setting
from dedup.cli.show.terminal import print_json
from dedup.errors import ConfigError

RunDir = Annotated[str, typer.Argument(help="the run directory of a finished run")]

Images = Annotated[list[str], typer.Argument(metavar="IMAGE|FOLDER|TAR...", help="images, folders of images, tars")]

Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="over the run's configuration, such as engine.device=cpu; may be given several times",
        autocompletion=complete_lookup_setting,
    ),
]

K = Annotated[int, typer.Option("--k", min=1, help="matches of each image at most")]

MinSimilarity = Annotated[
    float | None, typer.Option("--min-similarity", min=-1, max=1, help="cosine from which training images match; by default the run's own")
]

OnlyVectors = Annotated[
    bool, typer.Option("--only-vectors", help="compare vectors of whole pictures only, without views and pixels: faster")
]

Workers = Annotated[int, typer.Option("--workers", min=0, help="processes where there are many images; 0 = one per core")]


def query(
    run_dir: RunDir,
    images: Images,
    k: K = 10,
    min_similarity: MinSimilarity = None,
    as_json: Annotated[bool, typer.Option("--json", help="one object a line: {image, is_copy, matches, error}")] = False,
    only_vectors: OnlyVectors = False,
    settings: Settings = None,
    workers: Workers = 0,
) -> None:
    """Find the training images that images match.

    Example: dedup query out generated/ --k 5 --json
    """
    from dataclasses import asdict

    from dedup.cli.show.find import print_answer
    from dedup.cli.show.run import ConsoleReporter
    from dedup.engines.local import LocalEngine
    from dedup.find.flag import Question, answers_of

    question = Question(run_dir, tuple(settings or ()), "auto", k, min_similarity, not only_vectors)
    with closing(LocalEngine(workers)) as engine, ConsoleReporter() as reporter:
        for answer in answers_of(question, images, engine, reporter):
            if as_json:
                row: dict[str, Any] = {"image": answer.image, "is_copy": answer.is_copy, "error": answer.error}
                row["matches"] = [asdict(match) for match in answer.matches]
                typer.echo(json.dumps(row, ensure_ascii=False))
            else:
                print_answer(answer)


def flag(
    run_dir: RunDir,
    images: Images,
    out: Annotated[str, typer.Option("--out", help="parquet file to write")],
    min_similarity: MinSimilarity = None,
    k: K = 10,
    only_vectors: OnlyVectors = False,
    settings: Settings = None,
    workers: Workers = 0,
    fail: Annotated[bool, typer.Option("--fail", help="exit with 3 if an image is a copy, or may be one")] = False,
    as_json: Json = False,
) -> None:
    """Tell which generated images are copies of training images, before they are released.

    Example: dedup flag out generated/ --out flags.parquet --fail
    """
    from dataclasses import asdict

    from dedup.attack.audit import flag_images
    from dedup.cli.show.find import print_flags
    from dedup.cli.show.run import ConsoleReporter
    from dedup.engines.local import LocalEngine

    if not out.endswith(".parquet"):
        raise ConfigError(f"--out {out}: expected a name that ends in .parquet")
    with closing(LocalEngine(workers)) as engine, ConsoleReporter() as reporter:
        summary = flag_images(
            run_dir,
            images,
            out,
            k=k,
            min_similarity=min_similarity,
            judge_pixels=not only_vectors,
            overrides=settings or [],
            engine=engine,
            reporter=reporter,
        )
    if as_json:
        print_json(asdict(summary))
    else:
        print_flags(summary)
    if fail and (summary.n_copies or summary.n_unknown):
        raise typer.Exit(3)


def index_info(
    run_dir: RunDir,
    n_queries: Annotated[int, typer.Option("--queries", min=0, help="images that are searched exhaustively to measure recall")] = 200,
    as_json: Json = False,
) -> None:
    """Tell what the index of a run is like: lists, bytes, memory, and measured recall.

    Example: dedup index info out --queries 500
    """
    from dedup.cli.show.find import print_index_info
    from dedup.find.index import open_index
    from dedup.find.info import index_info as measured

    info = measured(open_index(run_dir, device="cpu"), n_queries=n_queries)
    if as_json:
        print_json(info.as_dict())
    else:
        print_index_info(info)


def serve(
    run_dir: RunDir,
    host: Annotated[str, typer.Option("--host", help="address to listen on")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="port to listen on")] = 8000,
    max_bytes: Annotated[int, typer.Option("--max-bytes", min=1, help="bytes of an image at most")] = 32 * 1024 * 1024,
    threads: Annotated[int, typer.Option("--threads", min=1, help="requests that are worked on at a time")] = 4,
    max_waiting: Annotated[int, typer.Option("--max-waiting", min=0, help="requests that wait; more are turned away")] = 32,
    allow_host: Annotated[
        list[str] | None,
        typer.Option("--allow-host", metavar="NAME", help="a further host name that requests may be to, such as a proxy's"),
    ] = None,
    show_shards: Annotated[bool, typer.Option("--show-shards", help="tell whole paths of shards, not only their names")] = False,
    settings: Settings = None,
) -> None:
    """Serve lookups over HTTP, with a page to drop images on.

    Example: dedup serve out --port 8000
    """
    from dedup.find.index import open_index
    from dedup.find.serve import ServiceOptions
    from dedup.find.serve import serve as run_service
    from dedup.pipeline.run import package_version

    index = open_index(run_dir, overrides=settings or [])
    _ = index.encoder  # what it lacks is said now, not to the first who asks
    options = ServiceOptions(
        host,
        max_bytes,
        threads,
        max_waiting,
        shows_shards=show_shards,
        version=package_version(),
        allowed_hosts=tuple(name.lower() for name in allow_host or []),
    )
    typer.echo(f"{index.n_images:,} distinct images of {run_dir}: http://{host}:{port}/", err=True)
    run_service(index, options, port)
