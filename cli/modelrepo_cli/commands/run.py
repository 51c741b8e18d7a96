"""`modelrepo run`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from modelrepo.errors import InvalidInput
from modelrepo_cli import job_adapters, job_inputs, package_index, parameters
from modelrepo_cli import target as targets
from modelrepo_cli.failures import JobUnsuccessful
from modelrepo_cli.output import plain
from modelrepo_cli.verbs import Call, verb

if TYPE_CHECKING:
    from modelrepo.contract import ModelSpec
    from modelrepo.environments import LinkMode
    from modelrepo_runtime.running import RunResult


@verb("repo")
@click.argument("target", metavar="[DIR|REF]", default=".")
@click.option("-i", "pairs", multiple=True, metavar="NAME=VALUE", help="One input, or NAME=@FILE; repeat it.")
@click.option("--input", "source", metavar="@FILE|-", help="All inputs as a JSON object, from a file or stdin.")
@click.option("--adapter", "adapters", multiple=True, metavar="FILE[=WEIGHT]", help=job_adapters.LOCAL)
@click.option("--repeat", is_flag=True, help="Load once, then run a job for each line of JSON that --input holds.")
@click.option("--stage", metavar="NAME", help="Run this stage alone.")
@click.option(
    "--output", type=click.Path(path_type=Path), metavar="DIR", default="outputs", help="Where files go; ./outputs."
)
@click.option("--pdb", is_flag=True, help="Open the debugger where model code fails.")
@click.option("--ranks", type=click.IntRange(1, 64), metavar="N", help="Run N processes together; one a device.")
@click.option("--python", type=click.Path(path_type=Path), metavar="PATH", help="An interpreter that has its packages.")
@click.option(
    "--secrets-dir", type=click.Path(path_type=Path), metavar="DIR", help="Files named like the secrets of the model."
)
@package_index.build_options
@package_index.options()
def command(
    call: Call,
    target: str,
    pairs: tuple[str, ...],
    source: str | None,
    adapters: tuple[str, ...],
    repeat: bool,
    stage: str | None,
    output: Path,
    pdb: bool,
    ranks: int | None,
    python: Path | None,
    secrets_dir: Path | None,
    allow_builds: bool,
    link_mode: LinkMode,
    index_url: str | None,
    extra_index_url: tuple[str, ...],
    find_links: tuple[str, ...],
) -> None:
    """Run a model folder or a version here, once, without a queue.

    What model code prints, and the partial results of a generator, go to standard error, the job's result to standard
    output. With --repeat each job is a line of JSON in (standard input unless --input says otherwise) and one out.
    """
    from modelrepo_runtime.local_model import Box
    from modelrepo_runtime.running import RunOptions, run_model

    if pdb and (source == "-" or (repeat and source is None)):
        raise InvalidInput("cannot debug with --pdb and read inputs from standard input at once; pass --input @FILE")
    if pdb and ranks is not None and ranks > 1:
        raise InvalidInput(f"cannot debug {ranks} ranks on one terminal; pass --ranks 1, or leave --pdb out")
    spec = targets.read_spec(call, target)
    jobs = _lines(source or "-", pairs, spec) if repeat else iter([_checked(spec, pairs, source)])
    options = RunOptions(
        outputs=output,
        debug=pdb,
        on_progress=_progress(call, pdb),
        on_partial=_show_partial,
        adapters=job_adapters.read_local(adapters),
    )
    index = package_index.settings(index_url, extra_index_url, find_links)
    box = Box(
        python=python,
        index=index,
        secrets_dir=secrets_dir,
        ranks=ranks,
        allow_builds=allow_builds,
        link_mode=link_mode,
    )
    with targets.ready(call, target, box, stage) as model:
        if repeat:
            _repeat(call, run_model(model, jobs, options))
        else:
            _show(call, next(iter(run_model(model, jobs, options))))


def _checked(spec: ModelSpec, pairs: Iterable[str], source: str | None) -> Mapping[str, Any]:
    from modelrepo.contract import inputs

    values = job_inputs.read(tuple(pairs), source, spec.inputs or {})
    inputs.check(spec, values)  # before an environment is built for nothing
    return values


def _lines(source: str, pairs: tuple[str, ...], spec: ModelSpec) -> Iterator[Mapping[str, Any]]:
    for line in parameters.lines(source, "--input"):
        if line.strip():
            yield job_inputs.read_line(line, pairs, spec.inputs or {})


def _repeat(call: Call, results: Iterable[RunResult]) -> None:
    failed = 0
    for result in results:
        failed += not result.succeeded
        line = json.dumps(plain(_document(result)), ensure_ascii=False)
        call.output.line(_document(result), line)
    if failed:
        click.get_current_context().exit(1)


def _show(call: Call, result: RunResult) -> None:
    document = _document(result)
    if result.error is not None:
        raise JobUnsuccessful(f"the job ended {result.cause.value}: {result.error.message}", document)
    text = [] if result.result is None else [json.dumps(result.result, indent=2, ensure_ascii=False)]
    text += [f"{name}: {path}" for name, path in result.outputs.items()]
    call.output.show(document, "\n".join(text) or "done; it returned nothing")


def _document(result: RunResult) -> dict[str, Any]:
    return {
        "cause": result.cause,
        "result": result.result,
        "outputs": result.outputs,
        "error": None if result.error is None else result.error.to_json(),
        "seconds": result.seconds,
    }


def _show_partial(value: Any) -> None:
    print(f"partial {json.dumps(value, ensure_ascii=False)}", file=sys.stderr)


def _progress(call: Call, pdb: bool) -> Any:
    if call.output.as_json or pdb or not sys.stderr.isatty():
        return None

    def show(stage: str, fraction: float, message: str | None) -> None:
        print(f"{stage} {fraction:.0%} {message or ''}".rstrip(), file=sys.stderr)

    return show
