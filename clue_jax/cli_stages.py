"""The stages of the front door: what each takes, and the one function it calls with it.

Stages are imported when they run, so that help and usage errors come at once, without jax.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from clue_jax.cli_embeddings import ACTIONS
from clue_jax.cli_stage import Flag, Stage
from clue_jax.config import (
    EvaluateConfig,
    ExportConfig,
    PrepareConfig,
    PretrainConfig,
    ScaleConfig,
    SynthesizeConfig,
)
from clue_jax.errors import NonFiniteError, Preempted


def _quickstart(out: str) -> None:
    from clue_jax.quickstart import quickstart

    quickstart(out)


def _synthesize(config: SynthesizeConfig, out: str) -> None:
    from clue_jax.data.synthetic import synthesize

    synthesize(config, out)


def _prepare(config: PrepareConfig, out: str, beam: list[str]) -> None:
    if beam:
        from clue_jax.data.beam.engine import prepare_on_beam

        prepare_on_beam(config, out, beam)
    else:
        from clue_jax.data.prepare import prepare

        prepare(config, out)


def _train(config: PretrainConfig, data: list[str], workdir: str) -> None:
    from clue_jax.parallel.processes import joined_processes
    from clue_jax.training.loop import train

    with joined_processes(), _with_page(workdir):
        train(config, data, workdir)


def _compile(config: PretrainConfig, topology: str, data: list[str], **flags: str) -> None:
    from clue_jax.compilation.stage import compile_ahead

    compile_ahead(config, topology, data=data, **flags)


def _export(config: ExportConfig, workdir: str, data: str, out: str) -> None:
    from clue_jax.export import export
    from clue_jax.parallel.processes import joined_processes

    with joined_processes():
        export(config, workdir, data, out)


def _evaluate(config: EvaluateConfig, embeddings: str, out: str) -> None:
    from clue_jax.evaluation.suite import evaluate

    evaluate(config, embeddings, out)
    _beside("report.html", lambda: _report(out))


def _scale(config: ScaleConfig, data: str, workdir: str) -> None:
    from clue_jax.scaling.study import scale

    if scale(config, data, workdir):
        _beside("report.html", lambda: _report(workdir))


def _erase(
    ids: str, data: list[str], embeddings: list[str], workdir: list[str], record: str
) -> None:
    from clue_jax.console import say
    from clue_jax.erasure import Places, describe_erasure, erase_everywhere

    found = erase_everywhere(ids, Places(data, embeddings, workdir), record)
    say("\n".join(describe_erasure(found, record)))


@contextlib.contextmanager
def _with_page(workdir: str) -> Iterator[None]:
    """Writes report.html and card.md once a run has ended, been stopped or diverged; process 0."""
    import jax

    try:
        yield
    except (Preempted, NonFiniteError):
        if jax.process_index() == 0:
            _page_and_card(workdir)
        raise
    if jax.process_index() == 0:
        _page_and_card(workdir)


def _page_and_card(workdir: str) -> None:
    from clue_jax.training.card import write_run_card

    _beside("card.md", lambda: write_run_card(workdir))
    _beside("report.html", lambda: _report(workdir))


def _beside(name: str, write: Callable[[], None]) -> None:
    """Writes what a person reads beside what a stage has made, which is there without: never fails.

    What was made is whole, and its exit code stays what it is.
    """
    from clue_jax.console import say

    try:
        write()
    except Exception as error:  # whatever a page may stumble over
        say(f"no {name}: {type(error).__name__}: {error}")


def _report(
    directory: str,
    labels: str = "",
    label: str = "",
    show_texts: bool = False,
    data: str = "",
    follow: bool = False,
    every: int = 30,
) -> None:
    from clue_jax.console import say
    from clue_jax.report import live
    from clue_jax.report.page import write_report
    from clue_jax.report.wanted import wanted

    view = wanted(labels, label, show_texts, data)
    if follow:
        live.follow(directory, every, lambda seconds: write_report(directory, view, seconds))
    say(f"wrote {write_report(directory, view)}")


_DATA = Flag("data", "prepared dataset (the --out of prepare)")
_WORKDIR = Flag("workdir", "run directory, also gs:// or s3://; one that is there is resumed")
STAGES = {
    stage.name: stage
    for stage in (
        Stage(
            "quickstart",
            "every stage on synthetic logs, offline, in minutes; ends with report.html",
            _quickstart,
            (Flag("out", "folder for everything it makes", "runs/quickstart"),),
            example="quickstart",
        ),
        Stage(
            "synthesize",
            "behaviour logs (Parquet) from a generative model of users and services",
            _synthesize,
            (Flag("out", "folder for the logs"),),
            SynthesizeConfig,
            example="synthesize --config=configs/synthesize.py --out=data/synthetic",
        ),
        Stage(
            "prepare",
            "logs (Parquet, CSV, JSONL) -> validated, tokenised, sharded dataset",
            _prepare,
            (
                Flag("out", "folder for the dataset"),
                Flag(
                    "beam",
                    "by Apache Beam: an option of its pipeline; again for more (docs/beam.md)",
                    optional=True,
                    many=True,
                ),
            ),
            PrepareConfig,
            example="prepare --config=configs/data/synthetic.py --config.source=data/synthetic"
            " --out=data/prepared",
        ),
        Stage(
            "train",
            "contrastive pretraining; the same command again resumes",
            _train,
            (
                Flag("data", f"{_DATA.help}; once more for each further one", many=True),
                _WORKDIR,
            ),
            PretrainConfig,
            example="train --config=configs/pretrain.py:15M --data=data/prepared"
            " --workdir=runs/first --config.train.steps=2000",
        ),
        Stage(
            "export",
            "newest good checkpoint + dataset -> embeddings (Parquet), resumable by part",
            _export,
            (
                Flag("workdir", "run directory of train"),
                _DATA,
                Flag("out", "folder for the embeddings"),
            ),
            ExportConfig,
            default_config="configs/export.py",
            example="export --workdir=runs/first --data=data/prepared --out=runs/first/users",
        ),
        Stage(
            "evaluate",
            "embeddings and baselines on downstream tasks -> results.json",
            _evaluate,
            (
                Flag("embeddings", "folder of exported user embeddings"),
                Flag("out", "folder for the results"),
            ),
            EvaluateConfig,
            example="evaluate --config=configs/evaluate/matching.py --embeddings=runs/first/users"
            " --out=runs/first/evaluation",
        ),
        Stage(
            "compile",
            "compile the train step for TPUs that need not be there: memory, traffic, bounds",
            _compile,
            (
                Flag("topology", "chips of one slice, such as v5e:16x16"),
                Flag("slices", "slices, between which only gradients travel", "1"),
                Flag("only", "step, or loss: the loss alone at config.train.batch_users", "step"),
                Flag(
                    "data",
                    "dataset whose users are assumed in place of the following; again for more",
                    optional=True,
                    many=True,
                ),
                Flag("services", "services of an average user", "2"),
                Flag("behaviours", "behaviours of an average user in one service", "64"),
                Flag("items", "distinct items of an average user", "96"),
                Flag("tokens", "tokens of an average item", "16"),
                Flag("vocabulary", "entries of the tokenizer", "50258"),
                Flag("out", "file for the figures as JSON", optional=True),
            ),
            PretrainConfig,
            example="compile --config=configs/pods.py:160M_v5e_256 --topology=v5e:16x16",
        ),
        Stage(
            "scale",
            "runs or resumes a plan of trainings, fits scaling laws, forecasts, reports",
            _scale,
            (_DATA, Flag("workdir", "folder of the study; several workers may share it")),
            ScaleConfig,
            example="scale --config=configs/scaling/cpu.py --data=data/prepared --workdir=runs/law",
        ),
        Stage(
            "erase",
            "remove users from datasets and exports; on record, with the models that saw them",
            _erase,
            (
                Flag("ids", "file of user ids as the datasets have them, one a line"),
                Flag("data", "prepared dataset; again for more", optional=True, many=True),
                Flag(
                    "embeddings",
                    "folder of exported users; again for more",
                    optional=True,
                    many=True,
                ),
                Flag("workdir", "run that may have seen them; again", optional=True, many=True),
                Flag("record", "file for the audit record (JSON)"),
            ),
            example="erase --ids=forget.txt --data=data/prepared --embeddings=runs/first/users"
            " --workdir=runs/first --record=forgotten.json",
        ),
        Stage(
            "report",
            "report.html in a run, an evaluation, a study or a quickstart; of an export beside it",
            _report,
            (
                Flag(
                    "labels",
                    "Parquet table of user_id and a label, to colour the map of an export by",
                    optional=True,
                ),
                Flag("label", "its column; else the one called as the table", optional=True),
                Flag(
                    "show_texts",
                    "show texts of a few test users of an export and of their nearest (--data)",
                    kind=bool,
                ),
                Flag("data", "of --show_texts: the dataset that the export is of", optional=True),
                Flag("follow", "write it again and again while a run is at work", kind=bool),
                Flag("every", "seconds between two pages of --follow", "30", kind=int),
            ),
            positional=("directory",),
            example="report runs/first",
        ),
        *ACTIONS,
    )
}
