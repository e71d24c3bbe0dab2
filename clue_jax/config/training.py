"""What `train` takes."""

# Annotations stay real types here (no `from __future__ import annotations`): config_flags reads
# them from the fields to parse overrides.

import enum
from dataclasses import dataclass, field


class Activation(enum.Enum):
    GELU = "gelu"  # two matrices an MLP
    SWIGLU = "swiglu"  # gated, with a third matrix (arXiv 2002.05202)


class Precision(enum.Enum):
    """Type of activations and matmul operands; parameters, softmax and loss stay float32."""

    FLOAT32 = "float32"  # 4 bytes, on any device
    BFLOAT16 = "bfloat16"  # 2 bytes, for the matrix units of accelerators


class Remat(enum.Enum):
    """What a chunk keeps of its blocks for the way back; the rest is computed once more."""

    NONE = "none"  # every activation
    LINEAR = "linear"  # products with weights; attention and what is cheap are computed again
    FULL = "full"  # inputs of the blocks


class AttentionKernel(enum.Enum):
    """How attention inside a packed row is computed (model/attention.py)."""

    AUTO = "auto"  # the best known one for the device and the length of a row
    DENSE = "dense"  # all logits of a row at once, on any device
    CUDNN = "cudnn"  # fused, NVIDIA GPUs, bfloat16
    SPLASH = "splash"  # fused, TPUs, rows of a multiple of 128


# A similarity in float32 errs by 6e-8: times this, a logit by less than 1e-3.
MAX_SCALE = 10_000.0
MAX_LAYERS = 32  # blocks that an item or a view skips are bits of one word


@dataclass
class TransformerConfig:
    """One of the two levels. Zero layers leave a bag: mean pooling alone."""

    num_layers: int = 4  # blocks; 0: mean pooling alone
    num_heads: int = 4  # H: of attention; they share the width evenly
    mlp_width: int = 512  # F: hidden units


