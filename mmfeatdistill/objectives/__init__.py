"""Objectives: what of the student is matched to what of the teacher, and how."""
from mmfeatdistill.objectives.base import Objective, TapPair
from mmfeatdistill.objectives.cross_head import CrossHead
from mmfeatdistill.objectives.decoupled import Decoupled
from mmfeatdistill.objectives.fcfd import FCFD
from mmfeatdistill.objectives.fcfd_box_head import FCFDBoxHead
from mmfeatdistill.objectives.feature_match import FeatureMatch
from mmfeatdistill.objectives.fgd import FGD
from mmfeatdistill.objectives.ft import FT
from mmfeatdistill.objectives.lsh import LSH
from mmfeatdistill.objectives.lsh_roi import LSHRoI
from mmfeatdistill.objectives.ofd import OFD
from mmfeatdistill.objectives.position_weights import GroundTruth, TeacherScore
from mmfeatdistill.objectives.review_kd import ReviewKD
from mmfeatdistill.objectives.shared_queries import SharedQueries
from mmfeatdistill.objectives.target_aware import TargetAware

__all__ = ['CrossHead', 'Decoupled', 'FCFD', 'FCFDBoxHead', 'FGD', 'FT', 'FeatureMatch', 'GroundTruth', 'LSH',
           'LSHRoI', 'OFD', 'Objective', 'ReviewKD', 'SharedQueries', 'TapPair', 'TargetAware', 'TeacherScore']
