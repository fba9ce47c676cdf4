"""Whether the values of a board are of the types that Grafana's own schema gives them.

The SDK's classes are made from that schema: each field is annotated, enumerations are classes. Their ``from_json`` takes over
whatever stands there, so it is held to the annotations here.
"""

from collections.abc import Iterator, Mapping
from enum import Enum
from types import UnionType
from typing import Any, ForwardRef, Literal, Union, get_args, get_origin, get_type_hints

from grafana_foundation_sdk.models.dashboard import Dashboard

MODELS = "grafana_foundation_sdk.models."


def type_faults(board: Mapping[str, Any]) -> list[str]:
    """The places of a board, as JSON, whose values are of another type, or none of an enumeration's."""
    return list(_faults(Dashboard.from_json(dict(board)), Dashboard, ""))


def _faults(value: Any, wanted: Any, place: str) -> Iterator[str]:
    if not _fits(value, wanted):
        yield f"{place} is {value!r} and should be {wanted.__name__ if isinstance(wanted, type) else wanted}"
        return
    if isinstance(value, dict) and (model := _model(wanted)) is not None:  # the SDK leaves some as they come
        value = model.from_json(value)
    if isinstance(value, list):
        (inner,) = get_args(_alternative(value, wanted)) or (Any,)
        for index, element in enumerate(value):
            yield from _faults(element, inner, f"{place}/{index}")
    elif isinstance(value, dict):
        _, inner = get_args(_alternative(value, wanted)) or (str, Any)
        for key, element in value.items():
            yield from _faults(element, inner, f"{place}/{key}")
    elif type(value).__module__.startswith(MODELS) and not isinstance(value, Enum):
        for name, hint in get_type_hints(type(value)).items():
            yield from _faults(getattr(value, name), hint, f"{place}/{name}")


def _fits(value: Any, wanted: Any) -> bool:
    """Whether the value itself is of that type; what it holds is looked at by itself."""
    origin = get_origin(wanted)
    if origin in (Union, UnionType):
        return any(_fits(value, alternative) for alternative in get_args(wanted))
    if origin is Literal:
        return value in get_args(wanted)
    if wanted in (Any, object) or isinstance(wanted, ForwardRef):
        return True
    return _is_one(value, origin or wanted)


def _is_one(value: Any, kind: type) -> bool:
    if issubclass(kind, Enum):
        return isinstance(value, kind) or any(value == each.value and type(value) is type(each.value) for each in kind)
    if kind in (int, float) and isinstance(value, bool):
        return False
    if kind is float:
        return isinstance(value, int | float)
    return isinstance(value, kind) or (isinstance(value, dict) and _model(kind) is not None)


def _model(wanted: Any) -> Any:
    """The class of the SDK among the types, if one is and no dictionary fits as it is."""
    alternatives = get_args(wanted) if get_origin(wanted) in (Union, UnionType) else (wanted,)
    if any(get_origin(each) is dict for each in alternatives):
        return None
    return next((each for each in alternatives if hasattr(each, "from_json")), None)


def _alternative(value: Any, wanted: Any) -> Any:
    """Of a union the type that the value is of."""
    if get_origin(wanted) in (Union, UnionType):
        return next((each for each in get_args(wanted) if get_origin(each) is type(value)), Any)
    return wanted
