"""Which field is masked how: the declaration's defaults, and the setting MASKING_METHODS over them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pipeline.errors import SettingsError
from stream_app.login_record import FIELDS, Content, Field
from stream_app.masking.methods import MaskingMethod

SETTING_METHODS = "MASKING_METHODS"


@dataclass(frozen=True, slots=True)
class MaskingPolicy:
    """The method of each masked field."""

    methods: Mapping[str, MaskingMethod]

    def uses(self, method: MaskingMethod) -> bool:
        """Whether a field is masked in this way."""
        return method in self.methods.values()


def parse_methods(text: str, fields: Sequence[Field] = FIELDS) -> MaskingPolicy:
    """Read the setting, such as ``ip=hmac,device_id=redact``; a field that it doesn't name keeps its default.

    Raises :class:`SettingsError`.
    """
    masked = {field.name: field for field in fields if field.masking is not None}
    methods = {name: field.masking for name, field in masked.items() if field.masking is not None}
    named: set[str] = set()
    for entry in filter(None, (part.strip() for part in text.split(","))):
        name, _, method_text = (part.strip() for part in entry.partition("="))
        if name not in masked:
            raise SettingsError(f"{SETTING_METHODS}: expected entries such as ip=hmac; the masked fields are {', '.join(masked)}")
        if name in named:
            raise SettingsError(f"{SETTING_METHODS}: {name} is named twice")
        named.add(name)
        allowed = [method for method in MaskingMethod if _allowed(masked[name], method)]
        if method_text not in allowed:
            raise SettingsError(f"{SETTING_METHODS}: {name} can be masked by {', '.join(allowed)}")
        methods[name] = MaskingMethod(method_text)
    return MaskingPolicy(methods)


def _allowed(field: Field, method: MaskingMethod) -> bool:
    return method is not MaskingMethod.TRUNCATE or field.content is Content.IP_ADDRESS
