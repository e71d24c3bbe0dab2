"""Logs of another company, with services of other names, and datasets of them."""

from tests.stages import run_stage

SERVICES = {"query": "query", "store": "store", "press": "press"}  # folder of the logs -> name


def synthesize_company(out):
    run_stage(
        "synthesize",
        "--config=configs/synthesize.py:smoke",
        f"--config.services={','.join(SERVICES)}",
        "--config.seed=7",
        f"--out={out}",
    )
    return out


def prepare_company(logs, tokenizer, out, *overrides, services=SERVICES):
    """Prepares the logs with the tokenizer of a run or dataset."""
    sources = [
        f"--config.sources[{number}].{key}={value}"
        for number, (folder, name) in enumerate(services.items())
        for key, value in (("path", f"{folder}/part-*.parquet"), ("service", name))
    ]
    run_stage(
        "prepare",
        "--config=configs/data/synthetic.py:smoke",
        f"--config.source={logs}",
        f"--config.tokenizer.path={tokenizer}",
        *sources,
        *overrides,
        f"--out={out}",
    )
    return out
