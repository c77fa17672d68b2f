"""How to train."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from lexel._core.checks import check_fields
from lexel._core.errors import require_within

__all__ = ["PriorSettings", "ReconstructionSettings", "Settings", "VectorSettings"]

# The greatest values with which a run can at least begin: steps × batch_size is the length of a data set, 63 bits.
MOST = {"steps": 1 << 40, "batch_size": 1 << 20, "learning_rate": 1e3, "log_every": 1 << 40, "save_every": 1 << 40}
MOST_WORKERS, MOST_CROP = 1 << 10, 1 << 15


@dataclass(frozen=True)
class Settings:
    """How to train anything.

    Args:
        steps: optimizer steps.
        batch_size: examples in a step, over all devices.
        learning_rate: the highest of the schedule: a short warm-up, then a cosine down to zero.
        seed: seed of the weights, the examples and everything else that is random.
        precision: precision of the computation; the quantizer itself computes in float32 at least.
        devices: how many devices to train on; `"auto"` takes all accelerators, or one process on CPU.
        workers: processes that read examples beside the training process.
        log_every: steps between rows of metrics.csv.
        save_every: steps between checkpoints and sample pictures.
        device: the kind of device, `"cpu"`, `"cuda"` or `"mps"`; `"auto"` takes an accelerator where there is one.
        validation: data to measure the model on at each checkpoint.

    Raises:
        TypeError: a setting is of another type.
        ValueError: a setting is out of its range.
    """

    steps: int = 5000
    batch_size: int = 32
    learning_rate: float = 1e-3
    seed: int = 0
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true"
    devices: int | Literal["auto"] = "auto"
    workers: int = 0
    log_every: int = 50
    save_every: int = 1000
    device: str = "auto"
    validation: str | None = None

    def __post_init__(self) -> None:
        check_fields(self)
        for name, most in MOST.items():
            if not 0 < getattr(self, name) <= most:
                raise ValueError(f"{name} must be above 0 and at most {most:,}, got {getattr(self, name)}")
        if not -(1 << 63) <= self.seed < 1 << 64:  # what torch takes
            raise ValueError(f"seed must be an integer of 64 bits, got {self.seed}")
        require_within("workers", self.workers, 0, MOST_WORKERS)
        if self.devices != "auto" and self.devices < 1:
            raise ValueError(f"devices must be auto or at least 1, got {self.devices}")
        if self.devices != "auto" and self.batch_size % self.devices:
            raise ValueError(f"batch_size {self.batch_size} cannot be shared evenly by {self.devices} devices")


@dataclass(frozen=True)
class ReconstructionSettings(Settings):
    """How to train a model to reconstruct images.

    Args:
        batch_size: crops in a step, over all devices.
        validation: images to measure the model on at each checkpoint, as DATA.
        crop: side of the random crops in pixels.
        reconstruction_loss: `"mse"` or `"l1"`, divided by the loss of the best constant image.
    """

    crop: int = 64
    reconstruction_loss: Literal["mse", "l1"] = "mse"

    def __post_init__(self) -> None:
        super().__post_init__()
        require_within("crop", self.crop, 1, MOST_CROP)


@dataclass(frozen=True)
class PriorSettings(Settings):
    """How to train a prior, and its size.

    Args:
        batch_size: examples in a step, over all devices.
        validation: tokens to measure the prior on at each checkpoint.
        kind: of the prior.
        layers: blocks of its network.
        width: channels between the blocks.
        heads: attention heads of a block.
    """

    batch_size: int = 64
    kind: str = "causal"
    layers: int = 4
    width: int = 192
    heads: int = 6


@dataclass(frozen=True)
class VectorSettings(Settings):
    """How to fit or train a model of vectors.

    Args:
        steps: optimizer steps; of rqvae alone, as are the size of the batch and the learning rate.
        batch_size: vectors in a step, over all devices.
        validation: vectors to measure the error on, as DATA.
    """

    steps: int = 10_000
    batch_size: int = 1024
