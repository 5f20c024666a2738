from .brain import check_brain_model
from .checklist import Checklist, NonConforming
from .feature import check_feature
from .generator import check_generator
from .metric import check_metric
from .reader import check_reader
from .recipe import check_recipe
from .study import TinyStudy, tiny_study

__all__ = [
    "Checklist",
    "NonConforming",
    "TinyStudy",
    "check_brain_model",
    "check_feature",
    "check_generator",
    "check_metric",
    "check_reader",
    "check_recipe",
    "tiny_study",
]
