"""Which priority a request has: what its header asks for, or else its route's, and never above that of its key."""

from __future__ import annotations

from collections.abc import Mapping

from iei.errors import InvalidField
from iei.priority import BY_LABEL, Priority

HEADER = "X-IEI-Priority"


class PriorityRule:
    """Decides for every request, whatever protocol it came in.

    Args:
        bulk_routes: paths, separated by commas, whose requests are bulk if they don't say; each with all paths below.
    """

    def __init__(self, bulk_routes: str) -> None:
        self._bulk = tuple(route.strip().rstrip("/") + "/" for route in bulk_routes.split(",") if route.strip())

    def of(self, headers: Mapping[str, str], path: str, at_most: Priority) -> Priority:
        """The priority of a request.

        Args:
            headers: by their names in lower case.
            path: its route.
            at_most: the priority of its key: a limit that an operator has set, which no header lifts.

        Raises:
            InvalidField: the header has another value.
        """
        asked = headers.get(HEADER.lower())
        if asked is None:
            wanted = Priority.BULK if f"{path}/".startswith(self._bulk) else Priority.INTERACTIVE
        elif asked.strip().lower() in BY_LABEL:
            wanted = BY_LABEL[asked.strip().lower()]
        else:
            raise InvalidField(f"the header {HEADER} must be {' or '.join(BY_LABEL)}, not {asked[:20]!r}", HEADER)
        return max(wanted, at_most)
