import pytest

from phosphene.errors import ConfigError
from phosphene.io.config import parse_assignments, resolve_layers
from phosphene.training.settings import TrainConfig


@pytest.mark.fault(60)
@pytest.mark.parametrize("lr", ["0", "-1e-3", ".nan", ".inf", "'1e-3'"])
def test_an_impossible_learning_rate_is_refused_before_training(lr):
    with pytest.raises(ConfigError, match="'lr'"):
        resolve_layers(TrainConfig, [("--set", parse_assignments(["steps=10", "batch_size=2", f"lr={lr}"]))])
