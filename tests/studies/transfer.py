"""What an encoder of one domain is worth in another: Online Retail and Art/Office, both ways.

    nice python tests/studies/transfer.py --data=data/raw --work=runs/transfer \\
        --results=docs/results/transfer.jsonl --revision=$(git rev-parse --short HEAD) --date=TODAY

For either as the target, users of its test split are matched across its two services (the protocol
of docs/results/matching.md) by

- an encoder of the other domain as it is (`zero_shot`),
- the same trained on at 1 %, 10 % or all of the target's training users (`continued`),
- one trained on those users from scratch, with a tokenizer of their texts (`scratch`), and on
  10 % and all of them with the tokenizer of the other domain (`scratch_source_tokenizer`),

beside TF-IDF and a random encoder. Rates, where several are tried, and steps are chosen on
validation users. One JSON line a cell; cells that are in the file are not made again, runs that
were stopped go on. An hour a seed on 2 busy CPU cores; figures in docs/results/transfer.md.
"""

import argparse
import json
import sys
import time
from dataclasses import astuple
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import numpy as np
import pyarrow.parquet as pq

from clue_jax.config import MatchingConfig
from clue_jax.data.source import open_dataset
from clue_jax.embeddings.reader import read_embeddings
from clue_jax.evaluation.bootstrap import Resampled, bootstrap
from clue_jax.evaluation.matching import METRICS, eligible_pairs
from tests.stages import finish, start
from tests.studies.transfer_cells import (
    DOMAINS,
    OTHER,
    Cell,
    cells,
    in_lower_case,
    kept_users,
    without,
)

RESAMPLES = 1_000


class Study:
    """Folders and stages of the study."""

    def __init__(self, raw, work, lower):
        self.raw, self.work = Path(raw).resolve(), Path(work).resolve()
        self.lower = lower

    @property
    def texts(self):
        return "lower case" if self.lower else "as published"

    # -------------------------------------------------------------------------------------- data

    def logs(self, domain, fraction, seed):
        """Tables without the training users that are left out, in lower case if it is asked for."""
        if fraction == 1.0 and not self.lower:
            return self.raw / domain.name
        out = self.work / "logs" / f"{domain.name}-{fraction:g}-{seed}"
        if out.exists():
            return out
        left_out = [] if fraction == 1.0 else self._left_out(domain, fraction, seed)
        part = out.with_name(f"{out.name}-part")
        part.mkdir(parents=True, exist_ok=True)
        for path in sorted((self.raw / domain.name).glob("*.parquet")):
            table = pq.read_table(path)
            (column,) = {*domain.user_columns} & {*table.column_names}
            table = without(table, column, left_out)
            if self.lower:
                table = in_lower_case(table, domain.text_column)
            pq.write_table(table, part / path.name)
        return part.rename(out)

    def _left_out(self, domain, fraction, seed):
        whole = open_dataset(self.prepared(domain, domain.name, 1.0, seed))
        users = whole.users("train").user_ids.tolist()
        return sorted({*users} - {*kept_users(users, fraction, seed)})

    def prepared(self, domain, tokenizer_of, fraction, seed):
        """The dataset of a domain, with a tokenizer of its own or of the other's texts."""
        own = tokenizer_of == domain.name
        name = f"{domain.name}-{fraction:g}" + (f"-{seed}" if fraction < 1.0 else "")
        out = self.work / "data" / (name if own else f"{name}-by-{tokenizer_of}")
        if not (out / "manifest.json").exists():
            flags = [f"--config=configs/data/{domain.name}.py", f"--out={out}"]
            flags.append(f"--config.source={self.logs(domain, fraction, seed)}")
            if not own:
                source = self.prepared(DOMAINS[tokenizer_of], tokenizer_of, 1.0, seed)
                flags += [f"--config.tokenizer.path={source}"]
                flags += ["--config.tokenizer.new_services=RESERVED"]
            finish(start("prepare", *flags))
        return out

    # ------------------------------------------------------------------------------------ models

    def data_of(self, cell):
        fraction = cell.fraction or 1.0
        return self.prepared(cell.domain, cell.tokenizer_of, fraction, cell.seed)

    def source_run(self, cell):
        return self.work / "runs" / f"{Cell(OTHER[cell.target], 'scratch', 1.0, cell.seed).key}-x1"

    def trained(self, cell, factor):
        """A run of the cell, and the best of its validations."""
        domain, run = cell.domain, self.work / "runs" / f"{cell.key}-x{factor:g}"
        rate, item_rate = (factor * r for r in domain.learning_rates)
        flags = [
            f"--config=configs/pretrain.py:{domain.name}",
            f"--data={self.data_of(cell)}",
            f"--workdir={run}",
            f"--config.seed={cell.seed}",
            f"--config.optim.learning_rate={rate}",
            f"--config.optim.item_learning_rate={item_rate}",
            f"--config.train.batch_users={domain.batches[cell.fraction]}",
            f"--config.train.eval_every={domain.every}",
            f"--config.checkpoint.every_steps={domain.every}",
            "--config.encoder.max_history=512",  # of both, so that either can begin as the other
            "--config.encoder.row_behaviours=512",
        ]
        if cell.model == "continued":
            flags += [f"--config.init_from={self.source_run(cell)}", "--config.init_step=-2"]
        finish(start("train", *flags), seconds=3_600)
        rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        best = max(row["recall_at_10"] for row in rows if row.get("split") == "validation")
        return run, best

    def exported(self, cell, run):
        out = self.work / "users" / cell.key
        if not (out / "manifest.json").exists():
            flags = f"--workdir={run}", f"--data={self.data_of(cell)}", f"--out={out}"
            finish(start("export", *flags, "--config.splits=test", "--config.step=-2"))
        return out

    def evaluated(self, cell, users):
        """Results of `evaluate`: for the export, TF-IDF and a random encoder."""
        out = self.work / "evaluations" / cell.key
        if not (out / "results.json").exists():
            flags = f"--config=configs/evaluate/{cell.target}.py", f"--embeddings={users}"
            every = "tfidf,random_encoder,chance" if cell.model == "zero_shot" else "tfidf"
            finish(
                start("evaluate", *flags, f"--config.matching.baselines={every}", f"--out={out}")
            )
        return json.loads((out / "results.json").read_text())

    def sample(self, cell):
        """Scores of a cell's export on resamples of the test users, to subtract from another's."""
        export = read_embeddings(self.work / "users" / cell.key, ("test",))
        enough = cell.domain.min_behaviours
        config = MatchingConfig(services=cell.domain.services, min_behaviours=enough)
        (pair,) = eligible_pairs(export, config, 0)
        vectors = lambda a, b, rows: (export.by_service[a][rows], export.by_service[b][rows])  # noqa: E731
        scores = next(iter(pair.match(vectors).values()))  # the mean of both directions
        order = np.argsort(export.user_ids[pair.rows])
        return bootstrap(scores[order], RESAMPLES, 0)

    def made(self, cell):
        """The line of a cell."""
        began = time.monotonic()
        line = {"target": cell.target, "model": cell.model, "fraction": cell.fraction}
        line |= {"seed": cell.seed, "source": OTHER[cell.target], "texts": self.texts}
        if cell.model == "zero_shot":
            run = self.source_run(cell)
        else:
            found = {factor: self.trained(cell, factor) for factor in cell.factors}
            line["validation"] = {f"x{factor:g}": best for factor, (_, best) in found.items()}
            run = max(found.values(), key=lambda run_best: run_best[1])[0]
            line["run"] = run.name
        users = self.exported(cell, run)
        line["step"] = json.loads((users / "manifest.json").read_text())["checkpoint"]["step"]
        dataset = open_dataset(self.data_of(cell))
        line["train_users"] = dataset.manifest["splits"]["train"]["users"] if cell.fraction else 0
        line["item_tokens"] = dataset.manifest["quantiles"]["item_tokens"]
        line["truncated_items"] = dataset.manifest["truncated_items"]
        line["results"] = _rows(self.evaluated(cell, users))
        line["minus"] = self.differences(cell)
        line["seconds"] = round(time.monotonic() - began)
        return line

    def differences(self, cell):
        """Differences, on the same users, to what the cell is to be held against."""
        against = []
        alike = {"continued": ["scratch"], "scratch_source_tokenizer": ["scratch", "continued"]}
        for model in alike.get(cell.model, []):
            against.append(Cell(cell.target, model, cell.fraction, cell.seed))
        if cell.model == "continued":
            against.append(Cell(cell.target, "zero_shot", 0.0, cell.seed))
        if cell.model == "zero_shot":
            against = [Cell(cell.target, "scratch", 1.0, cell.seed)]
        own = self.sample(cell)
        return {
            f"{c.model} {c.fraction:g}": _figures(own.minus(self.sample(c)))
            for c in against
            if (self.work / "users" / c.key / "manifest.json").exists()
        }


