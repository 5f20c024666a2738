"""The promises every recipe makes; what makes this one good is for tests of your own."""

from phosphene_neighbours import Neighbours

from phosphene.conformance import check_recipe


def test_neighbours_keep_the_promises_of_a_recipe():
    check_recipe(Neighbours)