@dataclass
class EncoderConfig:
    """Item Transformer -> mean pool -> Service Transformer -> mean pool -> projection."""

    width: int = 128  # D: of tokens, items and behaviours in both Transformers
    embedding_width: int = 128  # E: dimensions of what comes out
    item: TransformerConfig = field(default_factory=TransformerConfig)
    service: TransformerConfig = field(default_factory=TransformerConfig)
    activation: Activation = Activation.GELU  # of the MLPs
    precision: Precision = Precision.FLOAT32  # of activations and matmul operands
    max_item_tokens: int = 32  # guide token included; longer items are truncated
    max_history: int = 64  # T: behaviours in one view
    project: bool = True  # a linear map to E; off needs embedding_width == width
    normalize_items: bool = False  # unit item vectors before the Service Transformer
    attention: AttentionKernel = AttentionKernel.AUTO  # kernel of attention inside a packed row
    remat: Remat = Remat.LINEAR  # what the backward pass computes again to save memory
    # Rows are computed in chunks, only as many as there are; what a chunk computes on its way is
    # forgotten but for its vectors, so these bound the memory (data/packing.py, model/chunked.py).
    row_tokens: int = 64  # L: longer rows fill better, but attention spans them whole
    item_rows: int = 32  # R: packed rows of tokens in one computed chunk
    row_behaviours: int = 64  # behaviours in a packed row of histories
    history_rows: int = 16  # packed rows of histories in one computed chunk

    @property
    def chunk_items(self) -> int:
        """Items of one chunk at most: a quarter of its slots, and always those of one row."""
        return self.row_tokens * max(1, self.item_rows // 4)

    @property
    def chunk_views(self) -> int:
        """Views of one chunk at most."""
        return self.row_behaviours * max(1, self.history_rows // 4)


class Parts(enum.Enum):
    """How a history is split into the two disjoint parts of a within-service pair."""

    RANDOM = "random"  # each behaviour by chance: two halves of the same time
    WINDOWS = "windows"  # at a random point in time: what came before it, and after


@dataclass
class PairWeight:
    """How much the pair of two services counts beside the pairs not named, which count 1."""

    first: str = ""  # a service
    second: str = ""  # another service; their order does not matter
    weight: float = 1.0  # 0: not at all


@dataclass
class HistorySchedule:
    """Short histories first: linearly from `start` behaviours to `encoder.max_history`."""

    start: int = 1  # behaviours in a view at step 0; the newest stay
    steps: int = 0  # until views are as long as they may be; 0: from the start


@dataclass
class SamplingConfig:
    """How two views of a user are drawn; every draw is keyed by (seed, step, identity)."""

    behaviours_kept: float = 1.0  # chance that a behaviour stays in a view
    token_dropout: float = 0.0  # chance that a token of an item (guide excepted) is left out
    layer_dropout: float = 0.0  # chance that a block of the encoder skips an item or a view
    generic_guide: float = 0.1  # chance that an item's guide token becomes the generic one
    within_service_weight: float = 0.0  # weight of pairs of two disjoint parts of one history
    parts: Parts = Parts.RANDOM  # how a history is parted for those
    pair_weights: tuple[PairWeight, ...] = ()  # of pairs of services; all of them share weight 1
    dataset_weights: tuple[float, ...] = ()  # of each --data in a batch; empty: by its users
    history_schedule: HistorySchedule = field(default_factory=HistorySchedule)
    item_steps: int = 0  # first steps, in which a view is one single item of the user
    services: tuple[str, ...] = ()  # that take part; empty: all of the dataset
    min_behaviours: int = 1  # per service, for a user to take part with it
    most_users: int = 0  # of each dataset with a positive pair, in its order, a hash's; 0: all
    suppress: str = ""  # file of ids of users, as the datasets have them, who are not learnt from


class LossForm(enum.Enum):
    """How a positive is told from its negatives (losses/contrastive.py)."""

    SOFTMAX = "softmax"  # InfoNCE in both directions (CLIP)
    SIGMOID = "sigmoid"  # each pair by itself, with a learned bias (SigLIP)


class Transport(enum.Enum):
    """How the other side of the similarities reaches a device."""

    GATHER = "gather"  # all at once: fewest messages, memory grows with the global batch
    RING = "ring"  # from neighbour to neighbour: memory does not


@dataclass
class LossConfig:
    form: LossForm = LossForm.SOFTMAX  # how a positive is told from its negatives
    temperature: float = 0.07  # initial value, or the value when fixed
    learn_temperature: bool = True  # off: the initial value stays
    max_logit_scale: float = 100.0  # the learned scale (1 / temperature) is clipped to it
    bias: float = -10.0  # initial value, of the sigmoid form
    mask_duplicates: bool = True  # users with the same items in a view are no negatives there
    tile: int = 1_024  # users on either side of the logits that exist at a time
    transport: Transport = Transport.GATHER  # how similarities are computed over several devices
    precision: Precision = Precision.FLOAT32  # of the similarities' operands; sums are float32
    # Mean of the losses of so many first dimensions, all of them last, so that an export with
    # `dimensions` loses little; empty: the loss of all.
    matryoshka: tuple[int, ...] = ()


@dataclass
class OptimConfig:
    """AdamW with linear warm-up and cosine decay."""

    learning_rate: float = 1e-3  # peak
    item_learning_rate: float = 0.0  # peak during `sampling.item_steps`; 0: the same
    warmup_fraction: float = 0.05  # of the steps
    final_fraction: float = 0.1  # of the peak, at the last step
    b1: float = 0.9  # decay of the mean of gradients
    b2: float = 0.98  # decay of the mean of their squares
    eps: float = 1e-6  # added to the root of the second mean
    weight_decay: float = 0.01  # on matrices only
    clip_norm: float = 1.0  # of the gradient of all parameters together, at most


@dataclass
class TrainConfig:
    steps: int = 1_000  # optimizer steps of the whole run
    batch_users: int = 256  # B: users in the global batch
    log_every: int = 10  # steps between rows of metrics.jsonl
    max_skipped: int = 5  # skipped steps in a row, not finite or spikes, before the run stops
    spike_deviations: float = 0.0  # skip a step so far above the last ones; 0: never for that
    skip_batches: str = ""  # A:B,... steps that learn nothing, from the A-th (of 0, 1 ...) below B
    profile: str = ""  # A:B steps of which profile/ gets a trace, counted as in skip_batches
    divergence_every: int = 1_000  # steps between comparisons of all copies of the state; 0: never
    hang_seconds: float = 900.0  # without a step, evaluation or save before the run ends; 0: never
    eval_every: int = 100  # steps between evaluations on validation users; 0: never
    eval_users: int = 2_000  # held-out users at most
    eval_min_behaviours: int = 1  # in each service of the pair


@dataclass
class CheckpointConfig:
    every_steps: int = 200  # steps between saves
    every_minutes: float = 0.0  # as well, at the next row of metrics; 0: never for that
    keep: int = 2  # newest checkpoints, beside those below
    keep_every: int = 0  # all whose step is a multiple, to roll back to; 0: none for that
    keep_best: int = 1  # checkpoints, by `metric` on validation users
    # Key of the validation rows that chooses the best checkpoint; higher is better.
    metric: str = "recall_at_10"


@dataclass
class MeshConfig:
    """Devices along each mesh axis (parallel/mesh.py); -1 once: what is left."""

    data: int = -1  # users; parameters are copies
    fsdp: int = 1  # users; parameters and optimizer state lie in shards
    tensor: int = 1  # heads and hidden units of the same users


@dataclass
class DataConfig:
    """How a dataset's users are held while they are drawn from; batches do not depend on it."""

    in_memory_mb: int = 256  # a split whose shards take no more is decoded into memory
    cache: str = ""  # folder for the memory-mapped columns of others; empty: in the dataset's own
    verify: bool = False  # compare all shards with their SHA-256 before anything else


@dataclass
class PretrainConfig:
    """Contrastive pretraining of the encoder."""

    seed: int = 0  # of parameters, batches and dropout; a batch follows from it and the step
    init_from: str = ""  # run directory whose parameters to start from; empty: drawn ones
    init_step: int = -1  # its checkpoint; -1: newest, -2: best
    data: DataConfig = field(default_factory=DataConfig)
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    mesh: MeshConfig = field(default_factory=MeshConfig)
