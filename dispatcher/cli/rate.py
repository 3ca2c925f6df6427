"""How commands are told a rate."""

import math
from typing import Any

import click


class Rate(click.ParamType):  # type: ignore[type-arg]  # generic for the type checker alone
    """A number of deliveries a second: `200` or `200/s`.

    Args:
        least: The lowest that is taken; None: any above 0.
        most: The highest; None: any.
    """

    name = "rate"

    def __init__(self, least: float | None = None, most: float | None = None) -> None:
        self._least = least
        self._most = most

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the number; usage error where it is none."""
        try:
            rate = float(str(value).removesuffix("/s"))
        except ValueError:
            rate = 0.0
        if not (0 < rate < math.inf and (self._least or 0) <= rate <= (self._most or math.inf)):
            hint = f"from {self._least} to {self._most}, such as 50/s"
            hint = "above 0, such as 200 or 200/s" if self._most is None else hint
            self.fail(f"{value!r} is no rate; write a number {hint}", param, ctx)
        return rate
