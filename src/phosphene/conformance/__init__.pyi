from .brain_checks import check_brain_model
from .checklist import Checklist, NonConforming
from .feature_checks import check_feature
from .generator_checks import check_generator
from .metric_checks import check_metric
from .reader_checks import check_reader
from .recipe_checks import check_recipe
from .small_study import TinyStudy, tiny_study

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
