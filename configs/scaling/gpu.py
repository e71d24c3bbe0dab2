"""The paper's range of compute, 2e-5 to 5e-2 PF-days, on one accelerator, in pieces of minutes.

Data are synthesized where the study runs (100,000 users: 65 s on two busy cores):

    python -m clue_jax synthesize --config=configs/synthesize.py --config.num_users=1000000 \\
        --config.labels=false --out=data/scaling/logs
    python -m clue_jax prepare --config=configs/data/synthetic.py \\
        --config.source=data/scaling/logs --out=data/scaling/prepared
    python -m clue_jax scale --config=configs/scaling/gpu.py --data=data/scaling/prepared \\
        --workdir=runs/scaling_gpu --config.minutes=20

`--config.plan_only=true` shows the runs: half an hour at 40 % of an H200's peak is .007 PF-days, so
all of them are 11 hours. Runs save their state each minute; what a piece has done is in
results.jsonl, from which another machine goes on with `--config.known`. Not run yet: no accelerator
was at hand.

Variants:
  hour  budgets up to 2e-3 PF-days
"""

from clue_jax.config import (
    HeldOutConfig,
    Precision,
    PretrainConfig,
    RateRule,
    SamplingConfig,
    ScaleConfig,
    Sweep,
)
from clue_jax.errors import ConfigError
from clue_jax.model.sizes import preset

# PF-days, and the sizes around what is expected to be the best one of each.
BUDGETS = {
    2e-5: ("4M",),
    1e-4: ("4M", "15M"),
    5e-4: ("15M", "65M"),
    2e-3: ("15M", "65M", "110M"),
    1e-2: ("65M", "110M", "160M"),
    5e-2: ("110M", "160M"),
}
HOUR = 2e-3
VARIANTS = ("", "hour")


def get_config(variant: str = "") -> ScaleConfig:
    if variant not in VARIANTS:
        raise ConfigError(f"configs/scaling/gpu.py:{variant}: no such variant; use none or hour")
    base = PretrainConfig(encoder=preset("4M"), sampling=SamplingConfig(behaviours_kept=0.7))
    base.encoder.precision = Precision.BFLOAT16
    base.encoder.max_history = 64
    base.train.batch_users, base.train.log_every = 512, 20
    base.optim.clip_norm = 0.1
    base.checkpoint.every_minutes = 1.0
    two = ("4M", "65M")
    most = HOUR if variant == "hour" else max(BUDGETS)
    budgets = {budget: sizes for budget, sizes in BUDGETS.items() if budget <= most}
    return ScaleConfig(
        base=base,
        sweeps=(
            *(
                Sweep(f"budget {budget:g}", sizes=sizes, budgets=(budget,))
                for budget, sizes in budgets.items()
            ),
            Sweep("batch", sizes=two, batches=(128, 512, 2_048), budgets=(1e-4,)),
            Sweep("length", sizes=two, behaviours=(16, 64, 256), budgets=(1e-4,)),
            Sweep("users", sizes=two, users=(10_000, 100_000, 0), budgets=(1e-4,)),
        ),
        # Peak rates of the authors' follow-up fall from 2e-3 at width 128 to 2e-4 at 768.
        rate=RateRule(learning_rate=2e-3, width=128, width_power=1.25, batch=512, batch_power=0.5),
        held_out=HeldOutConfig(users=16_384, behaviours=64, negatives=511),
    )
