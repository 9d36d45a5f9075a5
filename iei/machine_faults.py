"""What keeps a program from starting although it is right: faults of the machine, as one sentence."""

from __future__ import annotations

import errno
from collections.abc import Mapping


def sentence(error: OSError) -> str:
    """`error` for the operator, who needs the cause and the place, not a traceback.

    Raises:
        OSError: `error` itself, if it is none of the machine's faults: a mistake in the program is shown whole.
    """
    advice = _ADVICE.get(error.errno or 0)
    if not advice:
        raise error
    place = f": {error.filename}" if error.filename else ""
    return f"{error.strerror}{place}. {advice}"


_SPACE = "Free some space, or move what IEI writes: TMPDIR, IEI_CACHE_DIR (the demo), HF_HOME (models of the hub)."
_RIGHTS = "IEI writes to TMPDIR, IEI_CACHE_DIR (the demo) and HF_HOME (models of the hub): it must be allowed to."
_ADVICE: Mapping[int, str] = {
    errno.ENOSPC: _SPACE,
    errno.EDQUOT: _SPACE,
    errno.EROFS: _RIGHTS,
    errno.EACCES: _RIGHTS,
    errno.EPERM: _RIGHTS,
    errno.EADDRINUSE: "Another program began to listen there while the models were loaded.",
    errno.EMFILE: "Raise the limit on open files (ulimit -n).",
    errno.ENFILE: "Raise the machine's limit on open files (fs.file-max).",
    errno.ENOMEM: "Free some memory, or give the machine more.",
}
"""errno → what to do about it."""
