"""``RunConfig``: the options of a run, for the study file, the command line, ``ipvit.run`` and the engine."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from ipvit.core.fields import Int64, Positive, Processes
from ipvit.core.shard import Shard

Precision = Literal["fp32", "tf32", "bf16", "fp16"]
Backend = Literal["torch", "openvino"]
Answers = Literal["all", "data"]
Tracker = Literal["tensorboard", "wandb"]


def _shard(value: object) -> Shard:
    return value if isinstance(value, Shard) else Shard.parse(str(value))


class RunConfig(BaseModel):
    """How a study is run; only ``seed``, ``limit``, ``answers``, ``precision`` and ``backend`` change results.

    Names and defaults are those of the study file, of ``ipvit.run`` and, with dashes, of the command line. Fields with
    ``exclude`` belong to one call and not to a study: a study file neither has nor takes them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    seed: Int64 = 0
    """Everything random follows from it."""
    limit: Positive | None = None
    """Use only N randomly chosen images (always the same N), all by default; the report says so."""
    answers: Answers | None = None
    """Choose among all outputs of a model, or among the data's classes; by default as the data's protocol says."""
    precision: Precision = "fp32"
    """fp32, tf32 (GPUs of NVIDIA), bf16 or fp16."""
    backend: Backend = "torch"
    """What computes logits and attention: torch, or openvino on a CPU."""
    batch_size: Positive | None = None
    """Images at a time, 32 on a CPU and 256 on a GPU by default; halved where memory runs out."""
    workers: Processes | None = None
    """Number of processes that read images; by default as many as the cores allow."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, mps."""
    compile: bool = False
    """Run the networks through torch.compile."""
    join_conditions: bool = False
    """Let one pass take several conditions of a small batch, up to the batch size; last digits may differ."""
    strict: bool = False
    """Make an unreadable image an error."""
    tracker: Tracker | None = None
    """Log the tables to tensorboard (into the run folder) or wandb as well."""
    shard: Annotated[Shard, BeforeValidator(_shard)] | None = Field(default=None, exclude=True)
    """Measure one share of the images, for example 2/8, instead of all; ipvit merge joins the shards."""
    fresh: bool = Field(default=False, exclude=True)
    """Put an earlier run folder aside and start over."""
    verify: bool = Field(default=False, exclude=True)
    """Read every byte of the data's files: what was measured of other bytes, or without this, is measured again."""
    no_cache: bool = Field(default=False, exclude=True)
    """Look at all files of the data again, and use nothing that was kept of earlier starts."""
    everything: bool = Field(default=False, exclude=True)
    """Show all that the run folder holds on these data, not only what this study asks for."""
    progress: bool = Field(default=True, exclude=True)
    """Show a progress bar on standard error."""
    flush_seconds: Annotated[float, Field(ge=0)] = Field(default=10.0, exclude=True)
    """Results are written at least this often: how much work, in seconds, a killed run may lose."""

    @property
    def effective_shard(self) -> Shard:
        """The shard that is measured: the whole where none was asked for."""
        return self.shard or Shard()


OF_ONE_CALL = frozenset(name for name, field in RunConfig.model_fields.items() if field.exclude)
"""Options that do not belong into a study file."""
