"""What a person asks for: `JobSpec` and its parts. Every default of the product lives here.

A spec is frozen and strict: unknown keys, `true` for a number, NaN and Infinity are refused. A part
that has variants is a union told apart by `kind`, which has no default. `JobSpec.resolved()` fills
in what depends on other fields; the store keeps the resolved spec: every value that was used.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from jobs.estimator_spec import EstimatorSpec, SpectralEstimatorSpec
from jobs.spec_base import Spec

Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")]
FileName = Annotated[
    str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,99}(\.[a-z0-9]{1,8})?$")
]
MetadataKey = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]
MetadataValue = Annotated[str, StringConstraints(max_length=256)]


# --- objectives ---------------------------------------------------------------------------------


class MigeInfomaxSpec(Spec):
    """Maximise I(x; z) by its gradient: score estimates of the joint and of the marginal."""

    kind: Literal["mige_infomax"]
    estimator: EstimatorSpec = SpectralEstimatorSpec(kind="spectral")
    route: Literal["joint", "conditional"] = Field(
        default="joint",
        description="joint: scores of (x, z) and z. conditional: H(z) by score, H(z|x) exactly.",
    )
    projection_dim: int | None = Field(
        default=None,
        ge=1,
        le=4096,
        description="Width x is projected to for the joint route; null: 2 × encoder.out_dim.",
    )
    noise_std: float = Field(
        default=0.0, ge=0, le=100, description="Standard deviation of the noise added to z."
    )
    normalize: Literal["none", "batch_norm", "sphere"] = Field(
        default="none", description="How z is bounded before the scores are estimated."
    )
    gather: Literal["all", "local"] = Field(
        default="all", description="Estimate scores on the rows of all workers, or of each alone."
    )
    bank_size: int = Field(
        default=0,
        ge=0,
        le=65_536,
        description="Past rows that enlarge the sample scores are estimated from; 0: none. They "
        "bring the gradient of small batches (below 2 × the width of x and z together) closer to "
        "the truth, which need not give better features.",
    )


ObjectiveSpec = MigeInfomaxSpec  # becomes a union with the second objective


# --- encoders -----------------------------------------------------------------------------------


class MLPEncoderSpec(Spec):
    """A multilayer perceptron on the flattened image."""

    kind: Literal["mlp"]
    out_dim: int = Field(default=16, ge=1, le=4096, description="Width of the embedding.")
    hidden_dims: tuple[Annotated[int, Field(ge=1, le=16384)], ...] = Field(
        default=(512, 512), min_length=1, max_length=16, strict=False
    )


class DimConvEncoderSpec(Spec):
    """The convolutional encoder of Deep InfoMax, for images of 28 or 32 pixels."""

    kind: Literal["dim_conv"]
    out_dim: int = Field(default=64, ge=1, le=4096)
    base_channels: int = Field(default=64, ge=4, le=512, description="Channels of the first layer.")
    fc_dim: int = Field(default=1024, ge=8, le=16384, description="Width of the hidden full layer.")


class ResNet18EncoderSpec(Spec):
    """torchvision's ResNet-18 with a stem for small images."""

    kind: Literal["resnet18"]
    out_dim: int = Field(default=128, ge=1, le=4096)


EncoderSpec = Annotated[
    MLPEncoderSpec | DimConvEncoderSpec | ResNet18EncoderSpec, Field(discriminator="kind")
]


# --- data ---------------------------------------------------------------------------------------


class DigitsDataSpec(Spec):
    """The 1,797 handwritten digits (8 × 8) that scikit-learn ships; 500 are the test set."""

    kind: Literal["digits"]


class MnistDataSpec(Spec):
    """MNIST in torchvision's layout below the data root."""

    kind: Literal["mnist"]


class FashionMnistDataSpec(Spec):
    """Fashion-MNIST in torchvision's layout below the data root."""

    kind: Literal["fashion_mnist"]


class Cifar10DataSpec(Spec):
    """CIFAR-10 in torchvision's layout below the data root."""

    kind: Literal["cifar10"]


class ImageFolderDataSpec(Spec):
    """`<data root>/<folder>/{train,test}/<class>/<image>`."""

    kind: Literal["image_folder"]
    folder: FileName = Field(description="A folder below the data root.")
    image_size: int = Field(default=32, ge=8, le=256, description="Images are resized to this.")
    channels: Literal[1, 3] = 3