def _rows(results):
    """Mean of both directions: model -> metric -> value, low, high."""
    rows = {}
    for row in results:
        if row["task"].endswith("(mean)"):
            figures = [row["value"], row["low"], row["high"]]
            rows.setdefault(row["model"], {})[row["metric"]] = figures
    return rows


def _figures(sample: Resampled):
    low, high = sample.interval()
    return {
        metric: [round(float(part[n]), 5) for part in (sample.value, low, high)]
        for n, metric in enumerate(METRICS)
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", default="data/raw", help="folder of the two data sets")
    parser.add_argument("--work", default="runs/transfer", help="folder for datasets and runs")
    parser.add_argument("--results", required=True, help="file that gets a line a cell")
    parser.add_argument("--seeds", default="0", help="of runs and of the users kept")
    parser.add_argument("--lower", action="store_true", help="texts in lower case")
    parser.add_argument("--fractions", default="0,0.01,0.1,1", help="cells to make; 0: zero_shot")
    parser.add_argument("--revision", default="", help="of the code, noted in each line")
    parser.add_argument("--device", default="2 CPU cores")
    parser.add_argument("--date", default="")
    options = parser.parse_args()
    study = Study(options.data, options.work, options.lower)
    results, wanted = Path(options.results), [float(f) for f in options.fractions.split(",")]
    lines = results.read_text().splitlines() if results.exists() else []
    keys = ("texts", "target", "model", "fraction", "seed")
    done = {tuple(line[key] for key in keys) for line in map(json.loads, lines)}
    noted = {"revision": options.revision, "device": options.device, "date": options.date}
    for cell in (c for seed in options.seeds.split(",") for c in cells(int(seed))):
        if (study.texts, *astuple(cell)) in done or cell.fraction not in wanted:
            continue
        line = json.dumps(study.made(cell) | noted)
        with results.open("a") as file:
            file.write(line + "\n")
        print(line, flush=True)


if __name__ == "__main__":
    main()
