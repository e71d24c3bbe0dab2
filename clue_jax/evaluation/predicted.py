"""The predictions of all models of one task, by name, as they come in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from clue_jax.evaluation.people import People
from clue_jax.evaluation.predictions import Prediction, choose
from clue_jax.evaluation.targets import TaskInputs


@dataclass
class Predicted:
    """Predictions by model, and which of several heads were chosen."""

    people: People
    inputs: TaskInputs
    by_model: dict[str, np.ndarray]
    losses: dict[str, float] = field(default_factory=dict)  # validation, by features
    chosen: dict[str, Prediction] = field(default_factory=dict)  # by features

    def keep(self, name: str, found: Mapping[str, Prediction]) -> None:
        """Takes the predictions of all heads on some features, and those that users choose.

        Args:
            name: of the features.
            found: by head; nothing where the features are not for this kind of task.
        """
        if not found:
            return
        name = self._marked(name)
        for head, prediction in found.items():
            self.by_model[f"{name} {head}"] = prediction.values
        chosen = choose(self.inputs, found)
        self.by_model[name] = chosen.values
        self.losses[name] = chosen.loss
        self.chosen[name] = chosen

    def _marked(self, name: str) -> str:
        """Without dates, another service's behaviours may be later than what they are to tell."""
        people, inputs = self.people, self.inputs
        if inputs.catalogue is None or people.dataset.has_times:
            return name
        own = name == f"clue/{inputs.task.service}" or len(people.export.services) == 1
        return name if own else f"{name} (order unknown)"
