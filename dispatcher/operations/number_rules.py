"""Whole numbers as JSON knows them: there is one kind of number, and 3.0 is the same as 3.

Source: JSON Schema 2020-12, core, section 4.2.3 (equality) and 6.1.1 of validation (integer).
"""

from typing import Any

from pydantic import BeforeValidator


def as_whole(value: Any) -> Any:
    """Return a number without a fraction as an integer, and all else as it is."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


WHOLE = BeforeValidator(as_whole)
"""Of an integer: however JSON writes it."""
