"""Is a teacher what it should be: are its weights loaded, is its input right, does it know anything?"""
from mmfeatdistill.teacher_check.check import Finding, TeacherCheck, check_teachers, num_classes
from mmfeatdistill.teacher_check.evaluation import Scores, ValidationData, clearly_better
from mmfeatdistill.teacher_check.load_fit import Renaming, explain_load, find_renaming

__all__ = ['Finding', 'Renaming', 'Scores', 'TeacherCheck', 'ValidationData', 'check_teachers', 'clearly_better',
           'explain_load', 'find_renaming', 'num_classes']
