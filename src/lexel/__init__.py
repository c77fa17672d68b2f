"""Lexel: vector quantization in PyTorch. Continuous features become discrete codes, and codes become features again.

import torch, lexel

vq = lexel.VectorQuantizer(512, 64)
loss, quantized, perplexity, encodings = vq(torch.randn(2, 64, 8, 8))

The names below are the public ones: this is the one place where they are listed.
"""

import lexel._core.start  # noqa: F401  # isort: skip
from importlib.metadata import version as _version

from lexel import presets as presets
from lexel._core.collectives import set_process_group as set_process_group
from lexel._core.config import (
    from_config as from_config,
)
from lexel._core.config import (
    to_config as to_config,
)
from lexel._core.gradients import straight_through as straight_through
from lexel.audit import audit as audit
from lexel.codebook import (
    AffineCodebook as AffineCodebook,
)
from lexel.codebook import (
    Codebook as Codebook,
)
from lexel.codebook import (
    CodebookModule as CodebookModule,
)
from lexel.codebook import (
    CosineCodebook as CosineCodebook,
)
from lexel.codebook import (
    FactorisedCodebook as FactorisedCodebook,
)
from lexel.codebook import (
    FreeCodebook as FreeCodebook,
)
from lexel.codebook import (
    SimVQ as SimVQ,
)
from lexel.codebook import (
    VQBridge as VQBridge,
)
from lexel.estimators import (
    NSVQ as NSVQ,
)
from lexel.estimators import (
    DiVeQ as DiVeQ,
)
from lexel.estimators import (
    Estimator as Estimator,
)
from lexel.estimators import (
    EstimatorModule as EstimatorModule,
)
from lexel.estimators import (
    GumbelSoftmax as GumbelSoftmax,
)
from lexel.estimators import (
    IndexBackpropagation as IndexBackpropagation,
)
from lexel.estimators import (
    NearestCode as NearestCode,
)
from lexel.estimators import (
    Prices as Prices,
)
from lexel.estimators import (
    RotationTrick as RotationTrick,
)
from lexel.estimators import (
    SpaceFillingDiVeQ as SpaceFillingDiVeQ,
)
from lexel.estimators import (
    StraightThrough as StraightThrough,
)
from lexel.estimators import (
    Synchronised as Synchronised,
)
from lexel.kmeans import (
    Clustering as Clustering,
)
from lexel.kmeans import (
    kmeans as kmeans,
)
from lexel.learning import (
    EMA as EMA,
)
from lexel.learning import (
    Gradient as Gradient,
)
from lexel.learning import (
    Learning as Learning,
)
from lexel.learning import (
    LearningModule as LearningModule,
)
from lexel.nearest import nearest_code as nearest_code
from lexel.quantizers.base import (
    Candidates as Candidates,
)
from lexel.quantizers.base import (
    Choice as Choice,
)
from lexel.quantizers.base import (
    Quantized as Quantized,
)
from lexel.quantizers.base import (
    Quantizer as Quantizer,
)
from lexel.quantizers.base import (
    RowQuantizer as RowQuantizer,
)
from lexel.quantizers.categorical import CategoricalQuantizer as CategoricalQuantizer
from lexel.quantizers.dropout import QuantizationDropout as QuantizationDropout
from lexel.quantizers.finite_scalar import (
    FiniteScalarQuantizer as FiniteScalarQuantizer,
)
from lexel.quantizers.finite_scalar import (
    LatentQuantizer as LatentQuantizer,
)
from lexel.quantizers.implicit import ImplicitQuantizer as ImplicitQuantizer
from lexel.quantizers.lookup_free import (
    BinarySphericalQuantizer as BinarySphericalQuantizer,
)
from lexel.quantizers.lookup_free import (
    LookupFreeQuantizer as LookupFreeQuantizer,
)
from lexel.quantizers.multi_scale import MultiScaleResidualQuantizer as MultiScaleResidualQuantizer
from lexel.quantizers.normalised import NormalisedQuantizer as NormalisedQuantizer
from lexel.quantizers.parallel import ParallelQuantizer as ParallelQuantizer
from lexel.quantizers.product import ProductQuantizer as ProductQuantizer
from lexel.quantizers.projected import ProjectedQuantizer as ProjectedQuantizer
from lexel.quantizers.random_projection import RandomProjectionQuantizer as RandomProjectionQuantizer
from lexel.quantizers.residual import ResidualQuantizer as ResidualQuantizer
from lexel.quantizers.residual_finite_scalar import ResidualFiniteScalarQuantizer as ResidualFiniteScalarQuantizer
from lexel.quantizers.strided import StridedResidualQuantizer as StridedResidualQuantizer
from lexel.quantizers.unit import UnitQuantizer as UnitQuantizer
from lexel.quantizers.vector import VectorQuantizer as VectorQuantizer
from lexel.regularisers import (
    Entropy as Entropy,
)
from lexel.regularisers import (
    Orthogonality as Orthogonality,
)
from lexel.regularisers import (
    Regulariser as Regulariser,
)
from lexel.regularisers import (
    RegulariserModule as RegulariserModule,
)
from lexel.upkeep import (
    KMeansStart as KMeansStart,
)
from lexel.upkeep import (
    OnlineClustering as OnlineClustering,
)
from lexel.upkeep import (
    Revival as Revival,
)
from lexel.upkeep import (
    Upkeep as Upkeep,
)
from lexel.upkeep import (
    UpkeepModule as UpkeepModule,
)

__version__ = _version("lexel")
