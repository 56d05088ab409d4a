"""Distillers: the model that a runner trains."""
from mmfeatdistill.distillers.feature_distiller import FeatureDistiller

__all__ = ['FeatureDistiller']
