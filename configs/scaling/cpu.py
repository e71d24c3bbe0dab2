"""The scaling law of synthetic logs on two CPU cores.

    python -m clue_jax synthesize --config=configs/synthesize.py --config.num_users=100000 \\
        --out=data/scaling/logs
    python -m clue_jax prepare --config=configs/data/synthetic.py \\
        --config.source=data/scaling/logs --out=data/scaling/prepared
    python -m clue_jax scale --config=configs/scaling/cpu.py --data=data/scaling/prepared \\
        --workdir=runs/scaling

Start the last line twice, in two terminals, for a worker a core. `--config.plan_only=true` shows
the runs and ends. Widths alone are varied: with two layers of each level, runs of these budgets
learn less for their compute. The rule of the learning rate came from such runs as those of the
sweep `rate`, which stands in the plan to be looked at again.

Variants:
  smoke    three runs of seconds; for tests
  minutes  the smallest budgets alone: 19 runs of one seed, 9 minutes with one worker; to try it,
           as their forecast was 28 % off
  study    the law over three orders of magnitude of compute, each factor by itself, and tasks
"""

from clue_jax.config import (
    DownstreamConfig,
    DownstreamRuns,
    EncoderConfig,
    EvaluateConfig,
    ExportConfig,
    HeldOutConfig,
    OptimConfig,
    PretrainConfig,
    RateRule,
    SamplingConfig,
    ScaleConfig,
    Sweep,
    TaskConfig,
    TaskKind,
    TrainConfig,
    TransformerConfig,
)
from clue_jax.errors import ConfigError

# Budgets in PF-days, and the sizes around the best one of each.
BUDGETS = {
    2e-10: ("8x1", "16x1", "24x1", "32x1"),
    7e-10: ("8x1", "16x1", "24x1", "32x1", "48x1"),
    2e-9: ("8x1", "16x1", "32x1", "48x1", "64x1"),
    7e-9: ("16x1", "32x1", "48x1", "64x1", "96x1"),
    2e-8: ("16x1", "24x1", "32x1", "48x1", "64x1"),
    7e-8: ("24x1", "32x1", "48x1"),
    2e-7: ("32x1", "48x1"),
}
RULE = RateRule(learning_rate=2e-3, width=64, width_power=1.0, batch=64, batch_power=0.25)
TWICE = 7e-9  # budgets up to this one have a second seed
TASKS = (
    TaskConfig("favourite", TaskKind.MULTICLASS, "favourite", label="favourite"),
    TaskConfig("spend", TaskKind.REGRESSION, "spend", label="spend"),
    TaskConfig("subscribes", TaskKind.BINARY, "subscribes", label="subscribes"),
)


def _base() -> PretrainConfig:
    small = TransformerConfig(num_layers=1, num_heads=2, mlp_width=128)
    config = PretrainConfig(
        encoder=EncoderConfig(
            width=32,
            embedding_width=64,
            item=small,
            service=small,
            max_item_tokens=24,
            max_history=16,
        ),
        sampling=SamplingConfig(behaviours_kept=0.7),
        optim=OptimConfig(),
    )
    config.loss.temperature = 0.15
    config.train = TrainConfig(steps=400, batch_users=64, log_every=20)
    return config


def _budgets(most: float, twice: float) -> tuple[Sweep, ...]:
    return tuple(
        Sweep(
            f"budget {budget:g}",
            sizes=sizes,
            budgets=(budget,),
            seeds=(0, 1) if budget <= twice else (0,),
        )
        for budget, sizes in BUDGETS.items()
        if budget <= most
    )


def _study() -> ScaleConfig:
    budgets = _budgets(most=max(BUDGETS), twice=TWICE)
    two, rates = ("16x1", "48x1"), (0.5, 1.0, 2.0)
    return ScaleConfig(
        base=_base(),
        sweeps=(
            *budgets,
            Sweep("rate", sizes=("16x1", "32x1", "64x1"), samples=(16_384,), rates=rates),
            Sweep("users", sizes=("32x1",), users=(1_000, 4_000, 16_000, 0), samples=(32_768,)),
            Sweep("length", sizes=two, behaviours=(4, 8, 16, 32), samples=(16_384,), seeds=(0, 1)),
            Sweep("short", sizes=two, behaviours=(4, 8, 16, 32), samples=(8_192,)),
            Sweep("batch", sizes=two, batches=(32, 128, 512), samples=(8_192, 32_768), rates=rates),
        ),
        rate=RULE,
        held_out=HeldOutConfig(behaviours=16, negatives=127),
        downstream=_tasks(budgets),
    )


def _tasks(sweeps: tuple[Sweep, ...]) -> DownstreamRuns:
    """Of the same people whom the loss is measured on."""
    held_out = ("validation",)
    tasks = DownstreamConfig(
        labels="data/scaling/logs/labels",
        tasks=TASKS,
        splits=held_out,
        features=("clue",),
        heads=("linear",),
        bootstrap=2,
    )
    return DownstreamRuns(
        sweeps=tuple(sweep.name for sweep in sweeps),
        export=ExportConfig(splits=held_out, cutoff="2024-11-26"),
        evaluate=EvaluateConfig(suites=("downstream",), downstream=tasks),
    )


def _minutes() -> ScaleConfig:
    return ScaleConfig(
        base=_base(),
        sweeps=_budgets(most=TWICE, twice=0.0),
        rate=RULE,
        held_out=HeldOutConfig(behaviours=16, negatives=127),
    )


def _smoke() -> ScaleConfig:
    base = _base()
    base.train.batch_users, base.loss.temperature = 32, 0.3
    return ScaleConfig(
        base=base,
        sweeps=(
            Sweep("small", sizes=("8x1",), steps=(20,)),
            Sweep("large", sizes=("16x1",), steps=(20, 60)),
        ),
        rate=RateRule(learning_rate=2e-2),
        held_out=HeldOutConfig(behaviours=8, negatives=7),
        resamples=20,
    )


PLANS = {"study": _study, "minutes": _minutes, "smoke": _smoke}
VARIANTS = ("", *PLANS)


def get_config(variant: str = "") -> ScaleConfig:
    name = variant or "study"
    if name not in PLANS:
        raise ConfigError(
            f"configs/scaling/cpu.py:{variant}: no such variant; use one of {', '.join(PLANS)}"
        )
    return PLANS[name]()