class ArraysDataSpec(Spec):
    """`<data root>/<file>`: an npz with x_train, y_train, x_test, y_test (n × H × W [× C])."""

    kind: Literal["arrays"]
    file: FileName = Field(description="An npz file below the data root.")


DataSpec = Annotated[
    DigitsDataSpec
    | MnistDataSpec
    | FashionMnistDataSpec
    | Cifar10DataSpec
    | ImageFolderDataSpec
    | ArraysDataSpec,
    Field(discriminator="kind"),
]


# --- training and running -----------------------------------------------------------------------


class AdamSpec(Spec):
    """Adam with decoupled weight decay."""

    kind: Literal["adam"]
    learning_rate: float = Field(default=1e-3, gt=0, le=10)
    weight_decay: float = Field(default=0.0, ge=0, le=10)


class TrainingSpec(Spec):
    """How long and in what batches."""

    epochs: int = Field(default=80, ge=1, le=100_000)
    max_steps: int | None = Field(
        default=None, ge=1, le=100_000_000, description="Stop after this many steps; null: never."
    )
    batch_size: int = Field(
        default=256, ge=2, le=65_536, description="Rows of one step over all workers together."
    )
    schedule: Literal["constant", "cosine"] = "constant"
    limit_train_rows: int | None = Field(
        default=None, ge=2, description="Use only the first rows of the training set; null: all."
    )


class CheckpointSpec(Spec):
    """When training state is saved."""

    every_steps: int | None = Field(
        default=None, ge=1, description="Save after this many steps; null: once an epoch."
    )
    keep: int = Field(default=2, ge=1, le=100, description="How many checkpoints an attempt keeps.")


class EvaluationSpec(Spec):
    """Which protocols judge the encoder when training ends."""

    linear_probe: bool = True
    knn: bool = True
    baselines: bool = Field(
        default=True, description="Also probe raw pixels and the untrained encoder."
    )
    calibration: bool = Field(
        default=False,
        description="Also measure the objective's score estimator at this job's batch size and "
        "widths, on problems whose gradient is known exactly (about a minute), and publish the "
        "card as calibration.json and calibration.png.",
    )
    limit_rows: int | None = Field(
        default=10_000, ge=10, description="Rows of each split that the protocols use; null: all."
    )


class ResourcesSpec(Spec):
    """Where the job runs."""

    backend: Literal["ray_train", "inline"] = Field(
        default="ray_train", description="inline: the same loop in one process without Ray."
    )
    num_workers: int = Field(default=1, ge=1, le=256)
    cpus_per_worker: int = Field(default=1, ge=1, le=256)
    gpus_per_worker: int = Field(
        default=0, ge=0, le=1, description="A worker trains on one GPU: for more, add workers."
    )


class RetrySpec(Spec):
    """What happens after a failure that another attempt may cure."""

    max_attempts: int = Field(default=3, ge=1, le=20)
    max_runtime_s: int | None = Field(
        default=None,
        ge=1,
        le=30 * 86_400,
        description="End an attempt after so long; null: never.",
    )


class JobSpec(Spec):
    """One training job."""

    name: Name | None = Field(default=None, description="A label; need not be unique.")
    objective: MigeInfomaxSpec
    encoder: EncoderSpec
    data: DataSpec
    optimizer: AdamSpec = AdamSpec(kind="adam")
    training: TrainingSpec = TrainingSpec()
    checkpoint: CheckpointSpec = CheckpointSpec()
    evaluation: EvaluationSpec = EvaluationSpec()
    resources: ResourcesSpec = ResourcesSpec()
    retry: RetrySpec = RetrySpec()
    seed: int = Field(default=0, ge=0, lt=2**63)
    metadata: dict[MetadataKey, MetadataValue] = Field(default_factory=dict, max_length=64)

    def resolved(self) -> JobSpec:
        """The same spec with every value that depends on another one filled in."""
        if self.objective.route != "joint" or self.objective.projection_dim is not None:
            return self
        objective = self.objective.model_copy(
            update={"projection_dim": min(4096, 2 * self.encoder.out_dim)}
        )
        return self.model_copy(update={"objective": objective})
