"""`evergreen checkout NAME@VERSION`: the very data behind a registered model."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Checkout:
    scenario: str
    model_version: int
    data_version: str

    def __str__(self) -> str:
        return (
            f"data/ and outputs/{self.scenario} are as version {self.model_version} of evergreen-{self.scenario} was trained on: "
            f"data version {self.data_version}. Back to the newest: evergreen checkout {self.scenario}@LATER, or git checkout."
        )
