"""Synthetic logs of three services (search, shop, news) with known latents.

    python -m clue_jax synthesize --config=configs/synthesize.py --out=data/synthetic
    python -m clue_jax synthesize --config=configs/synthesize.py:quickstart --out=data/quickstart

Variants: the default (20,000 users, 1.5 million behaviours), `quickstart` (3,000 users, 155,000
behaviours) and `smoke` (200 users, for tests); seconds each. Ten million behaviours:
`--config.num_users=131_000 --config.labels=false`, 6 s on one core and 300 MB of memory.

`labels/` has labels of five tasks and an impression log, from the manifest's `label_cutoff` on,
with the best reachable scores in best.json; see configs/evaluate/tasks.py.

Words in common between services are about 1 % of what is written. Finding a user of `search` among
users of `shop` (10 % of the users, those with 5 behaviours in each) by R@10:
  quickstart  chance .057, TF-IDF .24, the true topics of the items .99
  default     chance .007, TF-IDF .06, the true topics of the items .96
"""

from clue_jax.config import SynthesizeConfig
from clue_jax.errors import ConfigError

VARIANTS = ("", "quickstart", "smoke")


def get_config(variant: str = "") -> SynthesizeConfig:
    if variant == "":
        return SynthesizeConfig()
    if variant == "quickstart":
        return SynthesizeConfig(
            num_users=3_000, num_topics=48, items_per_service=1_500, mean_behaviours=20.0
        )
    if variant == "smoke":
        return SynthesizeConfig(
            num_users=200, num_topics=16, items_per_service=120, mean_behaviours=10.0
        )
    raise ConfigError(
        f"configs/synthesize.py:{variant}: no such variant; use none, quickstart or smoke"
    )
