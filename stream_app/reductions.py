"""What may be left off a value on its way into its column."""

from enum import StrEnum


class Reduction(StrEnum):
    """What a row holds less than the record said; a closed list, and also the values of the metric's label.

    A field's declaration says which of them it takes, each counted. Of a field that doesn't, such a value is a dead letter.
    """

    OTHER_ADDRESSES = "other_addresses"
    """Addresses after the first one, in a list such as X-Forwarded-For's: the first is the client, by convention."""
    PORT = "port"
    """The port beside an address."""
    ZONE = "zone"
    """An IPv6 address's zone id (RFC 4007), which means something on one host only."""
    BUILD = "build"
    """A version's build: a fourth part that is not 0, or what stands in parentheses or after a plus sign."""
    ROUNDED = "rounded"
    """A version with a part that the integer has no room for: stored is the highest below it that there is."""
    NO_VALUE = "no_value"
    """A text that says that there is none, such as the all-zero id of who opted out: NULL."""
