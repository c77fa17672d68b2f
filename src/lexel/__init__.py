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
    to_config as to_config,
)
from lexel._core.gradients import straight_through as straight_through
from lexel.audit import audit as audit
from lexel.codebook import (
    AffineCodebook as AffineCodebook,
    Codebook as Codebook,
    CodebookModule as CodebookModule,
    CosineCodebook as CosineCodebook,
    FactorisedCodebook as FactorisedCodebook,
    FreeCodebook as FreeCodebook,
    SimVQ as SimVQ,
    VQBridge as VQBridge,
)
from lexel.estimators import (
    NSVQ as NSVQ,
    DiVeQ as DiVeQ,
    Estimator as Estimator,
    EstimatorModule as EstimatorModule,
    GumbelSoftmax as GumbelSoftmax,
    IndexBackpropagation as IndexBackpropagation,
    NearestCode as NearestCode,
    Prices as Prices,
    RotationTrick as RotationTrick,
    SpaceFillingDiVeQ as SpaceFillingDiVeQ,
    StraightThrough as StraightThrough,
    Synchronised as Synchronised,
)
from lexel.kmeans import (
    Clustering as Clustering,
    kmeans as kmeans,
)
from lexel.learning import (
    EMA as EMA,
    Gradient as Gradient,
    Learning as Learning,
    LearningModule as LearningModule,
)
from lexel.nearest import nearest_code as nearest_code
from lexel.quantizers.base import (
    Candidates as Candidates,
    Choice as Choice,
    Quantized as Quantized,
    Quantizer as Quantizer,
    RowQuantizer as RowQuantizer,
)
from lexel.quantizers.categorical import CategoricalQuantizer as CategoricalQuantizer
from lexel.quantizers.dropout import QuantizationDropout as QuantizationDropout
from lexel.quantizers.finite_scalar import (
    FiniteScalarQuantizer as FiniteScalarQuantizer,
    LatentQuantizer as LatentQuantizer,
)
from lexel.quantizers.implicit import ImplicitQuantizer as ImplicitQuantizer
from lexel.quantizers.lookup_free import (
    BinarySphericalQuantizer as BinarySphericalQuantizer,
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
    Orthogonality as Orthogonality,
    Regulariser as Regulariser,
    RegulariserModule as RegulariserModule,
)
from lexel.upkeep import (
    KMeansStart as KMeansStart,
    OnlineClustering as OnlineClustering,
    Revival as Revival,
    Upkeep as Upkeep,
    UpkeepModule as UpkeepModule,
)

__version__ = _version("lexel")
