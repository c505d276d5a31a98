"""What an optimizer has state for, in a file: the variables that it was built with, frozen since then or not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras


def places_of_state(model: keras.Model) -> list[int] | None:
    """The places, among a model's weights, of the variables that its optimizer was built with.

    Returns:
        None if they are the variables that are trained now; none where the optimizer is not built.
    """
    if not model.optimizer.built:
        return []
    known = model.optimizer._trainable_variables
    if [id(variable) for variable in known] == [id(variable) for variable in model.trainable_variables]:
        return None
    places = {id(weight): place for place, weight in enumerate(model.weights)}
    return [places[id(variable)] for variable in known] if all(id(variable) in places for variable in known) else None


def build_for_state(model: keras.Model, places: Sequence[int] | None) -> None:
    """Builds the optimizer of a loaded model for the weights at these places; for those that are trained if None."""
    if places is None:
        model.optimizer.build(model.trainable_variables)
    if not places:
        return
    weights = model.weights
    variables = [weights[place] for place in places]
    frozen: list[Any] = [variable for variable in variables if not variable.trainable]
    for variable in frozen:
        variable.trainable = True  # as when it was built: of a frozen table no optimizer knows that it is one
    try:
        model.optimizer.build(variables)
    finally:
        for variable in frozen:
            variable.trainable = False
