from typing import Annotated, Literal

import pytest
from pydantic import Field

from phosphene.errors import ConfigError
from phosphene.io.config import FORMAT, Config, parse_assignments, parse_yaml, read_yaml, resolve_layers, to_yaml


class Ridge(Config):
    kind: Literal["ridge"] = "ridge"
    alpha: float = Field(1.0, gt=0, le=1e12)
    centred: bool = True


class Nearest(Config):
    kind: Literal["nearest"] = "nearest"
    neighbours: int = 3


class Whole(Config):
    format: int = FORMAT
    decoder: Annotated[Ridge | Nearest, Field(discriminator="kind")] = Ridge()
    layers: tuple[int, ...] = (1, 2)
    seed: int = Field(0, ge=0)


def made(*assignments, file=None):
    layers = [] if file is None else [("file.yaml", file)]
    return resolve_layers(Whole, [*layers, ("--set", parse_assignments(assignments))])


def test_later_layers_win_and_every_value_knows_its_origin():
    config, origins = made("seed=4", file={"decoder": {"alpha": 2.5}, "seed": 3})
    assert (config.decoder.alpha, config.seed) == (2.5, 4)
    assert origins["decoder.alpha"] == "file.yaml"
    assert origins["seed"] == "--set"
    assert origins["decoder.centred"] == origins["layers"] == "default"


def test_another_kind_brings_its_own_defaults():
    config, _ = made("decoder.kind=nearest")
    assert config.decoder == Nearest()


def test_what_is_written_is_read_back():
    config, _ = made("decoder.alpha=1e-7", "layers=[3]")
    text = to_yaml(config.model_dump(mode="json"))
    assert resolve_layers(Whole, [("back", parse_yaml(text))])[0] == config


@pytest.mark.fault(55)
def test_an_unknown_key_suggests_the_nearest():
    with pytest.raises(ConfigError, match=r"no key 'decoder.alpah'. Did you mean 'alpha'\?"):
        made("decoder.alpah=1")


@pytest.mark.fault(56)
def test_a_key_that_stands_twice_is_refused_with_its_line(tmp_path):
    (tmp_path / "c.yaml").write_text("seed: 1\nlayers: [1]\nseed: 2\n")
    with pytest.raises(ConfigError, match=r"c.yaml, line 3.*'seed' stands twice"):
        read_yaml(tmp_path / "c.yaml")


@pytest.mark.fault(57)
def test_scientific_notation_is_a_number_with_or_without_a_point():
    assert parse_yaml("a: 1e-4\nb: 1.0e-4\nc: 0123") == {"a": 1e-4, "b": 1e-4, "c": 123}


@pytest.mark.fault(57)
def test_a_number_in_quotes_is_not_taken_for_a_number():
    with pytest.raises(ConfigError, match="'decoder.alpha'.*write it without quotes"):
        made(file={"decoder": {"alpha": "1e-4"}})


@pytest.mark.fault(58)
def test_yes_and_no_are_texts_and_no_booleans():
    assert parse_yaml("a: no\nb: yes\nc: true") == {"a": "no", "b": "yes", "c": True}
    with pytest.raises(ConfigError, match="'decoder.centred'.*write true or false"):
        made("decoder.centred=no")


@pytest.mark.fault(59)
@pytest.mark.parametrize("alpha", ["-1", "0", "1e300", ".inf", ".nan"])
def test_impossible_penalties_are_refused(alpha):
    with pytest.raises(ConfigError, match="decoder.alpha"):
        made(f"decoder.alpha={alpha}")


@pytest.mark.fault(62)
def test_a_configuration_of_a_newer_phosphene_says_so():
    with pytest.raises(ConfigError, match="written by a newer one"):
        made(file={"format": FORMAT + 1, "something": "new"})


@pytest.mark.fault(64)
@pytest.mark.parametrize("seed", ["1.5", "'1'", "-1", "one", "true"])
def test_a_seed_must_be_a_whole_number(seed):
    with pytest.raises(ConfigError, match="'seed'"):
        made(f"seed={seed}")


@pytest.mark.fault(65)
def test_contradictory_assignments_are_refused():
    with pytest.raises(ConfigError, match="gives seed twice"):
        made("seed=1", "seed=2")


@pytest.mark.fault(65)
def test_an_option_of_another_variant_is_refused():
    with pytest.raises(ConfigError, match="no key 'decoder.alpha'"):
        made("decoder.kind=nearest", "decoder.alpha=3")


@pytest.mark.fault(118)
@pytest.mark.parametrize("text", ["a: &x [1]\nb: *x", "a: !!python/object/apply:os.getcwd []"])
def test_aliases_and_tags_are_refused(text):
    with pytest.raises(ConfigError):
        parse_yaml(text)


def test_a_file_that_is_no_mapping_or_no_text_is_refused(tmp_path):
    (tmp_path / "list.yaml").write_text("- 1\n")
    (tmp_path / "latin.yaml").write_bytes(b"a: \xe9\n")
    for name in ("list.yaml", "latin.yaml", "absent.yaml"):
        with pytest.raises(ConfigError, match=name):
            read_yaml(tmp_path / name)
