"""What a setting takes, in words: for the reference page and for errors, from the same field."""

from collections.abc import Callable
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt, MaxLen, MinLen
from pydantic import SecretStr
from pydantic.fields import FieldInfo


def takes(field: FieldInfo, quoted: Callable[[str], str] = str) -> str:
    """Type and range, such as ``whole number, from 1 to 128``; what is to be written literally goes through ``quoted``."""
    kind: Any = field.annotation
    if get_origin(kind) in (Union, UnionType):
        (kind,) = (part for part in get_args(kind) if part is not NoneType)
    if get_origin(kind) is Annotated:
        kind = get_args(kind)[0]
    if get_origin(kind) is Literal:
        return ", ".join(quoted(value) for value in get_args(kind))
    if kind is SecretStr:
        return "secret text"
    if isinstance(kind, type) and issubclass(kind, Path):
        return "path of a file"
    name = {bool: f"{quoted('true')} or {quoted('false')}", int: "whole number", float: "number", str: "text"}[kind]
    bounds = _bounds(field, quoted)
    return f"{name}, {bounds}" if bounds else name


def expected(field: FieldInfo) -> str:
    """The same for an error, as the end of "expected …": an example in the place of a pattern."""
    if field.examples:
        return f"text such as {field.examples[0]}"
    kinds = (field.annotation, *get_args(field.annotation))
    if any(get_origin(kind) is Literal for kind in kinds):
        return f"one of {takes(field)}"
    words = takes(field)
    return f"a {words}" if words.startswith(("whole number", "number", "path")) else words


def _bounds(field: FieldInfo, quoted: Callable[[str], str]) -> str:
    """The allowed range in words, from pydantic's constraints."""
    said: list[str] = []
    for constraint in field.metadata:
        match constraint:
            case Ge(ge=bound):
                said.append(f"from {bound}")
            case Gt(gt=bound):
                said.append(f"more than {bound}")
            case Le(le=bound):
                said.append(f"to {bound}")
            case Lt(lt=bound):
                said.append(f"less than {bound}")
            case MinLen(min_length=1):
                said.append("not empty")
            case MinLen(min_length=bound):
                said.append(f"at least {bound} characters")
            case MaxLen(max_length=bound):
                said.append(f"at most {bound} characters")
            case _ if getattr(constraint, "pattern", None):
                said.append(f"as {quoted(constraint.pattern)}")
            case _:
                continue
    return " ".join(said)
