"""Loss functions, and the registered modules over them; every one is ``loss(student, teacher)``."""
from mmfeatdistill.losses.activation_boundary import ActivationBoundary, activation_boundary
from mmfeatdistill.losses.appearance import appearance
from mmfeatdistill.losses.attention_guided import (
    AttentionGuided,
    attention_guided,
    normalized_distance,
    refined,
)
from mmfeatdistill.losses.attention_transfer import AttentionTransfer, attention_transfer
from mmfeatdistill.losses.channel_wise_divergence import (
    ChannelWiseDivergence,
    channel_wise_divergence,
)
from mmfeatdistill.losses.decoupled import decoupled
from mmfeatdistill.losses.dist import DIST, dist
from mmfeatdistill.losses.factor_transfer import FactorTransfer, factor_transfer
from mmfeatdistill.losses.fgd import attention_error, focal, global_relation
from mmfeatdistill.losses.hierarchical_context import HierarchicalContext, hierarchical_context
from mmfeatdistill.losses.instance_norm_error import InstanceNormError, instance_norm_error
from mmfeatdistill.losses.kl_divergence import KLDivergence, kl_divergence
from mmfeatdistill.losses.logit_standardization import standardize_logits
from mmfeatdistill.losses.lsh import lsh, lsh_bias
from mmfeatdistill.losses.masked_generative import masked_generative
from mmfeatdistill.losses.overhaul import overhaul_margin, partial_l2
from mmfeatdistill.losses.pearson import Pearson, pearson
from mmfeatdistill.losses.predictions import (
    binary_divergence,
    box_distance,
    distribution_divergence,
    quality_focal,
)
from mmfeatdistill.losses.relational_angle import RelationalAngle, relational_angle
from mmfeatdistill.losses.relational_distance import RelationalDistance, relational_distance
from mmfeatdistill.losses.squared_error import SquaredError, squared_error
from mmfeatdistill.losses.target_aware import target_aware
from mmfeatdistill.losses.weighted_error import WeightedError, weighted_error

__all__ = [
    'ActivationBoundary', 'AttentionGuided', 'AttentionTransfer', 'ChannelWiseDivergence', 'DIST', 'FactorTransfer',
    'HierarchicalContext', 'InstanceNormError', 'KLDivergence', 'Pearson', 'RelationalAngle', 'RelationalDistance',
    'SquaredError', 'WeightedError',
    'activation_boundary', 'appearance', 'attention_error', 'attention_guided', 'attention_transfer',
    'binary_divergence', 'box_distance', 'channel_wise_divergence', 'decoupled', 'dist', 'distribution_divergence',
    'factor_transfer', 'focal', 'global_relation', 'hierarchical_context', 'instance_norm_error', 'kl_divergence',
    'lsh', 'lsh_bias', 'masked_generative', 'normalized_distance', 'overhaul_margin', 'partial_l2', 'pearson',
    'quality_focal', 'refined', 'relational_angle', 'relational_distance', 'squared_error', 'standardize_logits',
    'target_aware', 'weighted_error']
