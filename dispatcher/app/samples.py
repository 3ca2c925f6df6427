"""The samples of the event catalogue: what an event of a type looks like."""

from pathlib import Path
from typing import Any

import orjson

import dispatcher
from dispatcher.core.errors import SettingsError
from dispatcher.core.matching import TYPE


def catalogue_folder(schemas_dir: Path | None) -> Path:
    """Return the folder with one `<type>.json` for each event type; None gives the shipped one."""
    if schemas_dir is not None:
        return schemas_dir
    package = Path(dispatcher.__file__).parent
    carried = package / "_schemas" / "events"
    return carried if carried.is_dir() else package.parent / "schemas" / "events"


def sample_of(event_type: str, schemas_dir: Path | None = None) -> Any:
    """Return the sample `data` of an event type, or None where the catalogue has none.

    Raises:
        SettingsError: The catalogue's file of this type is no JSON object.
    """
    if TYPE.fullmatch(event_type) is None:
        return None
    path = catalogue_folder(schemas_dir) / f"{event_type}.json"
    try:
        entry = orjson.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, orjson.JSONDecodeError) as error:
        raise SettingsError([f"DISPATCHER_EVENT_SCHEMAS_DIR has {path.name}, which can't be read: {error}"]) from None
    return entry.get("sample") if isinstance(entry, dict) else None
