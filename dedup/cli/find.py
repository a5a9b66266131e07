"""The commands that use a finished run's index: query, flag, serve, info."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated, Any

import typer

from dedup.cli.options import Json, LookupSettings, RunDir, Workers, engine_keys, overrides_of, session
from dedup.cli.show.terminal import print_result
from dedup.errors import ConfigError

Images = Annotated[list[str], typer.Argument(metavar="IMAGE|FOLDER|TAR...", help="images, folders of images, tars")]
K = Annotated[int, typer.Option("--k", min=1, help="maximum number of matches per image")]

MinSimilarity = Annotated[
    float | None, typer.Option("--min-similarity", min=-1, max=1, help="least cosine of a match; by default the run's own threshold")
]

NoPixels = Annotated[
    bool, typer.Option("--no-pixels", help="compare whole-picture vectors only: no pixels, no turned, unframed or cropped views; faster")
]


def query(
    run_dir: RunDir,
    images: Images,
    k: K = 10,
    min_similarity: MinSimilarity = None,
    as_json: Annotated[bool, typer.Option("--json", help="one object per line: {image, is_copy, matches, error}")] = False,
    no_pixels: NoPixels = False,
    settings: LookupSettings = None,
    workers: Workers = None,
) -> None:
    """Find the training images that match given images.

    Example: dedup query out generated/ --k 5 --json
    """
    from dedup.cli.show.find import print_answer
    from dedup.find.flag import Question, answers_of

    overrides = overrides_of(settings=settings, workers=workers)
    question = Question(run_dir, tuple(overrides), "auto", k, min_similarity, not no_pixels)
    with session(engine_keys(overrides), run_dir=run_dir) as (_, engine, reporter):
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
    no_pixels: NoPixels = False,
    settings: LookupSettings = None,
    workers: Workers = None,
    fail: Annotated[bool, typer.Option("--fail", help="exit with code 3 if an image is, or may be, a copy")] = False,
    as_json: Json = False,
) -> None:
    """Find the generated images that copy training images.

    Example: dedup flag out generated/ --out flags.parquet --fail
    """
    from dedup.cli.show.find import print_flags
    from dedup.find.flag import flag_images

    if not out.endswith(".parquet"):
        raise ConfigError(f"--out {out}: expected a name that ends in .parquet")
    overrides = overrides_of(settings=settings, workers=workers)
    with session(engine_keys(overrides), run_dir=run_dir) as (_, engine, reporter):
        summary = flag_images(
            run_dir,
            images,
            out,
            k=k,
            min_similarity=min_similarity,
            judge_pixels=not no_pixels,
            overrides=overrides,
            engine=engine,
            reporter=reporter,
        )
    print_result(as_json, asdict(summary), lambda: print_flags(summary))
    if fail and (summary.n_copies or summary.n_unknown):
        raise typer.Exit(3)


def info(
    run_dir: RunDir,
    n_queries: Annotated[int, typer.Option("--queries", min=0, help="images searched exhaustively to measure recall")] = 200,
    as_json: Json = False,
) -> None:
    """Describe a run's index, and what the kernel denies to decoders.

    Example: dedup info out --queries 500
    """
    from dedup.cli.show.find import print_index_info
    from dedup.find.index import open_index
    from dedup.find.info import index_info

    facts = index_info(open_index(run_dir, device="cpu"), n_queries=n_queries)
    print_result(as_json, asdict(facts), lambda: print_index_info(facts))


def serve(
    run_dir: RunDir,
    host: Annotated[str, typer.Option("--host", help="address to listen on")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="port to listen on")] = 8000,
    max_bytes: Annotated[int, typer.Option("--max-bytes", min=1, help="largest image that is accepted")] = 32 * 1024 * 1024,
    threads: Annotated[int, typer.Option("--threads", min=1, help="requests handled at a time")] = 4,
    max_waiting: Annotated[int, typer.Option("--max-waiting", min=0, help="requests that may wait; more are refused")] = 32,
    allow_host: Annotated[
        list[str] | None,
        typer.Option("--allow-host", metavar="NAME", help="another host name to answer to, such as a proxy's; may be given several times"),
    ] = None,
    show_shards: Annotated[bool, typer.Option("--show-shards", help="show whole paths of shards, not only their names")] = False,
    settings: LookupSettings = None,
) -> None:
    """Answer queries over HTTP, with a page to drop images on.

    Example: dedup serve out --port 8000
    """
    from dedup.find.index import open_index
    from dedup.find.serve import ServiceOptions
    from dedup.find.serve import serve as run_service
    from dedup.machine import package_version

    index = open_index(run_dir, overrides=settings or [])
    _ = index.encoder  # missing packages show up now rather than at the first request
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
