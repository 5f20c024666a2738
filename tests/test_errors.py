"""Suggestions that messages end with."""

from phosphene.errors import did_you_mean


def test_very_many_names_are_not_all_listed_and_the_nearest_still_is():
    names = [f"recipe=linear,seed={i:04d}" for i in range(500)]
    said = did_you_mean("recipe=linear,seed=0499x", names)
    assert said.startswith("Did you mean 'recipe=linear,seed=0499'?")
    assert said.endswith(" more.")
    shown = said.count("recipe=") - 1
    assert f"and {500 - shown} more." in said
    assert len(said) < 1200


def test_one_long_name_is_listed():
    assert "x" * 2000 in did_you_mean("y", ["x" * 2000])
